"""What the server adds to an event, and the event's JSON: by orjson, or by a template."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.dict cimport PyDict_GetItem
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t

from pixelfast.event.decoder cimport Decoder, Event, Rules, event_dict
from pixelfast.event.identity cimport trim
from pixelfast.event.keypath cimport RootField
from pixelfast.event.query cimport Slice
from pixelfast.event.shape cimport makes_room
from pixelfast.event.stamps cimport (
    format_milliseconds,
    milliseconds_text,
    new_message_id,
    parse_date_time,
    write_message_id,
)
from pixelfast.event.template cimport (
    MAX_EVENT_BYTES,
    TEMPLATE_BYTES,
    Additions,
    SlotKind,
    Template,
    new_slot,
    template_of,
)

import orjson

from pixelfast.errors import RequestError

__all__ = ["complete_event", "encode_event", "fill_template"]

cdef object _dumps = orjson.dumps
cdef dict _INTEGRATIONS = {"All": True}
# Fields whose values say what else is in the event.
cdef tuple _READ_FROM_VALUES = (
    RootField.MESSAGE_ID,
    RootField.ORIGINAL_TIMESTAMP,
    RootField.SENT_AT,
    RootField.TIMESTAMP,
)


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
        str received = format_milliseconds(received_ms)
        str message_id = ""
        str original, sent, timestamp
        int64_t original_us = received_ms * 1000
        int64_t sent_us = received_ms * 1000
        int64_t timestamp_us = 0
    if user_agent:
        _add_user_agent(event, user_agent)
    if fill is not None:
        _fill_in(event, fill)
    if fields[RootField.MESSAGE_ID] is not None:
        message_id = trim(<str>fields[RootField.MESSAGE_ID])
    original = _given(
        event, RootField.ORIGINAL_TIMESTAMP, "originalTimestamp", received, &original_us
    )
    sent = _given(event, RootField.SENT_AT, "sentAt", received, &sent_us)
    timestamp = _given(event, RootField.TIMESTAMP, "timestamp", None, &timestamp_us)
    if timestamp is None:
        timestamp = received
        if sent_us != original_us:
            timestamp_us = received_ms * 1000 - (sent_us - original_us)
            # Rounded down to the millisecond before the year 1970 as well as after it.
            timestamp_us -= ((timestamp_us % 1000) + 1000) % 1000
            timestamp = format_milliseconds(timestamp_us // 1000)
    return _assemble(
        event,
        message_id or new_message_id(received_ms),
        received,
        original,
        sent,
        timestamp,
        request_ip or None,
    )


cdef dict _assemble(
    Event event,
    object message_id,
    object received,
    object original,
    object sent,
    object timestamp,
    object request_ip,
):
    # In the order that events have.
    cdef dict result = event_dict(event)
    cdef object channel = event.fields[RootField.CHANNEL]
    result["channel"] = "web" if channel is None else channel
    result["integrations"] = _INTEGRATIONS
    result["messageId"] = message_id
    result["receivedAt"] = received
    result["originalTimestamp"] = original
    result["sentAt"] = sent
    result["timestamp"] = timestamp
    if request_ip is not None:
        result["request_ip"] = request_ip
    return result


cdef _add_user_agent(Event event, object user_agent):
    cdef dict context = event.fields[RootField.CONTEXT]
    if context is None:
        event.fields[RootField.CONTEXT] = {"userAgent": user_agent}
    elif "userAgent" not in context:
        context["userAgent"] = user_agent


cdef Template template_for(Decoder decoder, Rules rules, bint is_track, bint has_user_agent):
    # The template of the decoder's query; None where it has none, or has not come often enough.
    cdef dict templates = decoder._shape.templates
    cdef Template template
    cdef PyObject* found
    cdef int key = rules.number << 2 | is_track << 1 | has_user_agent
    if not decoder._shape.is_kept:
        return None
    found = PyDict_GetItem(templates, key)
    if found != NULL:
        return <Template>found
    template = _make_template(decoder, rules, is_track, has_user_agent)
    if makes_room(TEMPLATE_BYTES if template is None else template.kept_bytes()):
        decoder._shape.is_kept = False  # it went with all others
    else:
        templates[key] = template
    return template


cdef Template _make_template(Decoder decoder, Rules rules, bint is_track, bint has_user_agent):
    cdef Event event
    try:
        event = decoder.decode_slots(rules, is_track)
    except RequestError:
        return None  # for this reason or another one, such queries are refused
    fields = event.fields
    for given in _READ_FROM_VALUES:
        if fields[given] is not None:
            return None
    if fields[RootField.USER_ID] is None and fields[RootField.ANONYMOUS_ID] is None:
        return None
    if is_track and fields[RootField.EVENT] is None:
        return None
    if has_user_agent:
        _add_user_agent(event, new_slot(SlotKind.USER_AGENT_SLOT))
    received = new_slot(SlotKind.RECEIVED_SLOT)
    return template_of(
        _assemble(
            event,
            new_slot(SlotKind.MESSAGE_ID_SLOT),
            received,
            received,
            received,
            received,
            new_slot(SlotKind.ADDRESS_SLOT),
        ),
        event.warnings,
    )


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


def fill_template(
    Decoder decoder not None,
    Rules rules not None,
    bint is_track,
    received_ms,
    str request_ip="",
    bytes user_agent=b"",
):
    cdef:
        Additions additions
        Template template = template_for(decoder, rules, is_track, len(user_agent) > 0)
        bytes address = request_ip.encode()
        bytes out
        Py_ssize_t length
    if template is None:
        return None
    additions.address = Slice(address, len(address))
    additions.user_agent = Slice(user_agent, len(user_agent))
    additions.received = milliseconds_text(received_ms)
    write_message_id(additions.message_id, received_ms)
    length = template.most_bytes(decoder._query.length, &additions)
    out = PyBytes_FromStringAndSize(NULL, length)
    length = template.fill(out, decoder._query, &additions)
    return (out[:length], template.warnings) if length >= 0 else None


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
