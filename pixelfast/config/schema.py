"""What can be set: a frozen struct for each section of the settings file.

Every field has its default, its meaning as `description`, and its unit: in the name (`_s`, seconds;
`_ms`, milliseconds) or as the type `Size` (bytes; a text such as "64MiB" in the file).
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, inspect

from pixelfast.config.destinations import Destination, FileDestination
from pixelfast.config.fields import Name, Secret

__all__ = [
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


class ServerTls(Struct, frozen=True, kw_only=True):
    """`[server.tls]`: TLS by pixelfast itself, for servers without nginx."""

    listen: Annotated[
        tuple[str, ...],
        Meta(
            min_length=1,
            description="addresses that accept pixels over TLS, besides those of `listen`",
            extra={"kind": "address"},
        ),
    ]
    cert: Annotated[
        str,
        Meta(
            min_length=1,
            description="PEM file with the certificate, followed by its chain; read again at a"
            " reload",
            extra={"kind": "path"},
        ),
    ]
    key: Annotated[
        str,
        Meta(
            description='PEM file with the private key, without a passphrase; "": in the file of'
            " `cert`",
            extra={"kind": "path"},
        ),
    ] = ""


class Server(Struct, frozen=True, kw_only=True):
    """`[server]`: where pixels come in."""

    listen: Annotated[
        tuple[str, ...],
        Meta(min_length=1, description="addresses that accept pixels", extra={"kind": "address"}),
    ] = ("127.0.0.1:8080",)
    tls: ServerTls | None = None
    admin: Annotated[
        str,
        Meta(
            description='address of health checks and metrics; "" disables it',
            extra={"kind": "address?"},
        ),
    ] = "127.0.0.1:8081"
    workers: Annotated[
        int, Meta(ge=0, le=1024, description="number of collectors; 0: one for each core")
    ] = 0
    trusted_proxies: Annotated[
        tuple[str, ...],
        Meta(
            description="proxies from which X-Forwarded-For, X-Real-IP and `message_id_header` "
            'are accepted, as networks or addresses; `"unix:"`: every process that '
            "can open the Unix sockets of `listen`",
            extra={"kind": "trusted"},
        ),
    ] = ("127.0.0.1/32", "::1/128")
    message_id_header: Annotated[
        str,
        Meta(
            description='header, such as `"X-Request-ID"`, whose value becomes the `messageId` of '
            "an event that has none, from trusted proxies only: a request that a proxy sends again "
            'to another server stays one event. At most 128 visible ASCII characters; `""`: none',
            extra={"kind": "header name?"},
        ),
    ] = ""
    unix_mode: Annotated[
        Literal["0600", "0660", "0666"],
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
            '`listen`: 200 `ok` while this collector can store events, else 503; "" '
            "disables it",
            extra={"kind": "health path?"},
        ),
    ] = "/health"
    max_connections: Annotated[
        int,
        Meta(
            ge=1,
            le=2**20,
            description="maximum number of open connections of one collector; further ones get 503",
        ),
    ] = 20_000
    max_memory: Annotated[
        int,
        Meta(
            ge=2**20,
            description="maximum memory of one collector for incomplete requests and unread "
            "responses, apart from 2 KiB for each connection; above it the "
            "connections that have waited longest are closed",
            extra={"unit": "B"},
        ),
    ] = 256 * 2**20
    header_timeout_s: Annotated[
        float,
        Meta(
            gt=0,
            description="longest time from the first byte of a request to its last; a request "
            "that takes longer is answered 408",
        ),
    ] = 10.0
    idle_timeout_s: Annotated[
        float,
        Meta(
            gt=0,
            description="longest time that a keep-alive connection may be idle; then it is closed",
        ),
    ] = 75.0
    drain_timeout_s: Annotated[
        float, Meta(ge=0, description="longest time that a stop waits for requests in progress")
    ] = 10.0
    lame_duck_s: Annotated[
        float,
        Meta(
            ge=0,
            description="time at the beginning of a stop in which health checks fail and pixels "
            "are still accepted, so that load balancers stop sending requests first",
        ),
    ] = 0.0
    hung_after_s: Annotated[
        float,
        Meta(
            ge=2,
            description="longest time that a process may not report; then it is killed and "
            "restarted. After 5 s it is not ready",
        ),
    ] = 10.0

    @property
    def addresses(self) -> tuple[str, ...]:
        """All addresses of pixels, those that speak TLS last."""
        return self.listen + (self.tls.listen if self.tls else ())


class Spool(Struct, frozen=True, kw_only=True):
    """`[spool]`: the event log on disk."""

    ack: Annotated[
        Literal["synced", "written", "received"],
        Meta(
            description="what a 200 guarantees: `synced`: the event is on the disk; `written`: "
            "the kernel has it; `received`: it is in memory"
        ),
    ] = "synced"
    max_bytes: Annotated[
        int,
        Meta(
            ge=2**20,
            description="maximum size of all segments; `on_full` applies above it",
            extra={"unit": "B"},
        ),
    ] = 20 * 2**30
    min_free: Annotated[
        int,
        Meta(
            ge=0,
            description="free disk space that is left for other programs; `on_full` applies below "
            "it; 0: none",
            extra={"unit": "B"},
        ),
    ] = 512 * 2**20
    on_full: Annotated[
        Literal["reject", "drop_oldest"],
        Meta(
            description="above `max_bytes` or below `min_free`: respond with 503, or let the "
            "oldest events expire, even if they are not delivered"
        ),
    ] = "reject"
    compression: Annotated[
        Literal["none", "zstd"],
        Meta(
            description="compression of events on the disk; zstd requires the extra "
            "`pixelfast[zstd]`",
            extra={"kind": "compression"},
        ),
    ] = "none"
    segment_bytes: Annotated[
        int,
        Meta(ge=2**17, le=2**31, description="size of one segment file", extra={"unit": "B"}),
    ] = 64 * 2**20
    max_waiting_bytes: Annotated[
        int,
        Meta(
            ge=2**16,
            description="maximum size of the events of one collector that wait for the disk; "
            "further pixels get 503",
            extra={"unit": "B"},
        ),
    ] = 32 * 2**20
    max_wait_s: Annotated[
        float,
        Meta(
            gt=0,
            description="longest time an event may wait for the disk before its pixel is answered "
            "503",
        ),
    ] = 2.0


class Deliver(Struct, frozen=True, kw_only=True):
    """`[deliver]`: the process that brings events to the destinations."""

    max_memory: Annotated[
        int,
        Meta(
            ge=96 * 2**20,
            description="maximum memory of the delivery process, of which each destination has an "
            "equal share; near the limit it reads fewer events ahead and sends fewer "
            "and smaller batches at once. Allow 64 MiB plus 4 MiB for each "
            "destination",
            extra={"unit": "B"},
        ),
    ] = 256 * 2**20


class WriteKey(Struct, frozen=True, kw_only=True):
    """A key that names its source; after `expires` it is refused with 401."""

    key: Annotated[Secret, Meta(description="the key that pixels contain")]
    expires: Annotated[
        Annotated[datetime, Meta(tz=True)] | None,
        Meta(
            description="RFC 3339 date-time with offset; later the key is rejected; default: never"
        ),
    ] = None


class Source(Struct, frozen=True, kw_only=True):
    """`[[sources]]`: who sends, and how its pixels are read."""

    name: Name
    write_keys: Annotated[
        tuple[WriteKey, ...],
        Meta(min_length=1, description="keys of the source; several during a rotation"),
    ]
    enabled: Annotated[bool, Meta(description="false: its pixels are rejected with 404")] = True
    destinations: Annotated[
        Annotated[tuple[str, ...], Meta(min_length=1)] | None,
        Meta(description="names of the destinations that get its events; default: all"),
    ] = None
    numbers: Annotated[bool, Meta(description="convert numeric strings to numbers")] = True
    booleans: Annotated[bool, Meta(description="convert true and false to booleans")] = False
    strings: Annotated[
        tuple[str, ...],
        Meta(
            description="fields that always remain strings, without the indexes of arrays: "
            "`properties.products.price`",
            extra={"kind": "place"},
        ),
    ] = ()
    force_numbers: Annotated[
        tuple[str, ...],
        Meta(description="fields that become numbers whatever their name", extra={"kind": "place"}),
    ] = ()
    ignore: Annotated[
        tuple[str, ...],
        Meta(description="cache busters: top-level names that are omitted without a warning"),
    ] = ("_", "z", "cb", "rand")
    fill: Annotated[
        tuple[Literal["ip", "referer", "locale"], ...],
        Meta(
            description="`ip`, `referer`, `locale`: set context.ip, context.page.url, "
            "context.locale from the request if they are absent or blank"
        ),
    ] = ()
    placeholders: Annotated[
        Literal["drop", "keep"],
        Meta(
            description="what to do with a userId or anonymousId that is an unreplaced template, "
            "such as `{{user.id}}` or `undefined`: omit it with a warning, or keep it "
            "as an id"
        ),
    ] = "drop"
    rate_limit: Annotated[
        float,
        Meta(
            ge=0,
            description="maximum number of events per second of all collectors together, with "
            "bursts of up to one second's events; further pixels get 429; 0: no limit",
        ),
    ] = 0.0


class Log(Struct, frozen=True, kw_only=True):
    """`[log]`: what pixelfast says, on standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="minimum level of log events"),
    ] = "info"
    format: Annotated[
        Literal["auto", "console", "json"],
        Meta(description="auto: `console` on a terminal, otherwise `json`"),
    ] = "auto"
    rejections: Annotated[
        bool,
        Meta(
            description="log rejected pixels as `pixel_rejected`: at most one line a second for"
            " each reason and collector"
        ),
    ] = True
    addresses: Annotated[
        Literal["masked", "full", "none"],
        Meta(
            description="client addresses in the log: masked to the network (/24 of IPv4, /48 of "
            "IPv6), in full, or omitted"
        ),
    ] = "masked"


class Config(Struct, frozen=True, kw_only=True):
    """All settings. An empty `sources` stands for the demo source of a first try."""

    data_dir: Annotated[
        str,
        Meta(
            min_length=1,
            description="folder for all data: spool, archives, dead letters, state",
            extra={"kind": "path"},
        ),
    ] = "./pixelfast-data"
    server: Server = Server()
    spool: Spool = Spool()
    deliver: Deliver = Deliver()
    log: Log = Log()
    sources: tuple[Source, ...] = ()
    destinations: Annotated[tuple[Destination, ...], Meta(min_length=1)] = (
        FileDestination(name="archive"),
    )


def unwrap(kind: inspect.Type) -> tuple[Any, dict[str, Any]]:
    """Take `Annotated` and `| None` off a field's type: the plain type, and the extras."""
    extra: dict[str, Any] = {}
    while isinstance(kind, inspect.Metadata | inspect.UnionType):
        if isinstance(kind, inspect.Metadata):
            extra = (kind.extra or {}) | extra  # the outer one is the field's own
            kind = kind.type
        else:
            kind = next(t for t in kind.types if not isinstance(t, inspect.NoneType))
    return kind, extra
