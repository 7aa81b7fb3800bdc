from libc.stdint cimport int64_t

from pixelfast.event.keys cimport KeyPath, RootField
from pixelfast.event.limits cimport MAX_TARGET_BYTES
from pixelfast.event.query cimport Query

cdef class Rules:
    cdef readonly bint numbers
    cdef readonly bint booleans
    cdef readonly frozenset strings
    cdef readonly frozenset force_numbers
    cdef readonly frozenset ignore
    cdef readonly frozenset fill
    cdef readonly bint keeps_placeholders
    cdef bint has_overrides
    cdef bint fills, fills_ip, fills_referer, fills_locale
    cdef Py_hash_t _hash

cdef class Event:
    # A decoded event, before the server's additions.
    cdef list fields                        # by RootField, None where absent
    cdef dict rest                          # all other names at the root, in the order sent
    cdef list warnings                      # [(reason, raw key)]
    cdef int64_t times_us[3]                # of the fields from ORIGINAL_TIMESTAMP that are not None
    cdef bint has_placeholder               # an id was a placeholder
    cdef bint has_repeated_field            # set only by `decode_slots`

cdef class Decoder:
    # Build the nested event from the parameters of a query.
    cdef Query* _query
    cdef Rules _rules
    cdef Event _event
    cdef bint _makes_slots                  # build slots instead of values
    cdef dict _owners           # {(id of the container, name): [KeyPath]} of plain values, or None
    cdef bint _has_displaced    # a container replaced a plain value while `_owners` was None
    cdef int _slots_left
    cdef list _blank_times      # [KeyPath]
    cdef int _tried_times       # a bit for each time field that had a non-blank value
    cdef list _repeats          # [(container, name, KeyPath)] of values after the first of `a[]`
    cdef char _scratch[MAX_TARGET_BYTES]

    cdef Event decode(self, Query* query, list paths, Rules rules, bint is_track)
    cdef Event decode_slots(self, Query* query, list paths, Rules rules, bint is_track)
    cdef str string_of_parameter(self, Query* query, int i)
    cdef Event _build_all(self, Query* query, list paths, Rules rules, bint is_track)
    cdef Event _build(self, list paths, bint is_track, dict owners)
    cdef str _usable(self, int i, KeyPath path)
    cdef str _usable_time(self, str trimmed, KeyPath path)
    cdef int _warn_of_blank_times(self) except -1
    cdef int _warn_of_repeats(self) except -1
    cdef object _coerced(self, int i, KeyPath path, unsigned int in_arrays, bint is_string)
    cdef int _place(self, int i, KeyPath path, dict root, int start) except -1
    cdef int _put_in_object(
        self, int i, KeyPath path, dict container, str name, unsigned int in_arrays, bint is_string
    ) except -1
    cdef int _put_in_array(
        self, int i, KeyPath path, list container, int index, unsigned int in_arrays, bint is_string
    ) except -1
    cdef object _descend(
        self, KeyPath path, object container, object name, object child, bint wants_array
    )
    cdef int _own(self, KeyPath path, object container, object name) except -1
    cdef int _keep_first(self, KeyPath path, object container, object name, object there) except -1
    cdef int _grow(self, list container, int size) except -1
    cdef int _warn(self, str reason, KeyPath path) except -1
