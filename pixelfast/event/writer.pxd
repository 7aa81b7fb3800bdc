from libc.stdint cimport int64_t

from pixelfast.event.decoder cimport Decoder, Event, Rules
from pixelfast.event.keys cimport Shape, ShapeCache
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
    Slice message_id            # `is_message_id`; empty: one is made where the query has none

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
    cdef str _message_id(self, Additions* additions)
