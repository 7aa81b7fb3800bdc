"""The entry point of this package: write the event of a request target into a sink, as JSON.

The shape of a query is its keys in order. Once a shape is frequent, its events are written from a
template; all others are decoded, and encoded by orjson. Both ways write the same bytes. The pixels
of one page have the same shape, so most events come from templates. """

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.ref cimport PyObject
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeASCII
from libc.stdint cimport int64_t
from libc.string cimport memcpy

from pixelfast.event.additions cimport fill_in, first_language
from pixelfast.event.decoder cimport Decoder, Event, Rules
from pixelfast.event.keys cimport KeyKind, KeyPath, RootField, Shape, ShapeCache
from pixelfast.event.limits cimport MAX_EVENT_BYTES, MAX_PARAMETERS, MAX_TARGET_BYTES
from pixelfast.event.message_ids cimport (
    MESSAGE_ID_BYTES,
    close_message_ids,
    is_message_id,
    open_message_ids,
    write_message_id,
)
from pixelfast.event.query cimport Query, split_query
from pixelfast.event.slices cimport Slice, string_of, stripped
from pixelfast.event.strings cimport trim
from pixelfast.event.target cimport Route, is_well_formed, split_target
from pixelfast.event.template cimport (
    ServerValues,
    SlotKind,
    Template,
    new_slot,
    template_of,
)
from pixelfast.event.times cimport TIME_BYTES, time_string, write_computed_time

import orjson

from pixelfast.errors import RequestError

__all__ = ["EventWriter", "Sink"]

cdef object _dumps = orjson.dumps
cdef dict _INTEGRATIONS = {"All": True}
cdef dict _ROUTE_NAMES = {Route.TRACK: "track", Route.PAGE: "page", Route.ROBOTS: "robots"}
# In place of the template of a shape that cannot have one.
cdef Template NO_TEMPLATE = Template.__new__(Template)

cdef enum Variant:
    # What the templates of one shape differ in, as bits.
    IS_TRACK = 1
    HAS_USER_AGENT = 2
    # only if the rules fill them in
    HAS_ADDRESS = 4
    HAS_REFERER = 8
    HAS_LOCALE = 16
    VARIANTS_WITHOUT_FILL = 4
    VARIANTS = 32


cdef class Sink:

    cdef char* reserve(self, Py_ssize_t size) except NULL:
        raise NotImplementedError

    cdef int take(self, Py_ssize_t length) except -1:
        raise NotImplementedError


