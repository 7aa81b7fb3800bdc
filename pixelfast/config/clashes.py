"""Conflicts between settings: duplicates, references to unknown names, contradictions.

These checks use whatever could be read of each table, so that another error hides none of them.
"""

from __future__ import annotations

import ipaddress
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from pixelfast.config.clickhouse import clickhouse_clashes
from pixelfast.config.cluster import Cluster
from pixelfast.config.delivery import Delivery, Remote
from pixelfast.config.destinations import (
    ClickhouseDestination,
    ElasticsearchDestination,
    FileDestination,
    HttpDestination,
    KafkaDestination,
    PostgresDestination,
    S3Destination,
)
from pixelfast.config.kafka import (
    cluster_clashes,
    group_clashes,
    kafka_clashes,
    topic_clashes,
)
from pixelfast.config.postgres import postgres_clashes
from pixelfast.config.s3 import s3_clashes, s3_packages
from pixelfast.config.schema import DEMO_SOURCE, Config, Server, Source, Spool, WriteKey
from pixelfast.config.tables import Table
from pixelfast.config.units import Address, format_bytes, parse_address
from pixelfast.config.words import nearest, one_of, shown
from pixelfast.errors import ConfigError

__all__ = ["clashes"]

# Unicode categories of the characters that are removed from both ends of the write key of a pixel.
_INVISIBLE = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})
# Headers that pixelfast sets itself, or that belong to the connection (RFC 9110 section 7.6.1).
_RESERVED_HEADERS = {
    *("host", "content-length", "content-encoding", "transfer-encoding", "connection"),
    *("keep-alive", "proxy-connection", "te", "trailer", "upgrade", "expect"),
}


def clashes(tables: list[Table], *, has_file: bool) -> Iterator[ConfigError]:
    """Yield all conflicts within and between `tables`, which are in the order of the file.

    Without a file, `serve` does not use the default admin address if pixels use it, so there is no
    conflict.
    """
    for table in tables:
        for cls, rule in _RULES:
            if issubclass(table.cls, cls):
                yield from rule(table)
        if table.cls is Server and (has_file or "admin" in table.values):
            yield from _admin(table)
    destinations = [table for table in tables if table.path.startswith("destinations[")]
    sources = [table for table in tables if table.cls is Source]
    yield from _names(destinations)
    yield from _folders(tables, destinations)
    yield from _names(sources)
    for cluster in [table for table in tables if table.cls is Cluster]:
        yield from _retention(tables)
        names = [name for table in sources if (name := table.get("name"))]
        to_kafka = [table for table in destinations if table.cls is KafkaDestination]
        yield from topic_clashes(cluster, names or [DEMO_SOURCE], to_kafka)
        yield from group_clashes(destinations)
    yield from _keys([table for table in tables if table.cls is WriteKey])
    yield from _references(sources, destinations)


# --- within one table ---------------------------------------------------------------------------


def _listen(server: Table) -> Iterator[ConfigError]:
    addresses: list[Address] = []
    for name, listen in _listens(server).items():
        for place, text in enumerate(listen):
            address = _address(text)
            if address in addresses:
                yield ConfigError(
                    f"{server.path}.{name}[{place}]", shown(text), "duplicate address"
                )
            elif any(address[1:]):  # with port 0, the system chooses a free one each time
                addresses.append(address)


def _admin(server: Table) -> Iterator[ConfigError]:
    admin = server.get("admin")
    if not admin or not any(_address(admin)[1:]):  # with port 0, the system chooses a free one
        return
    for name, listen in _listens(server).items():
        if _address(admin) in [_address(text) for text in listen]:
            what = f"address is also in server.{name}"
            yield ConfigError(f"{server.path}.admin", shown(admin), what)


def _listens(server: Table) -> dict[str, tuple[str, ...]]:
    """Return the addresses that accept pixels, by setting, as far as they could be read."""
    tls = server.get("tls")
    return {"listen": server.get("listen") or (), "tls.listen": tls.listen if tls else ()}


