from libc.stdint cimport uint32_t, uint64_t

from pixelfast.event.limits cimport MAX_SEGMENTS
from pixelfast.event.query cimport Query
from pixelfast.event.slices cimport Slice
from pixelfast.event.template cimport Template

cdef enum KeyKind:
    PLACE = 0           # names a place in the event
    WRITE_KEY = 1       # names the source
    WARNED = 2          # the parameter is omitted; `warning` is the reason
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
    TRAITS = 12         # an object; the event has it among `rest`
    OTHER = 13          # any other name at the root

cdef enum:
    NAME_SEGMENT = -2   # a segment that is not an index
    APPEND_SEGMENT = -1

cdef class KeyPath:
    # A parameter's key, and the place in an event that it names.
    cdef bytes raw                          # as sent, percent-encoded
    cdef tuple names                        # the segments; empty if there are too many
    cdef str dotted                         # the names joined with dots
    cdef str warning                        # why the parameter is omitted, or None
    cdef KeyKind kind
    cdef bint is_escaped                    # the name began with `amp;`
    cdef bint has_brackets                  # a name contains `[]`, an array in other dialects
    cdef int root                           # a RootField
    cdef int depth                          # number of segments
    cdef signed char index[MAX_SEGMENTS]    # array index, NAME_SEGMENT or APPEND_SEGMENT
    cdef bint is_string[MAX_SEGMENTS]       # a place with this name never holds a number

    cdef int _parse(self) except -1
    cdef int _classify(self, str first) except -1
    cdef int _warn(self, str reason) except -1

cdef class KeyCache:
    # Decoded keys. Sites send the same few keys with every request, so a request pays for a lookup
    # instead of decoding, which takes ten times as long for the documented URL.
    cdef dict _paths                        # {raw key: KeyPath}

    cdef KeyPath find(self, Slice raw)

cdef enum:
    SEEN_SHAPES = 4096

cdef struct Sighting:
    uint32_t tag
    uint32_t count

cdef class Shape:
    # The keys of a query in order, and everything that depends only on them.
    cdef list paths             # [KeyPath]
    cdef int write_key          # index of the parameter, or -1
    cdef dict templates         # {Rules: [Template or None by variant]}; None: not cached
    cdef uint64_t _hash
    cdef list _keys             # [raw key]
    cdef Py_ssize_t _key_bytes

    cdef bint _matches(self, Query* query) noexcept

cdef class ShapeCache:
    # The shapes of frequent queries and their templates, in a limited amount of memory.
    cdef uint64_t seed
    cdef KeyCache _keys
    cdef dict _kept             # {hash: Shape}
    cdef Shape _last            # the last one found
    cdef Py_ssize_t _kept_bytes
    cdef Sighting _seen[SEEN_SHAPES]

    cdef Shape find(self, Query* query)
    cdef int keep_template(
        self, Shape shape, object rules, int variants, int variant, Template template
    ) except -1
    cdef Shape _describe(self, Query* query)
    cdef bint _is_frequent(self, Query* query) noexcept
    cdef bint _evicts_for(self, Py_ssize_t size)
