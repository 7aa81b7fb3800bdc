"""Settings of destinations: accepted and rejected values, and hidden secrets."""

from __future__ import annotations

import base64
import importlib.util
import subprocess
import sys
from typing import Any

import pytest

from pixelfast.config import Config, describe
from pixelfast.config.reader import config_from_table
from pixelfast.errors import ConfigErrors

URL = "https://example.com/hook"
SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()


def config_of(**settings: Any) -> Config:
    url = {} if settings.get("type") == "postgres" else {"url": URL}
    return config_from_table({"destinations": [{"name": "d", **url, **settings}]})


def errors_of(**settings: Any) -> str:
    with pytest.raises(ConfigErrors) as caught:
        config_of(**settings)
    return str(caught.value)


def test_one_or_two_signing_secrets_are_accepted_and_masked() -> None:
    for secrets in ([SECRET], [SECRET, SECRET[:-4] + "AAAA"]):
        text = describe(config_of(type="http", signing_secrets=secrets))
        assert "signing_secrets = [" in text
        assert SECRET[8:] not in text


@pytest.mark.parametrize(
    "secrets",
    [
        [SECRET] * 3,
        [SECRET.removeprefix("whsec_")],
        ["whsec_" + base64.b64encode(b"x" * 23).decode()],
        ["whsec_" + base64.b64encode(b"x" * 65).decode()],
        ["whsec_not base64 not base64 not base64 not"],
        [""],
    ],
)
def test_an_invalid_signing_secret_is_rejected_and_not_shown(secrets: list[str]) -> None:
    text = errors_of(type="http", signing_secrets=secrets)
    assert "destinations[d].signing_secrets" in text
    assert "a string of whsec_ and 24 to 64 bytes in base64" in text
    assert "not base64" not in text
    assert SECRET[6:] not in text


@pytest.mark.parametrize(
    ("settings", "secret"),
    [
        ({"type": "segment", "write_key": "segment-s3cret-key"}, "s3cret"),
        ({"type": "posthog", "api_key": "phc_12345-s3cret"}, "s3cret"),
        ({"type": "clickhouse", "table": "t", "password": "passwd12s3cret"}, "s3cret"),
        ({"type": "elasticsearch", "index": "i", "api_key": "a2V5MTIzs3cret"}, "s3cret"),
        (
            {
                "type": "postgres",
                "host": "db.example.com",
                "database": "d",
                "table": "t",
                "username": "u",
                "password": "passwd12s3cret",
            },
            "s3cret",
        ),
    ],
)
def test_each_product_has_a_type_and_its_secret_is_masked(
    settings: dict[str, str], secret: str
) -> None:
    text = describe(config_of(**settings))
    assert f'type = "{settings["type"]}"' in text
    assert secret not in text


def test_an_unknown_type_is_rejected_with_the_most_similar_type() -> None:
    assert 'did you mean "elasticsearch"?' in errors_of(type="elasticserch")
    assert '"posthog"' in errors_of(type="nonsense")


@pytest.mark.parametrize("table", ["", "a.b", "a`b", "1a", "a b", "a;b", "ä", "a" * 129, "a\n"])
def test_an_invalid_table_name_is_rejected(table: str) -> None:
    assert "destinations[d].table" in errors_of(type="clickhouse", table=table)
    assert "destinations[d].database" in errors_of(type="clickhouse", table="t", database=table)


@pytest.mark.parametrize(
    "index",
    ["", ".", "..", "_a", "-a", "A", "a/b", "a?b", "a#b", "a,b", "a*", "ä", "a" * 201, "a\n"],
)
def test_an_invalid_index_name_is_rejected(index: str) -> None:
    assert "destinations[d].index" in errors_of(type="elasticsearch", index=index)


def test_two_kinds_of_credentials_are_rejected() -> None:
    both = {"type": "elasticsearch", "index": "i", "username": "u", "api_key": "k"}
    assert "api_key: cannot be combined with username" in errors_of(**both)


def test_a_client_key_requires_a_certificate_and_a_certificate_requires_https() -> None:
    assert "tls_key: requires tls_cert" in errors_of(type="http", tls_key="/k.pem")
    plain = {"type": "http", "url": "http://example.com/"}
    assert "tls_ca: requires a URL that begins with https:" in errors_of(**plain, tls_ca="/ca.pem")
    assert "tls_cert: requires a URL that begins with https:" in errors_of(
        **plain, tls_cert="/c.pem"
    )
    config_of(type="http", tls_ca="/ca.pem", tls_cert="/c.pem", tls_key="/k.pem")


# --- ClickHouse's own settings ----------------------------------------------------------------


def clickhouse(**settings: Any) -> dict[str, Any]:
    return {"type": "clickhouse", "table": "t", "settings": settings}


