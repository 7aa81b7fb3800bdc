"""What no single setting can tell: what is used twice, names of nothing, settings at odds.

Looks at what could be read of each table, so that a mistake elsewhere hides none of these.
"""

from __future__ import annotations

import ipaddress
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from pixelfast.config.destinations import (
    Batching,
    ElasticsearchDestination,
    FileDestination,
    HttpDestination,
)
from pixelfast.config.schema import Config, Server, Source, Spool, WriteKey
from pixelfast.config.units import Address, format_bytes, parse_address
from pixelfast.config.words import nearest, one_of, shown
from pixelfast.errors import ConfigError

__all__ = ["INVALID", "Table", "clashes"]

INVALID: Any = object()  # stands where a value had a mistake that is in the list already

# What the sender makes itself, and what belongs to the connection: RFC 9110 section 7.6.1.
# What is trimmed from both ends of a write key: the categories of docs/pixel.md.
_INVISIBLE = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})
_SENDERS_OWN = {
    *("host", "content-length", "content-encoding", "transfer-encoding", "connection"),
    *("keep-alive", "proxy-connection", "te", "trailer", "upgrade", "expect"),
}


class Table(NamedTuple):
    """One table of the file, as far as it could be read."""

    path: str
    cls: type[msgspec.Struct]
    values: dict[str, Any]

    def get(self, name: str) -> Any:
        """The value as given, else the default; None where it had a mistake."""
        if name in self.values:
            return None if self.values[name] is INVALID else self.values[name]
        for field in msgspec.structs.fields(self.cls):
            if field.name == name and field.default is not msgspec.NODEFAULT:
                return field.default
        return None

    def gives(self, *names: str) -> bool:
        """Whether all these stand in the file, and right."""
        return all(self.values.get(name, INVALID) is not INVALID for name in names)