def _address(text: str) -> Address:
    address = parse_address(text)
    try:
        return address._replace(host=str(ipaddress.ip_address(address.host)))
    except ValueError:
        return address._replace(path=os.path.normpath(address.path) if address.path else "")


def _sizes(spool: Table) -> Iterator[ConfigError]:
    segment, most = spool.get("segment_bytes"), spool.get("max_bytes")
    if segment is not None and most is not None and segment > most:
        name = "segment_bytes" if spool.gives("segment_bytes") else "max_bytes"
        what = f"expected segment_bytes ({format_bytes(segment)}) to be at most max_bytes"
        what += f" ({format_bytes(most)})"
        yield ConfigError(f"{spool.path}.{name}", f'"{format_bytes(spool.get(name))}"', what)


def _number_rules(source: Table) -> Iterator[ConfigError]:
    strings = source.get("strings") or ()
    for place, name in enumerate(source.get("force_numbers") or ()):
        if name in strings:
            path = f"{source.path}.force_numbers[{place}]"
            yield ConfigError(path, shown(name), "field is also in strings")


def _waits(destination: Table) -> Iterator[ConfigError]:
    for name, bound in (("connect_timeout_s", "timeout_s"), ("retry_first_s", "retry_most_s")):
        # A default does not conflict: it is only an upper limit.
        if destination.gives(name, bound) and destination.get(name) > destination.get(bound):
            path = f"{destination.path}.{name}"
            most = f"expected at most {bound} ({shown(destination.get(bound))})"
            yield ConfigError(path, shown(destination.get(name)), most)


def _authentication(hook: Table) -> Iterator[ConfigError]:
    for other in ("bearer_token", "api_key"):
        if hook.get("username") and hook.get(other):
            what = "cannot be combined with username"
            yield ConfigError(f"{hook.path}.{other}", None, what)
    if hook.get("password") and hook.get("username") == "":
        yield ConfigError(f"{hook.path}.password", None, "requires username")


def _tls(destination: Table) -> Iterator[ConfigError]:
    if destination.get("tls_key") and destination.get("tls_cert") == "":
        yield ConfigError(f"{destination.path}.tls_key", None, "requires tls_cert")
    for name in ("tls_ca", "tls_cert"):
        if destination.get(name) and str(destination.get("url")).startswith("http:"):
            yield ConfigError(
                f"{destination.path}.{name}", None, "requires a URL that begins with https:"
            )


def _headers(hook: Table) -> Iterator[ConfigError]:
    has_own = hook.get("username") or hook.get("bearer_token")
    seen: set[str] = set()
    for name in hook.get("headers") or ():
        path = f"{hook.path}.headers.{name}"
        if name.lower() in _RESERVED_HEADERS:
            yield ConfigError(path, None, "pixelfast sets this header itself; remove it")
        elif name.lower() in seen:
            yield ConfigError(path, None, "is duplicated")
        elif name.lower() == "authorization" and has_own:
            what = "cannot be combined with username or bearer_token"
            yield ConfigError(path, None, what)
        seen.add(name.lower())


def _archive(archive: Table) -> Iterator[ConfigError]:
    keep, rotate = archive.get("keep_bytes"), archive.get("rotate_bytes")
    if keep and rotate and keep < rotate:
        name = "keep_bytes" if archive.gives("keep_bytes") else "rotate_bytes"
        what = (
            f"expected rotate_bytes ({format_bytes(rotate)}) to be at most keep_bytes"
            f" ({format_bytes(keep)})"
        )
        yield ConfigError(f"{archive.path}.{name}", f'"{format_bytes(archive.get(name))}"', what)


_RULES: tuple[tuple[type[msgspec.Struct], Callable[[Table], Iterator[ConfigError]]], ...] = (
    (Server, _listen),
    (Spool, _sizes),
    (Source, _number_rules),
    (Remote, _waits),
    (Remote, _tls),
    (HttpDestination, _authentication),
    (ElasticsearchDestination, _authentication),
    (HttpDestination, _headers),
    (FileDestination, _archive),
    (ClickhouseDestination, clickhouse_clashes),
    (PostgresDestination, postgres_clashes),
    (KafkaDestination, kafka_clashes),
    (Cluster, cluster_clashes),
    (Cluster, _tls),
    (S3Destination, s3_clashes),
    (S3Destination, s3_packages),
)


