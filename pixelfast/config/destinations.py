"""The settings of destinations: a frozen struct for each `type`."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta

from pixelfast.config.brokers import (
    BrokerConnectTimeout,
    BrokerOptions,
    Brokers,
    BrokerUser,
    MessageCompression,
    SaslMechanism,
    SaslPassword,
    Security,
)
from pixelfast.config.delivery import (
    Batching,
    Delivery,
    MaxAge,
    MaxBytes,
    MaxEvents,
    Remote,
)
from pixelfast.config.fields import HeaderName, HeaderText, Identifier, IndexName, Secret
from pixelfast.config.postgres import PostgresDestination
from pixelfast.config.s3 import S3Destination

__all__ = [
    "ClickhouseDestination",
    "Destination",
    "ElasticsearchDestination",
    "FileDestination",
    "HttpDestination",
    "KafkaDestination",
    "PostgresDestination",
    "PosthogDestination",
    "RudderstackDestination",
    "S3Destination",
    "SegmentDestination",
]

ClickhouseValue = Annotated[
    str | bool | int | float, Meta(extra={"allowed": "a string, a number, true or false"})
]


class FileDestination(Delivery, frozen=True, kw_only=True, tag_field="type", tag="file"):
    """Newline-delimited JSON in files that are rotated by size and age."""

    path: Annotated[
        str,
        Meta(
            description='directory of the files; `""`: `events/NAME` in the data directory',
            extra={"kind": "path"},
        ),
    ] = ""
    rotate_bytes: Annotated[
        int,
        Meta(
            ge=1024,
            description="size above which a file is closed; the batch that reaches it is still "
            "written to the file",
            extra={"unit": "B"},
        ),
    ] = 64 * 2**20
    rotate_s: Annotated[
        float,
        Meta(gt=0, description="age at which the next batch closes a file and opens a new one"),
    ] = 60.0
    compression: Annotated[
        Literal["none", "gzip", "zstd"],
        Meta(
            description="compression of closed files, which adds the suffix `.gz` or `.zst`; "
            "`zstd` requires the extra `pixelfast[zstd]`",
            extra={"kind": "compression"},
        ),
    ] = "none"
    keep_for_s: Annotated[
        float,
        Meta(
            ge=0,
            description="maximum age of the newest event of a closed file; older files are "
            "deleted; 0: no limit",
        ),
    ] = 0.0
    keep_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="maximum size of all files; above it the oldest closed files are deleted; "
            "0: no limit, but `max_disk_share` applies",
            extra={"unit": "B"},
        ),
    ] = 0
    max_disk_share: Annotated[
        float,
        Meta(
            gt=0,
            le=1,
            description="without `keep_bytes`: maximum share of the file system that the files "
            "use; above it, events wait in the spool",
        ),
    ] = 0.5
    archive_mode: Annotated[
        Literal["0600", "0640", "0644", "0660", "0664"],
        Meta(
            description="permissions of the files, in octal; users who can read the files can also "
            "enter the directory. Values other than `0600` require a `path` outside `data_dir`"
        ),
    ] = "0600"


class HttpDestination(Batching, frozen=True, kw_only=True, tag_field="type", tag="http"):
    """Batches of events in POST requests."""

    format: Annotated[
        Literal["json_array", "ndjson", "single"],
        Meta(
            description="body of a request: an array of events, one event per line, or a single "
            "event"
        ),
    ] = "json_array"
    headers: Annotated[
        dict[HeaderName, HeaderText],
        Meta(
            description="additional headers of every request, except those that pixelfast sets: "
            "Host, Connection, Content-Length, Content-Encoding, Transfer-Encoding, "
            "TE, Trailer, Upgrade, Expect, Keep-Alive, Proxy-Connection",
            extra={"secret": True},
        ),
    ] = {}  # noqa: RUF012 - a struct copies it
    username: Annotated[
        str, Meta(description="user name for HTTP basic authentication", extra={"kind": "username"})
    ] = ""
    password: Annotated[
        Secret | None, Meta(description="password for `username`; default: empty")
    ] = None
    bearer_token: Annotated[
        Secret | None,
        Meta(description="token for HTTP bearer authentication", extra={"kind": "token"}),
    ] = None
    signing_secrets: Annotated[
        tuple[str, ...],
        Meta(
            max_length=2,
            description="secrets that sign requests as the Standard Webhooks specification "
            "describes; two during a rotation",
            extra={"secret": True, "kind": "signing secret"},
        ),
    ] = ()
    max_events: MaxEvents = 500
    max_bytes: MaxBytes = 2**20


class RudderstackDestination(
    Batching, frozen=True, kw_only=True, tag_field="type", tag="rudderstack"
):
    """A RudderStack data plane: POST {url}/v1/batch."""

    url: Annotated[str, Meta(description="URL of the data plane", extra={"kind": "base url"})]
    write_key: Annotated[
        Secret,
        Meta(description="write key of the RudderStack source", extra={"kind": "username"}),
    ]
    max_events: MaxEvents = 1000
    max_bytes: MaxBytes = 1_900_000


class SegmentDestination(Batching, frozen=True, kw_only=True, tag_field="type", tag="segment"):
    """Twilio Segment: POST {url}/v1/batch."""

    url: Annotated[
        str,
        Meta(
            description="URL of the region; for Europe: `https://events.eu1.segmentapis.com`",
            extra={"kind": "base url"},
        ),
    ] = "https://api.segment.io"
    write_key: Annotated[
        Secret, Meta(description="write key of the Segment source", extra={"kind": "username"})
    ]
    max_events: MaxEvents = 500
    max_bytes: MaxBytes = 475_000


class PosthogDestination(Batching, frozen=True, kw_only=True, tag_field="type", tag="posthog"):
    """PostHog: POST {url}/batch/ with events in its own format."""

    url: Annotated[
        str,
        Meta(
            description="URL of the region or of your own server; for Europe: "
            "`https://eu.i.posthog.com`",
            extra={"kind": "base url"},
        ),
    ] = "https://us.i.posthog.com"
    api_key: Annotated[Secret, Meta(description="project API key, which begins with `phc_`")]
    max_events: MaxEvents = 1000
    max_bytes: MaxBytes = 2_000_000


class ClickhouseDestination(
    Batching, frozen=True, kw_only=True, tag_field="type", tag="clickhouse"
):
    """A ClickHouse table: INSERT … FORMAT JSONEachRow over HTTP."""

    url: Annotated[str, Meta(description="URL of the HTTP interface", extra={"kind": "base url"})]
    table: Annotated[Identifier, Meta(description="table that receives a row for each event")]
    database: Annotated[Identifier, Meta(description="database of the table")] = "default"
    username: Annotated[
        str, Meta(min_length=1, description="user name", extra={"kind": "plain"})
    ] = "default"
    password: Annotated[Secret | None, Meta(description="password of the user")] = None
    settings: Annotated[
        dict[Identifier, ClickhouseValue],
        Meta(
            description="settings of ClickHouse for each insert, such as `{ insert_quorum = 2 }`, "
            "except those that pixelfast sets itself and those that could lose or repeat rows"
        ),
    ] = {}  # noqa: RUF012 - msgspec copies it
    max_events: MaxEvents = 10_000
    max_bytes: MaxBytes = 8 * 2**20


class ElasticsearchDestination(
    Batching, frozen=True, kw_only=True, tag_field="type", tag="elasticsearch"
):
    """An index of Elasticsearch or OpenSearch: POST {url}/{index}/_bulk."""

    url: Annotated[str, Meta(description="URL of the cluster", extra={"kind": "base url"})]
    index: Annotated[IndexName, Meta(description="index that receives a document for each event")]
    api_key: Annotated[
        Secret | None,
        Meta(
            description="API key in its encoded form, as Kibana shows it", extra={"kind": "token"}
        ),
    ] = None
    username: Annotated[
        str, Meta(description="user name for HTTP basic authentication", extra={"kind": "username"})
    ] = ""
    password: Annotated[
        Secret | None, Meta(description="password for `username`; default: empty")
    ] = None
    max_events: MaxEvents = 1000
    max_bytes: MaxBytes = 4 * 2**20


class KafkaDestination(Remote, frozen=True, kw_only=True, tag_field="type", tag="kafka"):
    """A topic of Apache Kafka, or of any broker that speaks its protocol."""

    brokers: Brokers
    topic: Annotated[
        str,
        Meta(
            description="topic of the messages; `{source}` and `{type}` stand for the source and "
            "the type of an event",
            extra={"kind": "topic"},
        ),
    ]
    message: Annotated[
        Literal["event", "batch"],
        Meta(
            description="value of a message: one event, or the events of a source, one per line, "
            "which costs less CPU time"
        ),
    ] = "event"
    key: Annotated[
        Literal["user", "source", "none"] | None,
        Meta(
            description="key of a message: the `userId` or otherwise the `anonymousId`, the "
            "source, or none. Messages with the same key are in the same partition. "
            'Default: `"user"`, or `"none"` with `message = "batch"`'
        ),
    ] = None
    compression: MessageCompression = "zstd"
    security: Security = "plaintext"
    sasl_mechanism: SaslMechanism = "SCRAM-SHA-512"
    username: BrokerUser = ""
    password: SaslPassword = None
    options: BrokerOptions = {}  # noqa: RUF012 - a struct copies it
    concurrency: Annotated[
        int,
        Meta(
            ge=1,
            le=64,
            description="maximum number of concurrent batches; with 1, the events of a key stay "
            "in order even if an attempt fails",
        ),
    ] = 1
    timeout_s: Annotated[
        float,
        Meta(
            ge=1,
            le=86_400,
            description="maximum time until the brokers have stored a message; after that, its "
            "events are retried",
        ),
    ] = 30.0
    connect_timeout_s: BrokerConnectTimeout = 5.0
    max_age_s: MaxAge = 0.2
    max_events: MaxEvents = 5000
    max_bytes: MaxBytes = 2 * 2**20


Destination: TypeAlias = (
    FileDestination
    | HttpDestination
    | RudderstackDestination
    | SegmentDestination
    | PosthogDestination
    | ClickhouseDestination
    | PostgresDestination
    | ElasticsearchDestination
    | KafkaDestination
    | S3Destination
)