def clashes(tables: list[Table], *, has_file: bool) -> Iterator[ConfigError]:
    """Every clash in and between `tables`, which are in the order of the file.

    Without a file the default admin address gives way to a pixel address (see `serve`).
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
                    f"{server.path}.{name}[{place}]", shown(text), "each address only once"
                )
            elif any(address[1:]):  # port 0 is a free one each time
                addresses.append(address)


def _admin(server: Table) -> Iterator[ConfigError]:
    admin = server.get("admin")
    if not admin or not any(_address(admin)[1:]):  # port 0 is always a free one
        return
    for name, listen in _listens(server).items():
        if _address(admin) in [_address(text) for text in listen]:
            what = f"an address that server.{name} does not have"
            yield ConfigError(f"{server.path}.admin", shown(admin), what)


def _listens(server: Table) -> dict[str, tuple[str, ...]]:
    """Return the addresses of pixels, by setting, as far as they could be read."""
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
        what = f"segment_bytes ({format_bytes(segment)}) to be at most max_bytes"
        what += f" ({format_bytes(most)})"
        yield ConfigError(f"{spool.path}.{name}", f'"{format_bytes(spool.get(name))}"', what)


def _number_rules(source: Table) -> Iterator[ConfigError]:
    strings = source.get("strings") or ()
    for place, name in enumerate(source.get("force_numbers") or ()):
        if name in strings:
            path = f"{source.path}.force_numbers[{place}]"
            yield ConfigError(path, shown(name), "a place that strings does not have")


def _waits(destination: Table) -> Iterator[ConfigError]:
    for name, bound in (("connect_timeout_s", "timeout_s"), ("retry_first_s", "retry_most_s")):
        # A default is only an upper bound then, and nobody's mistake.
        if destination.gives(name, bound) and destination.get(name) > destination.get(bound):
            path = f"{destination.path}.{name}"
            most = f"at most {bound} ({shown(destination.get(bound))})"
            yield ConfigError(path, shown(destination.get(name)), most)


def _authentication(hook: Table) -> Iterator[ConfigError]:
    for other in ("bearer_token", "api_key"):
        if hook.get("username") and hook.get(other):
            what = "clashes with username: choose one"
            yield ConfigError(f"{hook.path}.{other}", None, what)
    if hook.get("password") and hook.get("username") == "":
        yield ConfigError(f"{hook.path}.password", None, "requires username")


def _tls(destination: Table) -> Iterator[ConfigError]:
    if destination.get("tls_key") and destination.get("tls_cert") == "":
        yield ConfigError(f"{destination.path}.tls_key", None, "requires tls_cert")
    for name in ("tls_ca", "tls_cert"):
        if destination.get(name) and str(destination.get("url")).startswith("http:"):
            yield ConfigError(
                f"{destination.path}.{name}", None, "requires a url that begins with https:"
            )


def _headers(hook: Table) -> Iterator[ConfigError]:
    has_own = hook.get("username") or hook.get("bearer_token")
    seen: set[str] = set()
    for name in hook.get("headers") or ():
        path = f"{hook.path}.headers.{name}"
        if name.lower() in _SENDERS_OWN:
            yield ConfigError(path, None, "is a header that pixelfast sets itself; remove it")
        elif name.lower() in seen:
            yield ConfigError(path, None, "is duplicated")
        elif name.lower() == "authorization" and has_own:
            what = "clashes with username and bearer_token: choose one"
            yield ConfigError(path, None, what)
        seen.add(name.lower())


def _archive(archive: Table) -> Iterator[ConfigError]:
    keep, rotate = archive.get("keep_bytes"), archive.get("rotate_bytes")
    if keep and rotate and keep < rotate:
        name = "keep_bytes" if archive.gives("keep_bytes") else "rotate_bytes"
        what = (
            f"rotate_bytes ({format_bytes(rotate)}) to be at most keep_bytes ({format_bytes(keep)})"
        )
        yield ConfigError(f"{archive.path}.{name}", f'"{format_bytes(archive.get(name))}"', what)


_RULES: tuple[tuple[type[msgspec.Struct], Callable[[Table], Iterator[ConfigError]]], ...] = (
    (Server, _listen),
    (Spool, _sizes),
    (Source, _number_rules),
    (Batching, _waits),
    (Batching, _tls),
    (HttpDestination, _authentication),
    (ElasticsearchDestination, _authentication),
    (HttpDestination, _headers),
    (FileDestination, _archive),
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
            what = "requires a path outside of data_dir, which only its owner can enter"
            yield ConfigError(f"{table.path}.archive_mode", None, what)
        key = os.path.normpath("/" / folder.absolute()).lstrip("/")
        if folders.setdefault(key, name) != name:
            what = f'destination "{folders[key]}" writes there already'
            yield ConfigError(f"{table.path}.path", None, what)


def _is_inside(folder: Path, data_dir: Path) -> bool:
    """Whether a folder lies in the data directory, by whatever links it is reached."""
    real = Path(os.path.realpath(folder))
    return Path(os.path.realpath(data_dir)) in (real, *real.parents)


def _keys(tables: list[Table]) -> Iterator[ConfigError]:
    owners: dict[str, str] = {}
    for table in tables:
        key = table.get("key")
        if key and not {unicodedata.category(each) for each in (key[0], key[-1])}.isdisjoint(
            _INVISIBLE
        ):
            what = (
                "begins or ends with white space, which is removed from the keys of pixels; no"
                " pixel could match it"
            )
            yield ConfigError(table.path, None, what)
        if key in owners:
            what = f'source "{owners[key]}" has this key already'
            yield ConfigError(table.path, None, what)
        elif key is not None:  # its path is sources[NAME].write_keys[PLACE]
            owners[key] = table.path.removeprefix("sources[").rpartition("].write_keys[")[0]


def _references(sources: list[Table], destinations: list[Table]) -> Iterator[ConfigError]:
    known: Iterable[str] = dict.fromkeys(
        name for table in destinations if (name := table.get("name"))
    )
    if not destinations:
        known = [each.name for each in Config().destinations]
    for source in sources:
        for place, wanted in enumerate(source.get("destinations") or ()):
            if wanted not in known:
                what = f"the name of a destination: {one_of(known)}"
                path = f"{source.path}.destinations[{place}]"
                yield ConfigError(path, shown(wanted), what, nearest=nearest(wanted, known))
