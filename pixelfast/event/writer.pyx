"""The one entry to this package: from a request target to an event's JSON in a sink.

An event is written by a template of its shape, that is of its keys in their order, once the shape
has come often enough; else it is decoded and encoded by orjson. Both write the same bytes. The
pixels of one page have the same shape, so this is the usual way. Anybody may send any keys, so what
is kept is counted: when it gets too large, all of it goes, and what is in use is back after a few
pixels.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.ref cimport PyObject
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeASCII
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from pixelfast.event.decoder cimport (
    Decoder,
    Event,
    KeyCache,
    KeyKind,
    KeyPath,
    RootField,
    Rules,
)
from pixelfast.event.limits cimport MAX_EVENT_BYTES, MAX_PARAMETERS, MAX_TARGET_BYTES
from pixelfast.event.message_ids cimport (
    MESSAGE_ID_BYTES,
    close_message_ids,
    open_message_ids,
    write_message_id,
)
from pixelfast.event.query cimport Query, split_query
from pixelfast.event.slices cimport Slice, string_of, stripped
from pixelfast.event.strings cimport trim
from pixelfast.event.target cimport Route, is_visible_ascii, split_target
from pixelfast.event.template cimport ServerValues, SlotKind, Template, new_slot, template_of
from pixelfast.event.times cimport TIME_BYTES, parse_date_time, time_string, write_time

import os

import orjson

from pixelfast.errors import RequestError

__all__ = ["EventWriter", "Sink"]

cdef enum:
    KEPT_BYTES = 16777216       # about 900 shapes like that of the documented call, with templates
    KEPT_PARAMETERS = 64        # of a shape that is kept
    KEPT_KEY_BYTES = 2048
    PARAMETER_BYTES = 800       # of its key and its path
    SHAPE_BYTES = 1000          # beside that
    NO_TEMPLATE_BYTES = 300     # of the note that there is none
    # A shape is kept when it comes for the fourth time: who sends random keys gains nothing.
    SIGHTINGS = 4

cdef object _dumps = orjson.dumps
cdef dict _INTEGRATIONS = {"All": True}
cdef dict _ROUTE_NAMES = {Route.TRACK: "track", Route.PAGE: "page", Route.ROBOTS: "robots"}
# Fields whose values decide what else is in the event.
cdef tuple _READ_FROM_VALUES = (
    RootField.MESSAGE_ID,
    RootField.ORIGINAL_TIMESTAMP,
    RootField.SENT_AT,
    RootField.TIMESTAMP,
)


cdef class Sink:

    cdef char* reserve(self, Py_ssize_t size) except NULL:
        raise NotImplementedError

    cdef int take(self, Py_ssize_t length) except -1:
        raise NotImplementedError


cdef class _BytesSink(Sink):
    # Holds one event for Python.
    cdef bytes _room
    cdef bytes event

    cdef char* reserve(self, Py_ssize_t size) except NULL:
        self._room = PyBytes_FromStringAndSize(NULL, size)
        return PyBytes_AS_STRING(self._room)

    cdef int take(self, Py_ssize_t length) except -1:
        self.event = self._room[:length]
        self._room = None
        return 0


cdef class Shape:

    cdef bint _fits(self, Query* query) noexcept:
        # Key by key: a hash alone could be that of another query.
        cdef bytes key
        cdef int i
        if self._hash != query.hash or len(self._keys) != query.count:
            return False
        for i in range(query.count):
            key = <bytes>self._keys[i]
            if PyBytes_GET_SIZE(key) != query.keys[i].length:
                return False
            if memcmp(PyBytes_AS_STRING(key), query.keys[i].at, query.keys[i].length) != 0:
                return False
        return True


cdef class ShapeCache:

    def __cinit__(self):
        self.seed = int.from_bytes(os.urandom(8), "little")
        self._keys = KeyCache()
        self._kept = {}

    cdef Shape find(self, Query* query):
        # The shape that is kept, or a new one.
        cdef Shape shape = self._last
        cdef PyObject* found
        if shape is not None and shape._fits(query):
            return shape
        found = PyDict_GetItem(self._kept, query.hash)
        if found != NULL and (<Shape>found)._fits(query):
            self._last = <Shape>found
            return self._last
        shape = self._describe(query)
        if (
            query.count <= KEPT_PARAMETERS
            and shape._key_bytes <= KEPT_KEY_BYTES
            and self._comes_again(query)
        ):
            self._makes_room(SHAPE_BYTES + query.count * PARAMETER_BYTES + 2 * shape._key_bytes)
            self._kept[query.hash] = shape
            shape.templates = ({}, {}, {}, {})
        return shape

    cdef int keep_template(self, Shape shape, int variant, Rules rules, Template template) except -1:
        # None is kept too: there is none for these rules.
        if self._makes_room(NO_TEMPLATE_BYTES if template is None else template.kept_bytes()):
            shape.templates = None  # the shape went with all others
        else:
            (<dict>shape.templates[variant])[rules] = template
        return 0

    cdef Shape _describe(self, Query* query):
        cdef Shape shape = Shape.__new__(Shape)
        cdef KeyPath path
        cdef int i
        shape.paths = []
        shape.write_key = -1
        shape._hash = query.hash
        shape._keys = []
        for i in range(query.count):
            path = self._keys.find(query.keys[i])
            shape.paths.append(path)
            shape._keys.append(path.raw)
            shape._key_bytes += query.keys[i].length
            if path.kind == KeyKind.WRITE_KEY and shape.write_key < 0:
                shape.write_key = i
        return shape

    cdef bint _comes_again(self, Query* query) noexcept:
        cdef Sighting* seen = &self._seen[query.hash % SEEN_SHAPES]
        cdef uint32_t tag = <uint32_t>(query.hash >> 32)
        if seen.tag != tag:
            seen.tag = tag
            seen.count = 0
        seen.count += 1
        return seen.count >= SIGHTINGS

    cdef bint _makes_room(self, Py_ssize_t size):
        # For something of about this size that is kept; true if all else had to go.
        self._kept_bytes += size
        if self._kept_bytes <= KEPT_BYTES:
            return False
        self._kept_bytes = size
        self._kept.clear()
        self._last = None
        return True


cdef class EventWriter:

    def __cinit__(self):
        self._shapes = ShapeCache()
        self._decoder = Decoder()
        self._events = _BytesSink()
        open_message_ids(&self._message_ids)

    def __init__(self, *, bint uses_templates=True):
        self._uses_templates = uses_templates

    def __dealloc__(self):
        close_message_ids(&self._message_ids)

    # --- the sequence of calls ---------------------------------------------------------------

    def open(self, bytes target not None, *, bint is_checked=False):
        cdef:
            Slice whole = Slice(PyBytes_AS_STRING(target), PyBytes_GET_SIZE(target))
            Slice query
            Route route
        self._route = Route.NOT_FOUND
        if whole.length > MAX_TARGET_BYTES:
            raise _too_long("request target", whole.length)
        if not is_checked and not is_visible_ascii(whole):
            raise RequestError(400, "malformed-request", "a target is visible ASCII: use %XX")
        route = split_target(whole, &query)
        self._target = target  # the query points into it
        self.open_query(route, query)
        return _ROUTE_NAMES.get(<int>route)

    cdef int open_query(self, Route route, Slice query) except -1:
        self._route = Route.NOT_FOUND
        if route != Route.TRACK and route != Route.PAGE:
            return 0
        if query.length > MAX_TARGET_BYTES:
            raise _too_long("query", query.length)
        if not split_query(&self._query, query, self._shapes.seed):
            raise RequestError(400, "too-many-parameters", f"more than {MAX_PARAMETERS} parameters")
        self._shape = self._shapes.find(&self._query)
        self._route = route
        return 0

    cpdef str write_key(self):
        if self._route == Route.NOT_FOUND or self._shape.write_key < 0:
            return None
        return self._decoder.string_of_parameter(&self._query, self._shape.write_key)

    def write(
        self,
        Rules rules not None,
        int64_t received_ms,
        *,
        str address not None="",
        bytes user_agent not None=b"",
        bytes referer=None,
        bytes languages=None,
    ):
        cdef:
            Additions additions
            _BytesSink sink = <_BytesSink>self._events
            list warnings
        additions.received_ms = received_ms
        additions.address.at = PyUnicode_AsUTF8AndSize(address, &additions.address.length)
        additions.user_agent = _slice_of(user_agent)
        additions.referer = _slice_of(referer)
        additions.languages = _slice_of(languages)
        warnings = self.write_into(sink, rules, &additions)
        event, sink.event = sink.event, None
        return event, list(warnings)

    cdef list write_into(self, Sink sink, Rules rules, Additions* additions):
        cdef:
            Template template
            ServerValues server
            Py_ssize_t length
        if self._route == Route.NOT_FOUND:
            raise ValueError("no pixel is open")
        server.user_agent = stripped(additions.user_agent)
        template = self._template_of(rules, server.user_agent.length > 0)
        if template is None:
            return self._write_encoded(sink, rules, additions)
        server.address = additions.address
        server.received = time_string(&self._time, additions.received_ms)
        write_message_id(&self._message_ids, server.message_id, additions.received_ms)
        length = template.fill(
            sink.reserve(template.most_bytes(self._query.length, &server)), &self._query, &server
        )
        if length < 0:
            return self._write_encoded(sink, rules, additions)
        sink.take(length)
        self.from_templates += 1
        return template.warnings

    # --- by a template -----------------------------------------------------------------------

    cdef Template _template_of(self, Rules rules, bint has_user_agent):
        # None: there is none, or the shape has not come often enough.
        cdef int variant = (self._route == Route.TRACK) << 1 | has_user_agent
        cdef Template template
        cdef PyObject* found
        if self._shape.templates is None or rules.fills or not self._uses_templates:
            return None
        found = PyDict_GetItem(<dict>self._shape.templates[variant], rules)
        if found != NULL:
            return <Template>found
        template = self._make_template(rules, has_user_agent)
        self._shapes.keep_template(self._shape, variant, rules, template)
        return template

    cdef Template _make_template(self, Rules rules, bint has_user_agent):
        cdef bint is_track = self._route == Route.TRACK
        cdef Event event
        try:
            event = self._decoder.decode_slots(&self._query, self._shape.paths, rules, is_track)
        except RequestError:
            return None  # for this reason or another one, such queries are rejected
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
                is_track,
                new_slot(SlotKind.MESSAGE_ID_SLOT),
                received,
                received,
                received,
                received,
                new_slot(SlotKind.ADDRESS_SLOT),
            ),
            event.warnings,
        )

    # --- by the decoder and orjson -----------------------------------------------------------

    cdef list _write_encoded(self, Sink sink, Rules rules, Additions* additions):
        cdef Event event = self._decoder.decode(
            &self._query, self._shape.paths, rules, self._route == Route.TRACK
        )
        cdef bytes encoded = <bytes>_dumps(self._complete(event, rules, additions))
        cdef Py_ssize_t length = PyBytes_GET_SIZE(encoded)
        if length > MAX_EVENT_BYTES:
            raise RequestError(
                413, "event-too-large", f"event is {length:,} bytes, limit {MAX_EVENT_BYTES:,}"
            )
        memcpy(sink.reserve(length), PyBytes_AS_STRING(encoded), length)
        sink.take(length)
        return event.warnings

    cdef dict _complete(self, Event event, Rules rules, Additions* additions):
        # The event with the server's additions, in the order that events have.
        cdef:
            list fields = event.fields
            Slice agent = stripped(additions.user_agent)
            int64_t received_us = additions.received_ms * 1000
            int64_t original_us = received_us, sent_us = received_us, timestamp_us = received_us
            str received = _string_of_time(time_string(&self._time, additions.received_ms))
            str message_id = ""
            str original, sent, timestamp
            char computed[TIME_BYTES]
        if agent.length:
            _add_user_agent(event, string_of(agent))
        if rules.fills:
            _fill_in(event, rules, additions)
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
                timestamp_us = received_us - (sent_us - original_us)
                # Rounded down to the millisecond before the year 1970 as well as after it.
                timestamp_us -= ((timestamp_us % 1000) + 1000) % 1000
                write_time(computed, timestamp_us // 1000)
                timestamp = _string_of_time(computed)
        return _assemble(
            event,
            self._route == Route.TRACK,
            message_id or self._new_message_id(additions.received_ms),
            received,
            original,
            sent,
            timestamp,
            string_of(additions.address) if additions.address.length else None,
        )

    cdef str _new_message_id(self, int64_t ms):
        cdef char message_id[MESSAGE_ID_BYTES]
        write_message_id(&self._message_ids, message_id, ms)
        return PyUnicode_DecodeASCII(message_id, MESSAGE_ID_BYTES, NULL)


cdef object _too_long(str what, Py_ssize_t length):
    return RequestError(
        414, "target-too-long", f"{what} is {length:,} bytes, limit {MAX_TARGET_BYTES:,}"
    )


cdef Slice _slice_of(bytes value):
    if value is None:
        return Slice(NULL, 0)
    return Slice(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))


cdef str _string_of_time(const char* time):
    return PyUnicode_DecodeASCII(time, TIME_BYTES, NULL)


cdef str _given(Event event, int field, str name, str otherwise, int64_t* us):
    # The parameter, kept as sent, if it is a date-time.
    cdef str given = <str>event.fields[field]
    cdef int64_t parsed_us = 0
    if given is None:
        return otherwise
    if parse_date_time(given, &parsed_us):
        us[0] = parsed_us
        return given
    event.warnings.append(("not-a-date-time", name.encode()))
    return otherwise


cdef int _add_user_agent(Event event, object user_agent) except -1:
    cdef dict context = event.fields[RootField.CONTEXT]
    if context is None:
        event.fields[RootField.CONTEXT] = {"userAgent": user_agent}
    elif "userAgent" not in context:
        context["userAgent"] = user_agent
    return 0


cdef int _fill_in(Event event, Rules rules, Additions* additions) except -1:
    cdef list fields = event.fields
    cdef dict context = fields[RootField.CONTEXT]
    if context is None:
        context = {}
    if rules.fills_ip and additions.address.length and "ip" not in context:
        context["ip"] = string_of(additions.address)
    if rules.fills_locale and additions.languages.length and "locale" not in context:
        languages = additions.languages.at[: additions.languages.length]
        locale = languages.split(b",", 1)[0].split(b";", 1)[0].strip()
        if locale:
            context["locale"] = locale.decode("utf-8", "replace")
    if rules.fills_referer and additions.referer.length:
        page = context.setdefault("page", {})
        if type(page) is dict and "url" not in page:
            page["url"] = string_of(additions.referer)
    if context:
        fields[RootField.CONTEXT] = context
    return 0


cdef dict _assemble(
    Event event,
    bint is_track,
    object message_id,
    object received,
    object original,
    object sent,
    object timestamp,
    object request_ip,
):
    # In the order that events have.
    cdef list fields = event.fields
    cdef dict result = {"type": "track" if is_track else "page"}
    cdef object channel = fields[RootField.CHANNEL]
    if fields[RootField.ANONYMOUS_ID] is not None:
        result["anonymousId"] = fields[RootField.ANONYMOUS_ID]
    if fields[RootField.USER_ID] is not None:
        result["userId"] = fields[RootField.USER_ID]
    if fields[RootField.EVENT] is not None:
        result["event"] = fields[RootField.EVENT]
    if fields[RootField.NAME] is not None:
        result["name"] = fields[RootField.NAME]
    if fields[RootField.PROPERTIES] is not None:
        result["properties"] = fields[RootField.PROPERTIES]
    if fields[RootField.CONTEXT] is not None:
        result["context"] = fields[RootField.CONTEXT]
    if event.rest:
        result.update(event.rest)
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
