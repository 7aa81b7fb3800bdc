"""The bodies of requests: events as the products at the other end read them.

`lines`        NDJSON that every reader splits alike
`documents`    events as documents that Elasticsearch takes
`plain_event`  tells, without parsing, that an event needs no change
"""