def test_settings_of_clickhouse_are_strings_numbers_and_booleans() -> None:
    given = {"insert_quorum": "auto", "max_execution_time": 2.5, "optimize_on_insert": False}
    text = describe(config_of(**clickhouse(**given)))
    assert (
        'settings = { "insert_quorum" = "auto", "max_execution_time" = 2.5,'
        ' "optimize_on_insert" = false }'
    ) in text
    errors = errors_of(**clickhouse(**{"insert_quorum": [1], "a b": 1, "x;": "1"}))
    assert (
        "destinations[d].settings.insert_quorum = [1]: expected a string, a number, true" in errors
    )
    assert '"a b"' in errors
    assert '"x;"' in errors


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("async_insert", "an event counts as delivered once it is written"),
        ("async_insert_max_data_size", "an event counts as delivered once it is written"),
        ("wait_for_async_insert", "an event counts as delivered once it is written"),
        ("wait_for_async_insert_timeout", "an event counts as delivered once it is written"),
        ("insert_deduplicate", "a retry stores no row twice"),
        ("insert_deduplication_token", "a retry stores no row twice"),
        ("async_insert_deduplicate", "remove it"),
        ("deduplicate_blocks_in_dependent_materialized_views", "a retry stores no row twice"),
        ("wait_end_of_query", "no error follows the status 200"),
        ("input_format_skip_unknown_fields", "every event of a pixel can be read"),
        ("date_time_input_format", "every event of a pixel can be read"),
        ("input_format_allow_errors_num", "would discard rows without an error"),
        ("input_format_allow_errors_ratio", "would discard rows without an error"),
        ("max_insert_block_size", "stored as a whole or not at all"),
        ("min_insert_block_size_bytes", "stored as a whole or not at all"),
        ("query", "a parameter of the HTTP interface"),
        ("session_id", "a parameter of the HTTP interface"),
    ],
)
def test_settings_of_clickhouse_that_could_lose_or_repeat_rows_are_rejected(
    name: str, reason: str
) -> None:
    errors = errors_of(**clickhouse(**{name: 1}))
    assert f"destinations[d].settings.{name}: remove it: " in errors
    assert reason in errors


# --- PostgreSQL -------------------------------------------------------------------------------

POSTGRES = {
    "type": "postgres",
    "host": "db.example.com",
    "database": "analytics",
    "table": "public.events",
    "username": "pixelfast",
    "password": "s3cret",
}


@pytest.mark.parametrize("host", ["db", "db.example.com", "192.0.2.1", "2001:db8::1", "/run/pg"])
def test_a_host_is_a_name_an_address_or_a_directory(host: str) -> None:
    assert f'host = "{host}"' in describe(config_of(**POSTGRES | {"host": host}))


@pytest.mark.parametrize("host", ["", "db:5432", "a b", "http://db", "a,b", "user@db", "/a\n", "-"])
def test_an_invalid_host_is_rejected(host: str) -> None:
    assert "destinations[d].host" in errors_of(**POSTGRES | {"host": host})


@pytest.mark.parametrize(
    "table", ["", "a.b.c", 'a"b', "1a", "a b", "a;b", "ä", "a" * 64, ".a", "a."]
)
def test_an_invalid_table_of_postgres_is_rejected(table: str) -> None:
    assert "destinations[d].table" in errors_of(**POSTGRES | {"table": table})


def test_each_fault_of_a_postgres_destination_is_reported() -> None:
    faults = {"port": 0, "tls": "prefer", "database": "a\x00", "timeout_s": 0, "concurrency": 65}
    errors = errors_of(**POSTGRES | faults)
    for name in faults:
        assert f"destinations[d].{name} = " in errors
    assert "s3cret" not in errors
    missing = errors_of(type="postgres")
    for name in ("host", "database", "table", "username"):
        assert f"destinations[d].{name}: required setting is missing" in missing


@pytest.mark.parametrize(
    ("more", "error"),
    [
        (
            {"tls": "require", "tls_ca": "/ca.pem"},
            'tls_ca: requires tls to be one of "verify-full", "verify-ca"',
        ),
        ({"tls": "disable", "tls_cert": "/c.pem"}, "tls_cert: requires tls to be one of"),
        ({"tls_key": "/k.pem"}, "tls_key: requires tls_cert"),
        (
            {"host": "/run/postgresql", "tls": "require"},
            'tls = "require": connections over a Unix socket have no TLS',
        ),
        (
            {"connect_timeout_s": 9, "timeout_s": 5},
            "connect_timeout_s = 9.0: expected at most timeout_s",
        ),
    ],
)
def test_contradictions_of_a_postgres_destination_are_rejected(
    more: dict[str, Any], error: str
) -> None:
    assert error in errors_of(**POSTGRES | more)


def test_a_missing_package_is_reported_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *_: None if name == "asyncpg" else found(name)
    )
    expected = (
        "type = \"postgres\": requires the package asyncpg: pip install 'pixelfast[postgres]'"
    )
    assert f"destinations[d].{expected}" in errors_of(**POSTGRES)


def test_only_a_postgres_destination_imports_asyncpg() -> None:
    script = (
        "import sys, pixelfast.cli, pixelfast.deliver.engine, pixelfast.commands.schema;"
        " assert 'asyncpg' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    "kind", ["http", "rudderstack", "clickhouse", "elasticsearch", "postgres", "kafka", "s3"]
)
@pytest.mark.parametrize("name", ["tls_ca", "tls_cert", "tls_key"])
def test_a_path_that_the_system_cannot_open_is_rejected(kind: str, name: str) -> None:
    """A NUL once ended the delivery process, and with it the delivery to all destinations."""
    errors = errors_of(type=kind, **{name: "/etc/ca\0.pem"})
    (error,) = (line for line in errors.splitlines() if f"destinations[d].{name}" in line)
    assert "a path without control characters" in error


def test_a_user_name_of_clickhouse_fits_into_a_header() -> None:
    error = errors_of(type="clickhouse", table="t", username="a\r\nb")
    assert "destinations[d].username" in error
    assert "a string without control characters" in error
