"""One parameter's key: from its bytes in the query to a place in the event.

Keys are few and come again and again, so every decoded key is kept in a bounded cache: a request
pays for a look-up, not for decoding (10x in time for the documented URL).
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.dict cimport PyDict_GetItem
from cpython.ref cimport PyObject

from pixelfast.event.text cimport decode_text

cdef enum:
    CACHED_KEYS = 4096      # ~1.5 MB when full; a site sends a few dozen
    CACHED_KEY_BYTES = 128  # longer ones are decoded each time

cdef dict _cache = {}

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
# Places of these names hold texts whatever they look like, so that a warehouse column keeps one
# type: a version 1.10 is not 1.1, and a postal code 01067 stands beside 10115.
cdef frozenset _TEXTUAL_NAMES = frozenset(
    "id version name title path url referrer search locale timezone ip useragent sku zip zipcode "
    "postalcode postal_code phone email token coupon".split()
)
cdef tuple _TEXTUAL_ENDINGS = ("Id", "ID", "_id", "_ID")

cdef KeyPath key_path(const char* raw, Py_ssize_t length):
    # The cached path of a key's raw bytes.
    cdef:
        bytes key = PyBytes_FromStringAndSize(raw, length)
        PyObject* cached = PyDict_GetItem(_cache, key)
        KeyPath path
    if cached != NULL:
        return <KeyPath>cached
    path = KeyPath(key)
    if length <= CACHED_KEY_BYTES:
        if len(_cache) >= CACHED_KEYS:
            _cache.clear()  # somebody sends random keys; the real ones are back at once
        _cache[key] = path
    return path


cdef class KeyPath:

    def __init__(self, bytes raw not None):
        cdef bytearray scratch = bytearray(len(raw) + 1)
        cdef list segments
        cdef int place
        cdef str name
        cdef bint is_plain
        self.raw = raw
        self.kind = KeyKind.PLACE
        self.root = RootField.OTHER
        self.names = ()
        self.dotted = ""
        segments = _split(decode_text(raw, len(raw), scratch))
        self.depth = len(segments)
        if self.depth > MAX_SEGMENTS:
            self.kind = KeyKind.TOO_DEEP
            return
        for place, (name, is_plain) in enumerate(segments):
            self.index[place] = NAME_SEGMENT if is_plain else _index(name)
            self.is_textual[place] = _is_textual(name)
        self.names = tuple([name for name, _ in segments])
        self.dotted = ".".join(self.names)
        if "" in self.names:
            self._warn("empty-segment")
        else:
            self._classify(self.names[0])

    def _classify(self, str first):
        if first == "writeKey":
            if self.depth == 1:
                self.kind = KeyKind.WRITE_KEY
            else:
                self._warn("not-an-object")
        elif first in _SERVER_OWNED:
            self._warn("server-owned-name")
        elif first in _FIELDS:
            self.root = _FIELDS[first]
            if self.depth > 1:
                self._warn("not-an-object")
        elif first in _OBJECTS:
            self.root = _OBJECTS[first]
            if self.depth == 1:
                self._warn("not-a-value")

    def _warn(self, str reason):
        self.kind = KeyKind.WARNED
        self.warning = reason

    def __repr__(self):
        return f"KeyPath({self.raw!r})"

    @property
    def indexes(self):
        return tuple(
            [None if self.index[i] == NAME_SEGMENT else self.index[i] for i in range(len(self.names))]
        )


cdef list _split(str key):
    # Split at dots; (name, is a plain name whatever it looks like) for each segment. Of a key that is
    # too deep only the first segments: 32 KB of dots made a megabyte of them.
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


cdef bint _is_textual(str name):
    return name.lower() in _TEXTUAL_NAMES or name.endswith(_TEXTUAL_ENDINGS)
