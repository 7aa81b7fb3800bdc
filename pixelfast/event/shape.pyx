"""The shape of a query: its keys in their order, and all that follows from them alone.

The pixels of one page carry the same keys in the same order, so a shape that comes again is kept,
and templates with it. Anybody may send any keys, so all that is kept is counted: when it gets too
large, all of it goes, and what is in use is back after a few pixels.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.ref cimport PyObject
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp

from pixelfast.event.keypath cimport KeyKind, KeyPath, key_path
from pixelfast.event.query cimport Query

__all__ = ["Shape"]

cdef enum:
    KEPT_BYTES = 16777216       # about 900 shapes like that of the documented call, with templates
    KEPT_PARAMETERS = 64        # of a shape that is kept
    KEPT_KEY_BYTES = 2048
    PARAMETER_BYTES = 800       # of its key and its path
    SHAPE_BYTES = 1000          # beside that
    # A shape is kept when it comes for the fourth time: who sends random keys gains nothing.
    SIGHTINGS = 4
    SEEN = 4096

cdef struct Sightings:
    uint32_t tag
    uint32_t count

cdef dict _kept = {}            # {hash: Shape}
cdef Shape _last = None
cdef Py_ssize_t _kept_bytes = 0
cdef Sightings[4096] _seen


cdef Shape shape_of(Query query):
    # The shape that is kept, or a new one.
    global _last
    cdef Shape shape = _last
    cdef PyObject* found
    if shape is not None and shape._fits(query):
        return shape
    found = PyDict_GetItem(_kept, query.hash)
    if found != NULL and (<Shape>found)._fits(query):
        _last = <Shape>found
        return _last
    shape = Shape.__new__(Shape)
    _describe(shape, query)
    if (
        query.count <= KEPT_PARAMETERS
        and shape._key_bytes <= KEPT_KEY_BYTES
        and _comes_again(query)
    ):
        makes_room(SHAPE_BYTES + query.count * PARAMETER_BYTES + 2 * shape._key_bytes)
        _kept[query.hash] = shape
        shape.is_kept = True
    return shape


cdef bint makes_room(Py_ssize_t size) noexcept:
    # For something of about this size that is kept with a shape; true if all else had to go.
    global _kept_bytes, _last
    _kept_bytes += size
    if _kept_bytes <= KEPT_BYTES:
        return False
    _kept_bytes = size
    _kept.clear()
    _last = None
    return True


cdef bint _comes_again(Query query):
    cdef Sightings* seen = &_seen[query.hash % SEEN]
    cdef uint32_t tag = <uint32_t>(query.hash >> 32)
    if seen.tag != tag:
        seen.tag = tag
        seen.count = 0
    seen.count += 1
    return seen.count >= SIGHTINGS


cdef int _describe(Shape shape, Query query) except -1:
    cdef KeyPath path
    cdef int i
    shape.paths = []
    shape.templates = {}
    shape.write_key = -1
    shape._hash = query.hash
    shape._keys = []
    for i in range(query.count):
        path = key_path(query.keys[i].at, query.keys[i].length)
        shape.paths.append(path)
        shape._keys.append(path.raw)
        shape._key_bytes += query.keys[i].length
        if path.kind == KeyKind.WRITE_KEY and shape.write_key < 0:
            shape.write_key = i
        elif path.kind == KeyKind.TOO_DEEP:
            shape.is_too_deep = True
    return 0


cdef class Shape:

    cdef bint _fits(self, Query query) noexcept:
        # Key by key: a hash alone could be another query's.
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
