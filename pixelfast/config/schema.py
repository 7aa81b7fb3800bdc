"""The schema of the settings: a frozen struct for each section of the settings file.

Every field has a default, a `description`, and a unit: in its name (`_s`, seconds) or as
`extra={"unit": "B"}` (bytes; in the file also a string such as "64MiB").
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, get_args, get_origin

from msgspec import Meta, Struct, inspect

from pixelfast.config.cluster import Cluster
from pixelfast.config.destinations import Destination, FileDestination
from pixelfast.config.fields import Name, Secret

__all__ = [
    "DEMO_SOURCE",
    "Config",
    "Deliver",
    "Log",
    "Server",
    "ServerTls",
    "Source",
    "Spool",
    "WriteKey",
    "unwrap",
]


DEMO_SOURCE = "demo"  # the name of the source that is used if there is no other


class ServerTls(Struct, frozen=True, kw_only=True):
    """`[server.tls]`: TLS without a proxy."""

    listen: Annotated[
        tuple[str, ...],
        Meta(
            min_length=1,
            description="addresses that accept pixels over TLS, in addition to `server.listen`",
            extra={"kind": "address"},
        ),
    ]
    cert: Annotated[
        str,
        Meta(
            min_length=1,
            description="PEM file with the certificate followed by its chain; a reload rereads it",
            extra={"kind": "path"},
        ),
    ]
    key: Annotated[
        str,
        Meta(
            description='PEM file with the private key, without a passphrase; `""`: the key is in'
            " the file `cert`",
            extra={"kind": "path"},
        ),
    ] = ""


class Server(Struct, frozen=True, kw_only=True):
    """`[server]`: addresses, processes, limits and timeouts of the collectors."""

    listen: Annotated[
        tuple[str, ...],
        Meta(min_length=1, description="addresses that accept pixels", extra={"kind": "address"}),
    ] = ("127.0.0.1:8080",)
    tls: ServerTls | None = None
    admin: Annotated[
        str,
        Meta(
            description='address that serves health checks and metrics; `""`: none',
            extra={"kind": "address?"},
        ),
    ] = "127.0.0.1:8081"
    workers: Annotated[
        int, Meta(ge=0, le=1024, description="number of collectors; 0: one for each core")
    ] = 0
    trusted_proxies: Annotated[
        tuple[str, ...],
        Meta(
            description="networks and addresses of proxies whose `X-Forwarded-For`, `X-Real-IP` "
            'and `message_id_header` are used; `"unix:"` trusts every process that '
            "can open the Unix sockets of `listen`",
            extra={"kind": "trusted"},
        ),
    ] = ("127.0.0.1/32", "::1/128")
    message_id_header: Annotated[
        str,
        Meta(
            description='header, such as `"X-Request-ID"`, that becomes the `messageId` of an '
            "event that has none, so that a request that a proxy sends to a second server "
            "remains one event; only from trusted proxies, at most 128 visible ASCII characters; "
            '`""`: none',
            extra={"kind": "header name?"},
        ),
    ] = ""
    unix_mode: Annotated[
        Literal["0666", "0660", "0600"],
        Meta(description="permissions of the Unix sockets of `listen`, in octal"),
    ] = "0666"
    always_200: Annotated[
        bool,
        Meta(
            description="respond with 200 to every GET and POST of a pixel, even if it is rejected"
        ),
    ] = False
    health_path: Annotated[
        str,
        Meta(
            description="path of the health check for load balancers, at the addresses of "
            "`listen`: 200 while this collector can store events, otherwise 503; "
            '`""`: none',
            extra={"kind": "health path?"},
        ),
    ] = "/health"
    max_connections: Annotated[
        int,
        Meta(
            ge=1,
            le=2**20,
            description="maximum number of open connections of one collector; additional "
            "connections get 503",
        ),
    ] = 20_000
    max_memory: Annotated[
        int,
        Meta(
            ge=2**20,
            description="maximum memory of one collector for incomplete requests and unread "
            "responses, in addition to 2 KiB for each connection; above it, the connections that "
            "have waited longest are closed",
            extra={"unit": "B"},
        ),
    ] = 256 * 2**20
    header_timeout_s: Annotated[
        float,
        Meta(
            gt=0,
            description="maximum time from the first byte of a request to its last; a request "
            "that takes longer gets 408",
        ),
    ] = 10.0
    idle_timeout_s: Annotated[
        float,
        Meta(
            gt=0,
            description="maximum time that a keep-alive connection may be idle before it is closed",
        ),
    ] = 75.0
    drain_timeout_s: Annotated[
        float,
        Meta(ge=0, description="maximum time that a stop waits for requests that are in progress"),
    ] = 10.0
    lame_duck_s: Annotated[
        float,
        Meta(
            ge=0,
            description="time at the beginning of a stop during which health checks fail while "
            "pixels are still accepted, so that load balancers stop sending requests",
        ),
    ] = 0.0
    hung_after_s: Annotated[
        float,
        Meta(
            ge=2,
            description="maximum time that a process may be silent before it is killed and "
            "restarted; after 5 s it is not ready",
        ),
    ] = 10.0

    @property
    def addresses(self) -> tuple[str, ...]:
        """All addresses that accept pixels; those with TLS are last."""
        return self.listen + (self.tls.listen if self.tls else ())


class Spool(Struct, frozen=True, kw_only=True):
    """`[spool]`: the event log on disk."""

    ack: Annotated[
        Literal["synced", "written", "received"],
        Meta(
            description="guarantee of a 200, strongest first: the event is on the disk "
            "(`synced`), in the kernel (`written`) or in memory (`received`)"
        ),
    ] = "synced"
    max_bytes: Annotated[
        int,
        Meta(
            ge=2**20,
            description="maximum size of all segments; above it `on_full` applies",
            extra={"unit": "B"},
        ),
    ] = 20 * 2**30
    min_free: Annotated[
        int,
        Meta(
            ge=0,
            description="minimum free disk space, which is left to other programs; below it "
            "`on_full` applies",
            extra={"unit": "B"},
        ),
    ] = 512 * 2**20
    on_full: Annotated[
        Literal["reject", "drop_oldest"],
        Meta(
            description="above `max_bytes` or below `min_free`: reject pixels with 503, or let "
            "the oldest events expire even if they are undelivered"
        ),
    ] = "reject"
    compression: Annotated[
        Literal["none", "zstd"],
        Meta(
            description="compression of the events on disk; `zstd` requires the extra "
            "`pixelfast[zstd]`",
            extra={"kind": "compression"},
        ),
    ] = "none"
    segment_bytes: Annotated[
        int,
        Meta(
            ge=2**17,
            le=2**31,
            description="size of a segment; at most an eighth of a collector's share of "
            "`max_bytes`",
            extra={"unit": "B"},
        ),
    ] = 64 * 2**20
    recycle: Annotated[
        bool,
        Meta(
            description="write new events over segments that every destination has read, instead "
            "of creating files. Disable it on file systems that do not overwrite data in place, "
            "such as btrfs and ZFS"
        ),
    ] = True
    max_waiting_bytes: Annotated[
        int,
        Meta(
            ge=2**16,
            description="maximum size of the events of one collector that are waiting for the "
            "disk; additional pixels get 503",
            extra={"unit": "B"},
        ),
    ] = 32 * 2**20
    max_wait_s: Annotated[
        float,
        Meta(
            gt=0,
            description="maximum time that an event may wait for the disk before its pixel gets "
            "503",
        ),
    ] = 2.0


class Deliver(Struct, frozen=True, kw_only=True):
    """`[deliver]`: the delivery processes."""

    processes: Annotated[
        int,
        Meta(
            ge=0,
            le=256,
            description="maximum number of delivery processes, over which the destinations are "
            "distributed; each destination is in one process, and there are never more processes "
            "than destinations; 0: one for every 4 cores, at least 1. Does not apply to "
            "`pixelfast deliver`, which is one process",
        ),
    ] = 0
    max_memory: Annotated[
        int,
        Meta(
            ge=96 * 2**20,
            description="maximum memory of each delivery process, shared equally by its "
            "destinations; near the limit, fewer events are read ahead, and fewer and smaller "
            "batches are sent at once. Set it to at least 64 MiB plus 4 MiB for each destination",
            extra={"unit": "B"},
        ),
    ] = 256 * 2**20


class WriteKey(Struct, frozen=True, kw_only=True):
    """A write key, which identifies its source."""

    key: Annotated[Secret, Meta(description="the key that pixels contain")]
    expires: Annotated[
        Annotated[datetime, Meta(tz=True)] | None,
        Meta(
            description="RFC 3339 date-time with an offset; from then on, pixels with this key are "
            "rejected with 401; default: never"
        ),
    ] = None


class Source(Struct, frozen=True, kw_only=True):
    """`[[sources]]`: a sender of pixels, and how its pixels are read."""

    name: Annotated[Name, Meta(description="name of the source in metrics and logs")]
    write_keys: Annotated[
        tuple[WriteKey, ...],
        Meta(min_length=1, description="write keys; more than one during a rotation"),
    ]
    enabled: Annotated[bool, Meta(description="`false` rejects the source's pixels with 404")] = (
        True
    )
    destinations: Annotated[
        Annotated[tuple[str, ...], Meta(min_length=1)] | None,
        Meta(
            description="names of the destinations that receive the source's events; default: all"
        ),
    ] = None
    numbers: Annotated[bool, Meta(description="convert numeric strings to numbers")] = True
    booleans: Annotated[
        bool, Meta(description="convert the strings `true` and `false` to booleans")
    ] = False
    strings: Annotated[
        tuple[str, ...],
        Meta(
            description="fields that always remain strings, such as "
            "`properties.products.price`; array indexes are omitted",
            extra={"kind": "field"},
        ),
    ] = ()
    force_numbers: Annotated[
        tuple[str, ...],
        Meta(
            description="fields whose numeric strings become numbers even if their names are "
            "excluded from conversion",
            extra={"kind": "field"},
        ),
    ] = ()
    ignore: Annotated[
        tuple[str, ...],
        Meta(
            description="top-level parameters that are omitted without a warning, such as cache "
            "busters"
        ),
    ] = ("_", "z", "cb", "rand")
    fill: Annotated[
        tuple[Literal["ip", "referer", "locale"], ...],
        Meta(
            description="fields that the server sets from the request if the pixel does not: "
            "`context.ip` (`ip`), `context.page.url` (`referer`), `context.locale` (`locale`)"
        ),
    ] = ()
    placeholders: Annotated[
        Literal["drop", "keep"],
        Meta(
            description="what to do with a `userId` or `anonymousId` that a template did not "
            "replace, such as `{{user.id}}` or `undefined`: omit it with a warning, or keep "
            "it as an id"
        ),
    ] = "drop"
    rate_limit: Annotated[
        float,
        Meta(
            ge=0,
            description="maximum number of events per second, counted over all collectors, with "
            "bursts of up to one second; additional pixels get 429; 0: no limit",
        ),
    ] = 0.0


class Log(Struct, frozen=True, kw_only=True):
    """`[log]`: the log on standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="minimum level of log events"),
    ] = "info"
    format: Annotated[
        Literal["auto", "console", "json"],
        Meta(
            description="format of log events; `auto` is `console` on a terminal, otherwise `json`"
        ),
    ] = "auto"
    rejections: Annotated[
        bool,
        Meta(
            description="log rejected pixels as `pixel_rejected`, at most one line per second for"
            " each reason and collector"
        ),
    ] = True
    addresses: Annotated[
        Literal["masked", "full", "none"],
        Meta(
            description="client addresses in the log: masked to their network (/24 for IPv4, /48 "
            "for IPv6), in full, or omitted"
        ),
    ] = "masked"


