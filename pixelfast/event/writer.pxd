from libc.stdint cimport int64_t

from pixelfast.event.decoder cimport Decoder, Event, Rules
from pixelfast.event.keys cimport Shape, ShapeCache
from pixelfast.event.message_ids cimport MessageIds
from pixelfast.event.query cimport Query
from pixelfast.event.slices cimport Slice
from pixelfast.event.target cimport Route
from pixelfast.event.template cimport ServerValues, Template
from pixelfast.event.times cimport TimeString

cdef class Sink:
    # The receiver of an event's bytes.
    cdef char* reserve(self, Py_ssize_t size) except NULL   # space for at most `size` bytes
    cdef int take(self, Py_ssize_t length) except -1        # the reserved event is complete

cdef struct Additions:
    # What the server knows about the request beyond its target.
    int64_t received_ms         # since 1970
    Slice address               # canonical ASCII; empty if unknown
    Slice user_agent            # as sent; empty if absent
    Slice referer, languages    # as sent; NULL if absent; used only by `Rules.fill`
    Slice message_id            # valid by `is_message_id`; empty: generate one if needed

cdef class EventWriter:
    cdef readonly int64_t from_templates
    # Events without a template, by reason; see `untemplated_events`.
    cdef int64_t _from_new_shapes, _from_other_shapes, _from_other_values
    cdef bint _uses_templates
    cdef ShapeCache _shapes
    cdef Decoder _decoder
    cdef TimeString _time
    cdef MessageIds _message_ids
    cdef object _events         # the sink of `write`
    # the target that is open
    cdef bytes _target          # keeps the query alive if Python opened it
    cdef Route _route           # NOT_FOUND if none is open
    cdef Query _query
    cdef Shape _shape

    # Open a query found by `split_target`. Its buffer must stay valid until the event is written.
    # Routes other than TRACK and PAGE have no event.
    cdef int open_query(self, Route route, Slice query) except -1
    cpdef str write_key(self)
    # Write the event into `sink` and return its warnings [(reason, raw key)]; the caller must not
    # change the list.
    cdef list write_into(self, Sink sink, Rules rules, Additions* additions)
    cdef Template _template_of(self, Rules rules, ServerValues* server)
    cdef Template _make_template(self, Rules rules, int variant)
    cdef list _write_encoded(self, Sink sink, Rules rules, ServerValues* server)
    cdef dict _complete(self, Event event, Rules rules, ServerValues* server)
    cdef str _message_id(self, ServerValues* server)
