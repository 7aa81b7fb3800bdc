from libc.stdint cimport int64_t, uint32_t, uint64_t

from pixelfast.event.decoder cimport Decoder, Event, KeyCache, Rules
from pixelfast.event.message_ids cimport MessageIds
from pixelfast.event.query cimport Query
from pixelfast.event.slices cimport Slice
from pixelfast.event.target cimport Route
from pixelfast.event.template cimport Template
from pixelfast.event.times cimport TimeString

cdef class Sink:
    # Where an event's bytes go.
    cdef char* reserve(self, Py_ssize_t size) except NULL   # room for an event of at most `size` bytes
    cdef int take(self, Py_ssize_t length) except -1        # the event at `reserve` is complete

cdef struct Additions:
    # What the server knows beside the target.
    int64_t received_ms         # since 1970
    Slice address               # canonical, ASCII; empty: unknown
    Slice user_agent            # as sent, empty: absent
    Slice referer, languages    # as sent, NULL: absent; for rules that fill in from them

cdef enum:
    SEEN_SHAPES = 4096

cdef struct Sighting:
    uint32_t tag
    uint32_t count

cdef class Shape:
    # The keys of a query in their order, and all that follows from them alone.
    cdef list paths             # [KeyPath]
    cdef int write_key          # which parameter it is; -1: none
    cdef tuple templates        # by variant: {Rules: Template, or None}; None: the shape is not kept
    cdef uint64_t _hash
    cdef list _keys             # [raw key]
    cdef Py_ssize_t _key_bytes

    cdef bint _fits(self, Query* query) noexcept

cdef class ShapeCache:
    # The shapes that come again and again, and their templates, within a bound of memory.
    cdef uint64_t seed
    cdef KeyCache _keys
    cdef dict _kept             # {hash: Shape}
    cdef Shape _last            # found last
    cdef Py_ssize_t _kept_bytes
    cdef Sighting _seen[SEEN_SHAPES]

    cdef Shape find(self, Query* query)
    cdef int keep_template(self, Shape shape, int variant, Rules rules, Template template) except -1
    cdef Shape _describe(self, Query* query)
    cdef bint _comes_again(self, Query* query) noexcept
    cdef bint _makes_room(self, Py_ssize_t size)

cdef class EventWriter:
    cdef readonly int64_t from_templates
    cdef bint _uses_templates
    cdef ShapeCache _shapes
    cdef Decoder _decoder
    cdef TimeString _time
    cdef MessageIds _message_ids
    cdef object _events         # a sink for Python
    # the target that is open
    cdef bytes _target          # that the query points into, if Python opened it
    cdef Route _route           # NOT_FOUND: none is open
    cdef Query _query
    cdef Shape _shape

    # Open the query of a target that `split_target` has split; it must stay where it is until the
    # event is written. Routes other than TRACK and PAGE have no event.
    cdef int open_query(self, Route route, Slice query) except -1
    cpdef str write_key(self)
    # Write the event into `sink`; return its warnings [(reason, raw key)], not to be changed.
    cdef list write_into(self, Sink sink, Rules rules, Additions* additions)
    cdef Template _template_of(self, Rules rules, bint has_user_agent)
    cdef Template _make_template(self, Rules rules, bint has_user_agent)
    cdef list _write_encoded(self, Sink sink, Rules rules, Additions* additions)
    cdef dict _complete(self, Event event, Rules rules, Additions* additions)
    cdef str _new_message_id(self, int64_t ms)
