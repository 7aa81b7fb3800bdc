"""What the server adds to an event, and the event's JSON."""

from libc.stdint cimport int64_t

from pixelfast.event.decoder cimport Event, event_dict
from pixelfast.event.identity cimport trim
from pixelfast.event.keypath cimport RootField
from pixelfast.event.stamps cimport format_milliseconds, new_message_id, parse_date_time

import orjson

from pixelfast.errors import RequestError

__all__ = ["complete_event", "encode_event"]

cdef enum:
    MAX_EVENT_BYTES = 32768

cdef object _dumps = orjson.dumps
cdef dict _INTEGRATIONS = {"All": True}


cdef dict complete(
    Event event,
    int64_t received_ms,
    str request_ip,
    str user_agent,
    dict fill,
):
    # The event with the server's additions, in the order that events have.
    cdef:
        list fields = event.fields
        dict result
        dict context
        str received = format_milliseconds(received_ms)
        str message_id = ""
        str timestamp
        int64_t original_us = received_ms * 1000
        int64_t sent_us = received_ms * 1000
        int64_t timestamp_us = 0
    if user_agent:
        if fields[RootField.CONTEXT] is None:
            fields[RootField.CONTEXT] = {"userAgent": user_agent}
        else:
            context = <dict>fields[RootField.CONTEXT]
            if "userAgent" not in context:
                context["userAgent"] = user_agent
    if fill is not None:
        _fill_in(event, fill)
    result = event_dict(event)
    result["channel"] = "web" if fields[RootField.CHANNEL] is None else fields[RootField.CHANNEL]
    result["integrations"] = _INTEGRATIONS
    if fields[RootField.MESSAGE_ID] is not None:
        message_id = trim(<str>fields[RootField.MESSAGE_ID])
    result["messageId"] = message_id or new_message_id(received_ms)
    result["receivedAt"] = received
    result["originalTimestamp"] = _given(
        event, RootField.ORIGINAL_TIMESTAMP, "originalTimestamp", received, &original_us
    )
    result["sentAt"] = _given(event, RootField.SENT_AT, "sentAt", received, &sent_us)
    timestamp = _given(event, RootField.TIMESTAMP, "timestamp", None, &timestamp_us)
    if timestamp is None:
        timestamp = received
        if sent_us != original_us:
            timestamp_us = received_ms * 1000 - (sent_us - original_us)
            # Rounded down to the millisecond before the year 1970 as well as after it.
            timestamp_us -= ((timestamp_us % 1000) + 1000) % 1000
            timestamp = format_milliseconds(timestamp_us // 1000)
    result["timestamp"] = timestamp
    if request_ip:
        result["request_ip"] = request_ip
    return result


cdef str _given(Event event, int field, str name, str otherwise, int64_t* microseconds):
    # The parameter, kept as sent, if it is a date-time.
    cdef str text = <str>event.fields[field]
    cdef int64_t parsed = 0
    if text is None:
        return otherwise
    if parse_date_time(text, &parsed):
        microseconds[0] = parsed
        return text
    event.warnings.append(("not-a-date-time", name.encode()))
    return otherwise


cdef _fill_in(Event event, dict fill):
    cdef list fields = event.fields
    cdef dict context
    if fields[RootField.CONTEXT] is None:
        fields[RootField.CONTEXT] = {}
    context = <dict>fields[RootField.CONTEXT]
    for name in ("ip", "locale"):
        if fill.get(name) and name not in context:
            context[name] = fill[name]
    if fill.get("referer"):
        page = context.setdefault("page", {})
        if type(page) is dict and "url" not in page:
            page["url"] = fill["referer"]
    if not context:
        fields[RootField.CONTEXT] = None


def complete_event(
    Event event not None, received_ms, str request_ip="", str user_agent="", dict fill=None
):
    return complete(event, received_ms, request_ip, user_agent, fill)


cpdef bytes encode_event(
    Event event, int64_t received_ms, str request_ip, str user_agent, dict fill
):
    cdef bytes encoded = <bytes>_dumps(
        complete(event, received_ms, request_ip, user_agent, fill)
    )
    if len(encoded) > MAX_EVENT_BYTES:
        raise RequestError(
            413,
            "event-too-large",
            f"event is {len(encoded):,} bytes, limit {MAX_EVENT_BYTES:,}",
        )
    return encoded