cdef class _BytesSink(Sink):
    # Hold one event for `EventWriter.write`.
    cdef bytes _room
    cdef bytes event

    cdef char* reserve(self, Py_ssize_t size) except NULL:
        self._room = PyBytes_FromStringAndSize(NULL, size)
        return PyBytes_AS_STRING(self._room)

    cdef int take(self, Py_ssize_t length) except -1:
        self.event = self._room[:length]
        self._room = None
        return 0


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
        if not is_checked and not is_well_formed(whole):
            raise RequestError(
                400,
                "malformed-request",
                "the request target has a space or a control character; expected %XX",
            )
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
            raise RequestError(
                400, "too-many-parameters", f"the query has more than {MAX_PARAMETERS} parameters"
            )
        self._shape = self._shapes.find(&self._query)
        self._route = route
        return 0

    cpdef str write_key(self):
        cdef str key
        cdef int i
        if self._route == Route.NOT_FOUND or self._shape.write_key < 0:
            return None
        for i in range(self._shape.write_key, self._query.count):
            if (<KeyPath>self._shape.paths[i]).kind == KeyKind.WRITE_KEY:
                key = trim(self._decoder.string_of_parameter(&self._query, i))
                if key:
                    return key
        return ""

    def write(
        self,
        Rules rules not None,
        int64_t received_ms,
        *,
        str address not None="",
        bytes user_agent not None=b"",
        bytes referer=None,
        bytes languages=None,
        bytes message_id not None=b"",
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
        additions.message_id = _slice_of(message_id)
        if message_id and not is_message_id(additions.message_id):
            raise ValueError(f"invalid message id: {message_id!r}")
        warnings = self.write_into(sink, rules, &additions)
        event, sink.event = sink.event, None
        return event, list(warnings)

    def untemplated_events(self):
        return {
            "new-shape": self._from_new_shapes,
            "unsupported-shape": self._from_other_shapes,
            "unsupported-value": self._from_other_values,
        }

    cdef list write_into(self, Sink sink, Rules rules, Additions* additions):
        cdef:
            Template template
            ServerValues server
            Slice nothing = Slice(NULL, 0)
            char made[MESSAGE_ID_BYTES]
            Py_ssize_t length
            list warnings
        if self._route == Route.NOT_FOUND:
            raise ValueError("no target with an event is open")
        server.received_ms = additions.received_ms
        server.received = time_string(&self._time, additions.received_ms)
        server.address = additions.address
        server.user_agent = stripped(additions.user_agent)
        server.referer = additions.referer if rules.fills_referer else nothing
        server.locale = first_language(additions.languages) if rules.fills_locale else nothing
        server.message_id = additions.message_id
        template = self._template_of(rules, &server)
        if template is None or template is NO_TEMPLATE:
            warnings = self._write_encoded(sink, rules, &server)
            if template is None:
                self._from_new_shapes += 1
            else:
                self._from_other_shapes += 1
            return warnings
        if server.message_id.length == 0 and template.needs_message_id(&self._query):
            write_message_id(&self._message_ids, made, additions.received_ms)
            server.message_id = Slice(&made[0], MESSAGE_ID_BYTES)
        length = template.fill(
            sink.reserve(template.max_bytes(self._query.length, &server)), &self._query, &server
        )
        if length < 0:
            warnings = self._write_encoded(sink, rules, &server)
            self._from_other_values += 1
            return warnings
        sink.take(length)
        self.from_templates += 1
        return template.warnings

    # --- by a template -----------------------------------------------------------------------

    cdef Template _template_of(self, Rules rules, ServerValues* server):
        # Return the template of the open query, or None if its shape is not frequent.
        cdef:
            int variant = 0
            Template template
            PyObject* found
        if self._shape.templates is None or not self._uses_templates:
            return None
        if self._route == Route.TRACK:
            variant |= Variant.IS_TRACK
        if server.user_agent.length:
            variant |= Variant.HAS_USER_AGENT
        if rules.fills:
            if rules.fills_ip and server.address.length:
                variant |= Variant.HAS_ADDRESS
            if server.referer.length:
                variant |= Variant.HAS_REFERER
            if server.locale.length:
                variant |= Variant.HAS_LOCALE
        found = PyDict_GetItem(self._shape.templates, rules)
        if found != NULL:
            template = <Template>(<list>found)[variant]
            if template is not None:
                return template
        template = self._make_template(rules, variant)
        self._shapes.keep_template(
            self._shape,
            rules,
            Variant.VARIANTS if rules.fills else Variant.VARIANTS_WITHOUT_FILL,
            variant,
            template,
        )
        return template

    cdef Template _make_template(self, Rules rules, int variant):
        cdef:
            bint is_track = variant & Variant.IS_TRACK
            Event event
            list fields
            object received = new_slot(SlotKind.RECEIVED_SLOT)
            object timestamp = received
        try:
            event = self._decoder.decode_slots(&self._query, self._shape.paths, rules, is_track)
        except RequestError:
            return NO_TEMPLATE  # every query of this shape is rejected, whatever its values
        if event.has_repeated_field:
            return NO_TEMPLATE
        fields = event.fields
        if fields[RootField.USER_ID] is None and fields[RootField.ANONYMOUS_ID] is None:
            return NO_TEMPLATE
        if is_track and fields[RootField.EVENT] is None:
            return NO_TEMPLATE
        fill_in(
            event,
            new_slot(SlotKind.USER_AGENT_SLOT) if variant & Variant.HAS_USER_AGENT else None,
            new_slot(SlotKind.ADDRESS_SLOT) if variant & Variant.HAS_ADDRESS else None,
            new_slot(SlotKind.LOCALE_SLOT) if variant & Variant.HAS_LOCALE else None,
            new_slot(SlotKind.REFERER_SLOT) if variant & Variant.HAS_REFERER else None,
        )
        if (
            fields[RootField.ORIGINAL_TIMESTAMP] is not None
            or fields[RootField.SENT_AT] is not None
        ):
            timestamp = new_slot(SlotKind.COMPUTED_TIME_SLOT)
        return template_of(
            _assemble(
                event,
                is_track,
                fields[RootField.MESSAGE_ID] or new_slot(SlotKind.MESSAGE_ID_SLOT),
                received,
                fields[RootField.ORIGINAL_TIMESTAMP] or received,
                fields[RootField.SENT_AT] or received,
                fields[RootField.TIMESTAMP] or timestamp,
                new_slot(SlotKind.ADDRESS_SLOT),
            ),
            event.warnings,
        )

    # --- by the decoder and orjson -----------------------------------------------------------

    cdef list _write_encoded(self, Sink sink, Rules rules, ServerValues* server):
        cdef Event event = self._decoder.decode(
            &self._query, self._shape.paths, rules, self._route == Route.TRACK
        )
        cdef bytes encoded = <bytes>_dumps(self._complete(event, rules, server))
        cdef Py_ssize_t length = PyBytes_GET_SIZE(encoded)
        if length > MAX_EVENT_BYTES:
            raise RequestError(
                413,
                "event-too-large",
                f"the event is {length:,} bytes long; the limit is {MAX_EVENT_BYTES:,}",
            )
        memcpy(sink.reserve(length), PyBytes_AS_STRING(encoded), length)
        sink.take(length)
        return event.warnings

    cdef dict _complete(self, Event event, Rules rules, ServerValues* server):
        # Return the event with the server's additions, with its keys in the documented order.
        cdef:
            list fields = event.fields
            int64_t received_us = server.received_ms * 1000
            int64_t original_us = received_us, sent_us = received_us
            str received = _string_of_time(server.received)
            str original, sent, timestamp
            char computed[TIME_BYTES]
        fill_in(
            event,
            _string_or_none(server.user_agent),
            _string_or_none(server.address) if rules.fills_ip else None,
            _string_or_none(server.locale),
            _string_or_none(server.referer),
        )
        original = _given(event, RootField.ORIGINAL_TIMESTAMP, received, &original_us)
        sent = _given(event, RootField.SENT_AT, received, &sent_us)
        timestamp = <str>fields[RootField.TIMESTAMP]
        if timestamp is None:
            timestamp = received
            if sent_us != original_us:
                write_computed_time(computed, received_us, original_us, sent_us)
                timestamp = _string_of_time(computed)
        return _assemble(
            event,
            self._route == Route.TRACK,
            fields[RootField.MESSAGE_ID] or self._message_id(server),
            received,
            original,
            sent,
            timestamp,
            _string_or_none(server.address),
        )

    cdef str _message_id(self, ServerValues* server):
        cdef char made[MESSAGE_ID_BYTES]
        if server.message_id.length:
            return string_of(server.message_id)
        write_message_id(&self._message_ids, made, server.received_ms)
        return PyUnicode_DecodeASCII(made, MESSAGE_ID_BYTES, NULL)


cdef object _too_long(str what, Py_ssize_t length):
    return RequestError(
        414,
        "target-too-long",
        f"the {what} is {length:,} bytes long; the limit is {MAX_TARGET_BYTES:,}",
    )


cdef Slice _slice_of(bytes value):
    if value is None:
        return Slice(NULL, 0)
    return Slice(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))


cdef str _string_or_none(Slice value):
    return string_of(value) if value.length else None


cdef str _string_of_time(const char* time):
    return PyUnicode_DecodeASCII(time, TIME_BYTES, NULL)


cdef str _given(Event event, int field, str otherwise, int64_t* us):
    # Return the time that a parameter gives and set `us`, or return `otherwise`.
    cdef str given = <str>event.fields[field]
    if given is None:
        return otherwise
    us[0] = event.times_us[field - RootField.ORIGINAL_TIMESTAMP]
    return given


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
    # Return the event with its keys in the documented order.
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
