"""Decode and cache everything about a query that depends only on its keys.

A `KeyPath` is one decoded key: the place in the event that it names. A `Shape` is the keys of a
query in order. Both are cached for later queries with the same keys. Clients choose the keys, so
the size of the cache is limited: when it is full, it is cleared, and frequent entries return within
a few pixels. """

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.ref cimport PyObject
from libc.stdint cimport uint32_t
from libc.string cimport memcmp

from pixelfast.event.limits cimport MAX_INDEX, MAX_SEGMENTS
from pixelfast.event.query cimport Query
from pixelfast.event.slices cimport Slice
from pixelfast.event.strings cimport decode_string, is_invisible, trim
from pixelfast.event.template cimport Template

import os

__all__ = []

cdef enum:
    CACHED_KEYS = 4096          # ~1.5 MB when full; a site sends a few dozen
    CACHED_KEY_BYTES = 128      # longer keys are decoded each time
    KEPT_BYTES = 16777216       # about 900 shapes like the documented call, with templates
    KEPT_PARAMETERS = 64        # maximum of a cached shape
    KEPT_KEY_BYTES = 2048
    PARAMETER_BYTES = 800       # memory of its key and path
    SHAPE_BYTES = 1000          # memory of everything else in a shape
    RULES_BYTES = 200           # memory of an entry for rules, without its variants
    VARIANT_BYTES = 8
    # A shape is cached when it is seen for the fourth time, so that random keys do not fill the
    # cache.
    SIGHTINGS = 4

cdef dict _FIELDS = {
    "anonymousId": RootField.ANONYMOUS_ID,
    "userId": RootField.USER_ID,
    "event": RootField.EVENT,
    "name": RootField.NAME,
    "messageId": RootField.MESSAGE_ID,
    "channel": RootField.CHANNEL,
    "originalTimestamp": RootField.ORIGINAL_TIMESTAMP,
    "sentAt": RootField.SENT_AT,
    "timestamp": RootField.TIMESTAMP,
}
cdef dict _OBJECTS = {
    "properties": RootField.PROPERTIES,
    "context": RootField.CONTEXT,
    "traits": RootField.TRAITS,
}
cdef frozenset _SERVER_OWNED = frozenset(
    ("type", "integrations", "rudderId", "request_ip", "receivedAt")
)
# Places with these names always hold strings, so that a warehouse column keeps one type: version
# 1.10 is not 1.1, and the postal codes 01067 and 10115 belong in the same column.
cdef frozenset _STRING_NAMES = frozenset(
    "id version name title path url referrer search locale timezone ip useragent sku zip zipcode "
    "postalcode postal_code phone email token coupon build".split()
)
cdef tuple _STRING_ENDINGS = (
    "Id",
    "ID",
    "_id",
    "_ID",
    "_version",
    "-version",
    "Version",
    "appversion",
    "osversion",
)


cdef class KeyCache:

    def __cinit__(self):
        self._paths = {}

    cdef KeyPath find(self, Slice raw):
        cdef:
            bytes key = PyBytes_FromStringAndSize(raw.at, raw.length)
            PyObject* cached = PyDict_GetItem(self._paths, key)
            KeyPath path
        if cached != NULL:
            return <KeyPath>cached
        path = KeyPath.__new__(KeyPath)
        path.raw = key
        path._parse()
        if raw.length <= CACHED_KEY_BYTES:
            if len(self._paths) >= CACHED_KEYS:
                self._paths.clear()  # a client sends random keys; frequent keys return at once
            self._paths[key] = path
        return path


cdef class KeyPath:

    cdef int _parse(self) except -1:
        cdef Slice raw = Slice(self.raw, PyBytes_GET_SIZE(self.raw))
        cdef bytearray scratch = bytearray(raw.length + 1)
        cdef str decoded = decode_string(raw, scratch)
        cdef str key = _plain_name(decoded)
        cdef list segments = _split(key)
        cdef int place
        cdef str name
        cdef bint is_plain
        self.is_escaped = len(key) < len(trim(decoded))
        self.kind = KeyKind.PLACE
        self.root = RootField.OTHER
        self.names = ()
        self.dotted = ""
        self.depth = len(segments)
        if self.depth > MAX_SEGMENTS:
            self.kind = KeyKind.TOO_DEEP
            return 0
        for place, (name, is_plain) in enumerate(segments):
            self.index[place] = NAME_SEGMENT if is_plain else _index(name)
            self.is_string[place] = _is_string(name)
        self.names = tuple([name for name, _ in segments])
        self.has_brackets = any(["[]" in name for name in self.names])
        self.dotted = ".".join(self.names)
        if "" in self.names:
            return self._warn("empty-segment")
        return self._classify(self.names[0])

    cdef int _classify(self, str first) except -1:
        if first == "writeKey":
            if self.depth > 1:
                return self._warn("not-an-object")
            self.kind = KeyKind.WRITE_KEY
        elif first in _SERVER_OWNED:
            return self._warn("reserved-name")
        elif first in _FIELDS:
            self.root = _FIELDS[first]
            if self.depth > 1:
                return self._warn("not-an-object")
        elif first in _OBJECTS:
            self.root = _OBJECTS[first]
            if self.depth == 1:
                return self._warn("value-for-object")
        return 0

    cdef int _warn(self, str reason) except -1:
        self.kind = KeyKind.WARNED
        self.warning = reason
        return 0


