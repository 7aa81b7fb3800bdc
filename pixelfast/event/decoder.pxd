from pixelfast.event.keypath cimport KeyPath
from pixelfast.event.query cimport Query
from pixelfast.event.shape cimport Shape

cdef class Rules:
    cdef readonly int number        # no other rules have it
    cdef readonly bint numbers
    cdef readonly bint booleans
    cdef readonly frozenset strings
    cdef readonly frozenset force_numbers
    cdef readonly frozenset ignore
    cdef bint has_overrides

cdef class Event:
    cdef readonly str type
    cdef list fields            # by RootField, None where absent
    cdef readonly dict rest     # the root names beside them, in order of appearance
    cdef readonly list warnings # [(reason, raw key)]

cdef class Decoder:
    cdef Query _query           # points into what was split: valid as long as that
    cdef Shape _shape
    cdef Shape _empty
    cdef bytes _kept
    cdef bint _makes_slots      # not values
    cdef char _scratch[32768]
    cdef Rules _rules
    cdef Event _event
    cdef dict _owners           # (container's id, name): [KeyPath] of the plain values; None: not kept
    cdef bint _has_losers       # a plain value gave way, and who owned it was not kept
    cdef int _slots_left

    cdef int split_at(self, const char* query, Py_ssize_t length) except -1
    cpdef str write_key(self)
    cpdef Event decode(self, Rules rules, bint is_track)
    cdef Event decode_slots(self, Rules rules, bint is_track)
    cdef Event _build_all(self, Rules rules, bint is_track)
    cdef Event _build(self, bint is_track, dict owners)
    cdef str _text(self, int i)
    cdef object _field(self, int i, int root, bint is_track)
    cdef object _coerced(self, int i, KeyPath path, unsigned int in_arrays, bint is_textual)
    cdef int _place(self, int i, KeyPath path, dict root, int start) except -1
    cdef int _put_in_object(
        self, int i, KeyPath path, dict container, str name, unsigned int in_arrays, bint is_textual
    ) except -1
    cdef int _put_in_array(
        self, int i, KeyPath path, list container, int index, unsigned int in_arrays, bint is_textual
    ) except -1
    cdef object _descend(self, KeyPath path, object container, object name, object child, bint wants_array)
    cdef int _own(self, KeyPath path, object container, object name) except -1
    cdef int _keep_first(self, KeyPath path, object container, object name, object there) except -1
    cdef int _grow(self, list container, int size) except -1
    cdef int _warn(self, str reason, KeyPath path) except -1

cdef str place_of(KeyPath path, unsigned int in_arrays)
cdef dict event_dict(Event event)