class Config(Struct, frozen=True, kw_only=True):
    """All settings. If `sources` is empty, the demo source is used."""

    data_dir: Annotated[
        str,
        Meta(
            min_length=1,
            description="directory of all data: spool, archives, dead letters, state",
            extra={"kind": "path"},
        ),
    ] = "./pixelfast-data"
    server: Server = Server()
    spool: Spool = Spool()
    deliver: Deliver = Deliver()
    log: Log = Log()
    cluster: Cluster | None = None
    sources: tuple[Source, ...] = ()
    destinations: Annotated[tuple[Destination, ...], Meta(min_length=1)] = (
        FileDestination(name="archive"),
    )


def unwrap(annotation: Any) -> tuple[inspect.Type, dict[str, Any]]:
    """Return a field's type without `Annotated` and `| None`, and its extras.

    The extra "choices" has the values of a `Literal` in the order in which they were declared,
    which the type itself does not keep.

    >>> unwrap(Literal["b", "a"])[1]
    {'choices': ('b', 'a')}
    """
    kind: Any = inspect.type_info(annotation)
    choices = _choices(annotation)
    extra: dict[str, Any] = {"choices": choices} if choices else {}
    while isinstance(kind, inspect.Metadata | inspect.UnionType):
        if isinstance(kind, inspect.Metadata):
            extra = (kind.extra or {}) | extra  # the outer one is the field's own
            kind = kind.type
        else:
            kind = next(t for t in kind.types if not isinstance(t, inspect.NoneType))
    return kind, extra


def _choices(annotation: Any) -> tuple[str, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    found = (_choices(each) for each in get_args(annotation) if not isinstance(each, Meta))
    return next(filter(None, found), ())