# --- between tables -----------------------------------------------------------------------------


def _names(tables: list[Table]) -> Iterator[ConfigError]:
    seen: set[str] = set()
    for table in tables:
        name = table.get("name")
        if name in seen:
            yield ConfigError(f"{table.path}.name", None, "is duplicated")
        elif name is not None:
            seen.add(name)


def _folders(tables: list[Table], destinations: list[Table]) -> Iterator[ConfigError]:
    data_dir = next((table.get("data_dir") for table in tables if table.cls is Config), None)
    folders: dict[str, str] = {}
    for table in destinations:
        name, path = table.get("name"), table.get("path")
        if table.cls is not FileDestination or name is None or path is None or data_dir is None:
            continue
        folder = Path(path) if path else Path(data_dir) / "events" / name
        if table.get("archive_mode") not in (None, "0600") and _is_inside(folder, Path(data_dir)):
            what = "requires a path outside data_dir, because only the owner can enter data_dir"
            yield ConfigError(f"{table.path}.archive_mode", None, what)
        key = os.path.normpath("/" / folder.absolute()).lstrip("/")
        if folders.setdefault(key, name) != name:
            what = f'destination "{folders[key]}" uses the same directory'
            yield ConfigError(f"{table.path}.path", None, what)


def _is_inside(folder: Path, data_dir: Path) -> bool:
    """Return whether a directory is inside the data directory, with all links resolved."""
    real = Path(os.path.realpath(folder))
    return Path(os.path.realpath(data_dir)) in (real, *real.parents)


def _retention(tables: list[Table]) -> Iterator[ConfigError]:
    """Reject the settings of the spool that do not apply to the topic of `[cluster]`."""
    topic = "because the retention of the topic determines how long events are kept"
    for table in tables:
        if table.cls is Spool:
            if table.get("on_full") == "drop_oldest":
                what = f"cannot be combined with [cluster], {topic}"
                yield ConfigError(f"{table.path}.on_full", '"drop_oldest"', what)
            if table.get("ack") in ("written", "received"):
                what = "cannot be combined with [cluster]; use cluster.ack"
                yield ConfigError(f"{table.path}.ack", shown(table.get("ack")), what)
        if issubclass(table.cls, Delivery):
            for name in ("required", "max_lag_bytes"):
                if table.gives(name):
                    what = f"cannot be combined with [cluster], {topic}"
                    yield ConfigError(f"{table.path}.{name}", shown(table.get(name)), what)


def _keys(tables: list[Table]) -> Iterator[ConfigError]:
    owners: dict[str, str] = {}
    for table in tables:
        key = table.get("key")
        if key and not {unicodedata.category(each) for each in (key[0], key[-1])}.isdisjoint(
            _INVISIBLE
        ):
            what = (
                "begins or ends with white space or an invisible character; these are removed from"
                " the keys of pixels, so that no pixel could match"
            )
            yield ConfigError(table.path, None, what)
        if key in owners:
            own = _source_of(table)
            what = f'source "{owners[key]}" has the same key'
            yield ConfigError(table.path, None, "is duplicated" if owners[key] == own else what)
        elif key is not None:
            owners[key] = _source_of(table)


def _source_of(write_key: Table) -> str:
    """Return the name of a key's source, whose path is sources[NAME].write_keys[INDEX]."""
    return write_key.path.removeprefix("sources[").rpartition("].write_keys[")[0]


def _references(sources: list[Table], destinations: list[Table]) -> Iterator[ConfigError]:
    known: Iterable[str] = dict.fromkeys(
        name for table in destinations if (name := table.get("name"))
    )
    if not destinations:
        known = [each.name for each in Config().destinations]
    for source in sources:
        for place, wanted in enumerate(source.get("destinations") or ()):
            if wanted not in known:
                what = f"unknown destination; expected {one_of(known)}"
                path = f"{source.path}.destinations[{place}]"
                yield ConfigError(path, shown(wanted), what, nearest=nearest(wanted, known))