cdef str _plain_name(str decoded):
    # Trim the name and remove each leading `amp;`, which is there if the URL was HTML-escaped
    # twice.
    cdef Py_ssize_t start = 0, end = len(decoded)
    while end > 0 and is_invisible(decoded[end - 1]):
        end -= 1
    while start < end:
        if is_invisible(decoded[start]):
            start += 1
        elif end - start >= 4 and decoded[start : start + 4].lower() == "amp;":
            start += 4
        else:
            break
    return decoded[start:end]


cdef list _split(str key):
    # Split a key at its dots and return (name, is_plain) for each segment; a plain name is never an
    # index. Stop once the key is too deep: 32 KB of dots would take a megabyte.
    cdef:
        list segments = []
        list name = []
        bint is_plain = False, after_backslash = False, at_start = True
        str char
    for char in key:
        if after_backslash:
            name.append(char)
            after_backslash = False
        elif char == "\\":
            is_plain = after_backslash = True
        elif char == ":" and at_start:
            is_plain = True
        elif char == ".":
            segments.append(("".join(name), is_plain))
            if len(segments) > MAX_SEGMENTS:
                return segments
            name = []
            is_plain = False
        else:
            name.append(char)
        at_start = char == "." and not name and not is_plain
    if after_backslash:
        name.append("\\")
    segments.append(("".join(name), is_plain))
    return segments


cdef int _index(str name):
    if name == "-1":
        return APPEND_SEGMENT
    if 1 <= len(name) <= 2 and name.isascii() and name.isdigit():
        if (name == "0" or name[0] != "0") and int(name) <= MAX_INDEX:
            return int(name)
    return NAME_SEGMENT


cdef bint _is_string(str name):
    return name.lower() in _STRING_NAMES or name.endswith(_STRING_ENDINGS)


cdef class Shape:

    cdef bint _matches(self, Query* query) noexcept:
        # Compare key by key: another query may have the same hash.
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
        # Return the cached shape, or a new one.
        cdef Shape shape = self._last
        cdef PyObject* found
        if shape is not None and shape._matches(query):
            return shape
        found = PyDict_GetItem(self._kept, query.hash)
        if found != NULL and (<Shape>found)._matches(query):
            self._last = <Shape>found
            return self._last
        shape = self._describe(query)
        if (
            query.count <= KEPT_PARAMETERS
            and shape._key_bytes <= KEPT_KEY_BYTES
            and self._is_frequent(query)
        ):
            self._evicts_for(SHAPE_BYTES + query.count * PARAMETER_BYTES + 2 * shape._key_bytes)
            self._kept[query.hash] = shape
            shape.templates = {}
        return shape

    cdef int keep_template(
        self, Shape shape, object rules, int variants, int variant, Template template
    ) except -1:
        cdef bint is_first = rules not in shape.templates
        cdef Py_ssize_t size = template.kept_bytes()
        if is_first:
            size += RULES_BYTES + variants * VARIANT_BYTES
        if self._evicts_for(size):
            shape.templates = None  # the shape was evicted with all others
            return 0
        if is_first:
            shape.templates[rules] = [None] * variants
        shape.templates[rules][variant] = template
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

    cdef bint _is_frequent(self, Query* query) noexcept:
        cdef Sighting* seen = &self._seen[query.hash % SEEN_SHAPES]
        cdef uint32_t tag = <uint32_t>(query.hash >> 32)
        if seen.tag != tag:
            seen.tag = tag
            seen.count = 0
        seen.count += 1
        return seen.count >= SIGHTINGS

    cdef bint _evicts_for(self, Py_ssize_t size):
        # Count a new entry of about `size` bytes; return whether the cache was cleared for it.
        self._kept_bytes += size
        if self._kept_bytes <= KEPT_BYTES:
            return False
        self._kept_bytes = size
        self._kept.clear()
        self._last = None
        return True
