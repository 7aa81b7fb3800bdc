"""Behind nginx, no request is lost or rejected while pixelfast servers restart and die."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reliability.failover import behind_nginx, fail_over, why_no_nginx

pytestmark = pytest.mark.skipif(bool(why_no_nginx()), reason=why_no_nginx())

# A start may take long on a busy machine; on one that is not, it is far within what is shipped.
PATIENT = [("proxy_read_timeout 10s", "proxy_read_timeout 60s")]


@pytest.mark.parametrize(
    ("site", "upstream"),
    [
        ("pixelfast-tls.conf", "two-tcp.conf"),
        ("rudderstack.conf", "two-unix.conf"),
        ("pixelfast.conf", "backup.conf"),
    ],
)
def test_one_of_two_servers_may_end_at_any_time(site: str, upstream: str, tmp_path: Path) -> None:
    with behind_nginx(tmp_path, upstream, site=site) as (fleet, nginx):
        # The second one ends soon after the first: by nginx's default of max_fails that is a 502.
        steps = [lambda: fleet.restart(0), lambda: fleet.crash(1)]
        outcome = fail_over(fleet, nginx.port, steps)
    assert outcome.is_clean, outcome
    assert outcome.sent == outcome.acked


@pytest.mark.parametrize("upstream", ["one-tcp.conf", "one-unix.conf"])
def test_the_only_server_may_restart_if_its_socket_stays(upstream: str, tmp_path: Path) -> None:
    with behind_nginx(tmp_path, upstream, holds_sockets=True, changes=PATIENT) as (fleet, nginx):
        outcome = fail_over(fleet, nginx.port, [lambda: fleet.restart(0)])
    assert outcome.is_clean, outcome
    assert outcome.sent == outcome.acked
