from pixelfast.event.limits cimport MAX_SEGMENTS, MAX_TARGET_BYTES
from pixelfast.event.query cimport Query
from pixelfast.event.slices cimport Slice

cdef enum KeyKind:
    PLACE = 0           # names a place in the event
    WRITE_KEY = 1       # names the source
    WARNED = 2          # left out, `warning` says why
    TOO_DEEP = 3        # more than MAX_SEGMENTS segments

cdef enum RootField:
    ANONYMOUS_ID = 0
    USER_ID = 1
    EVENT = 2
    NAME = 3
    PROPERTIES = 4
    CONTEXT = 5
    MESSAGE_ID = 6
    CHANNEL = 7
    ORIGINAL_TIMESTAMP = 8
    SENT_AT = 9
    TIMESTAMP = 10
    FIELD_COUNT = 11
    TRAITS = 12         # an object that stands among the others
    OTHER = 13          # any other name at the root

cdef class Rules:
    cdef readonly bint numbers
    cdef readonly bint booleans
    cdef readonly frozenset strings
    cdef readonly frozenset force_numbers
    cdef readonly frozenset ignore
    cdef readonly frozenset fill
    cdef bint has_overrides
    cdef bint fills, fills_ip, fills_referer, fills_locale
    cdef Py_hash_t _hash

cdef class KeyPath:
    # The place in an event that a parameter's key names.
    cdef bytes raw                          # as it stands in the query
    cdef tuple names                        # the segments; empty if they are too many
    cdef str dotted                         # the names joined with dots
    cdef str warning                        # why the parameter is left out, or None
    cdef KeyKind kind
    cdef int root                           # a RootField
    cdef int depth                          # how many segments
    cdef signed char index[MAX_SEGMENTS]    # of an array, or NAME_SEGMENT or APPEND_SEGMENT
    cdef bint is_string[MAX_SEGMENTS]       # a place of this name never holds a number

    cdef int _parse(self) except -1
    cdef int _classify(self, str first) except -1
    cdef int _warn(self, str reason) except -1

cdef class KeyCache:
    # Keys are few and come again and again, so decoded keys are kept: a request pays for a look-up,
    # not for decoding (10x in time for the documented URL).
    cdef dict _paths                        # {raw key: KeyPath}

    cdef KeyPath find(self, Slice raw)

cdef class Event:
    # A decoded event, before the server's additions.
    cdef list fields                        # by RootField, None where absent
    cdef dict rest                          # the root names beside them, in order of appearance
    cdef list warnings                      # [(reason, raw key)]

cdef class Decoder:
    # Builds the nested event from the parameters of a query.
    cdef Query* _query
    cdef Rules _rules
    cdef Event _event
    cdef bint _makes_slots                  # instead of values
    cdef dict _owners           # (container's id, name): [KeyPath] of the plain values; None: not kept
    cdef bint _has_losers       # a plain value gave way, and who owned it was not kept
    cdef int _slots_left
    cdef char _scratch[MAX_TARGET_BYTES]

    cdef Event decode(self, Query* query, list paths, Rules rules, bint is_track)
    cdef Event decode_slots(self, Query* query, list paths, Rules rules, bint is_track)
    cdef str string_of_parameter(self, Query* query, int i)
    cdef Event _build_all(self, Query* query, list paths, Rules rules, bint is_track)
    cdef Event _build(self, list paths, bint is_track, dict owners)
    cdef object _field(self, int i, int root, bint is_track)
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
