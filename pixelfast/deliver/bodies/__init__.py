"""The bodies of requests: events in the format of each product.

`lines`        NDJSON that every parser splits at the same places
`documents`    events as documents that Elasticsearch accepts
`plain_event`  tells, without parsing, that an event needs no change
"""
