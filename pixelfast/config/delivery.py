"""The settings that destinations share, whatever their `type`."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from pixelfast.config.fields import Name

__all__ = [
    "Batching",
    "Delivery",
    "MaxAge",
    "MaxBytes",
    "MaxEvents",
    "Remote",
    "Timeout",
    "TlsAuthority",
    "TlsCertificate",
    "TlsKey",
]

MaxEvents = Annotated[
    int, Meta(ge=1, le=100_000, description="maximum number of events in a batch")
]
MaxBytes = Annotated[
    int,
    Meta(
        ge=2**16,
        le=2**31,
        description="maximum size of a batch before compression",
        extra={"unit": "B"},
    ),
]
MaxAge = Annotated[
    float, Meta(gt=0, description="maximum time that an event waits for its batch to be sent")
]
Timeout = Annotated[
    float,
    Meta(
        gt=0,
        description="maximum duration of a request, from connecting to the end of the response; a "
        "request that takes longer is retried",
    ),
]
TlsAuthority = Annotated[
    str,
    Meta(
        description='PEM file with trusted certificate authorities; `""`: those of the system',
        extra={"kind": "path"},
    ),
]
TlsCertificate = Annotated[
    str,
    Meta(
        description='PEM file with the client certificate for mutual TLS; `""`: none',
        extra={"kind": "path"},
    ),
]
TlsKey = Annotated[
    str,
    Meta(
        description='PEM file with the private key of `tls_cert`; `""`: the key is in that file',
        extra={"kind": "path"},
    ),
]


class Delivery(Struct, frozen=True, kw_only=True):
    """Settings that all destinations have."""

    name: Annotated[Name, Meta(description="name of the destination in commands, metrics and logs")]
    start: Annotated[
        Literal["newest", "earliest"],
        Meta(
            description="first event of a new destination: the next event that is stored, or the "
            "oldest event in the spool, or in the topic of `[cluster]`"
        ),
    ] = "newest"
    events: Annotated[
        tuple[str, ...],
        Meta(
            description="deliver only events with these names, in which `*` matches any "
            "characters; pages have no event name; default: all"
        ),
    ] = ()
    types: Annotated[
        tuple[Literal["track", "page"], ...],
        Meta(description="deliver only events of these types; default: all"),
    ] = ()
    required: Annotated[
        bool,
        Meta(
            description="`true` keeps undelivered events until they are delivered, so that a full "
            "spool rejects pixels with 503; `false` lets the oldest expire before the spool is full"
        ),
    ] = True
    max_lag_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="maximum size of the undelivered events in the spool; above it the oldest "
            "expire; 0: no limit",
            extra={"unit": "B"},
        ),
    ] = 0
    max_dead_bytes: Annotated[
        int,
        Meta(
            ge=2**16,
            description="maximum size of the dead letters on disk; above it `on_dead_full` applies",
            extra={"unit": "B"},
        ),
    ] = 2**30
    max_dead_age_s: Annotated[
        float, Meta(gt=0, description="maximum age of a dead letter; older ones are deleted")
    ] = 2_592_000.0
    on_dead_full: Annotated[
        Literal["drop_oldest", "hold"],
        Meta(
            description="above `max_dead_bytes`: delete the oldest dead letters of the source that"
            " uses the most space, or hold the destination"
        ),
    ] = "drop_oldest"


class Remote(Delivery, frozen=True, kw_only=True):
    """Settings of all destinations over the network; types have their own defaults for some."""

    max_events: MaxEvents
    max_bytes: MaxBytes
    max_age_s: MaxAge = 1.0
    timeout_s: Timeout = 30.0
    connect_timeout_s: Annotated[float, Meta(gt=0, description="maximum time to connect")] = 5.0
    retry_first_s: Annotated[
        float, Meta(gt=0, description="maximum delay before the first retry")
    ] = 0.5
    retry_most_s: Annotated[
        float, Meta(gt=0, description="maximum delay before any later retry")
    ] = 60.0
    retry_for_s: Annotated[
        float,
        Meta(
            gt=0,
            description="maximum age of events that are retried; an event that is older becomes a "
            "dead letter when an attempt fails",
        ),
    ] = 259_200.0
    concurrency: Annotated[
        int, Meta(ge=1, le=64, description="maximum number of concurrent requests")
    ] = 64
    tls_ca: TlsAuthority = ""
    tls_cert: TlsCertificate = ""
    tls_key: TlsKey = ""


class Batching(Remote, frozen=True, kw_only=True):
    """Settings of all destinations over HTTP."""

    url: Annotated[str, Meta(description="URL of the requests", extra={"kind": "url"})]
    gzip: Annotated[bool, Meta(description="compress request bodies")] = False
    block_private: Annotated[
        bool,
        Meta(description="never connect to private, loopback or reserved addresses"),
    ] = False
