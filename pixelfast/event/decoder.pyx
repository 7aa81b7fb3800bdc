"""From a query's parameters to the nested event: dot notation, numbers, identities.

`KeyPath` is one parameter's key, decoded: the place in the event that it names. `Decoder` puts the
values into their places by the `Rules` of the source.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.ref cimport PyObject

from pixelfast.event.limits cimport MAX_ARRAY_SLOTS, MAX_INDEX, MAX_SEGMENTS
from pixelfast.event.numbers cimport number_of
from pixelfast.event.query cimport Query
from pixelfast.event.slices cimport Slice
from pixelfast.event.strings cimport decode_string, trim
from pixelfast.event.template cimport SlotKind, new_slot

from pixelfast.errors import RequestError

__all__ = ["Rules"]

cdef enum:
    NAME_SEGMENT = -2       # a segment that is not an index
    APPEND_SEGMENT = -1
    CACHED_KEYS = 4096      # ~1.5 MB when full; a site sends a few dozen
    CACHED_KEY_BYTES = 128  # longer ones are decoded each time

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
# Places of these names hold strings whatever they look like, so that a warehouse column keeps one
# type: a version 1.10 is not 1.1, and a postal code 01067 stands beside 10115.
cdef frozenset _STRING_NAMES = frozenset(
    "id version name title path url referrer search locale timezone ip useragent sku zip zipcode "
    "postalcode postal_code phone email token coupon".split()
)
cdef tuple _STRING_ENDINGS = ("Id", "ID", "_id", "_ID")


cdef class Rules:

    def __init__(
        self,
        *,
        numbers=True,
        booleans=False,
        strings=(),
        force_numbers=(),
        ignore=("_", "z", "cb", "rand"),
        fill=(),
    ):
        self.numbers = numbers
        self.booleans = booleans
        self.strings = frozenset(strings)
        self.force_numbers = frozenset(force_numbers)
        self.ignore = frozenset(ignore)
        self.fill = frozenset(fill)
        self.has_overrides = bool(self.strings or self.force_numbers)
        self.fills = bool(self.fill)
        self.fills_ip = "ip" in self.fill
        self.fills_referer = "referer" in self.fill
        self.fills_locale = "locale" in self.fill
        self._hash = hash(_values(self))

    def __eq__(self, other):
        if not isinstance(other, Rules):
            return NotImplemented
        return _values(self) == _values(other)

    def __hash__(self):
        return self._hash


cdef tuple _values(Rules rules):
    return (
        rules.numbers,
        rules.booleans,
        rules.strings,
        rules.force_numbers,
        rules.ignore,
        rules.fill,
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
                self._paths.clear()  # somebody sends random keys; the real ones are back at once
            self._paths[key] = path
        return path


cdef class KeyPath:

    cdef int _parse(self) except -1:
        cdef Slice raw = Slice(self.raw, PyBytes_GET_SIZE(self.raw))
        cdef bytearray scratch = bytearray(raw.length + 1)
        cdef list segments = _split(decode_string(raw, scratch))
        cdef int place
        cdef str name
        cdef bint is_plain
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
            return self._warn("server-owned-name")
        elif first in _FIELDS:
            self.root = _FIELDS[first]
            if self.depth > 1:
                return self._warn("not-an-object")
        elif first in _OBJECTS:
            self.root = _OBJECTS[first]
            if self.depth == 1:
                return self._warn("not-a-value")
        return 0

    cdef int _warn(self, str reason) except -1:
        self.kind = KeyKind.WARNED
        self.warning = reason
        return 0


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


cdef bint _is_string(str name):
    return name.lower() in _STRING_NAMES or name.endswith(_STRING_ENDINGS)


cdef class Event:
    pass


cdef class Decoder:

    cdef Event decode(self, Query* query, list paths, Rules rules, bint is_track):
        cdef Event event
        self._makes_slots = False
        event = self._build_all(query, paths, rules, is_track)
        _check_identity(event, is_track)
        return event

    cdef Event decode_slots(self, Query* query, list paths, Rules rules, bint is_track):
        # The event with slots for its values: what is checked of them is not checked here.
        self._makes_slots = True
        return self._build_all(query, paths, rules, is_track)

    cdef str string_of_parameter(self, Query* query, int i):
        return decode_string(query.values[i], self._scratch)

    cdef Event _build_all(self, Query* query, list paths, Rules rules, bint is_track):
        cdef Event event
        for path in paths:
            if (<KeyPath>path).kind == KeyKind.TOO_DEEP:
                raise RequestError(
                    400, "too-deep", f"a parameter has more than {MAX_SEGMENTS} segments"
                )
        self._query = query
        self._rules = rules
        event = self._build(paths, is_track, None)
        if self._has_losers:
            # Rare, so only now: once more, remembering who owns what, to name those that give way.
            event = self._build(paths, is_track, {})
        return event

    cdef Event _build(self, list paths, bint is_track, dict owners):
        cdef:
            Event event = Event.__new__(Event)
            list fields = [None] * RootField.FIELD_COUNT
            KeyPath path
            int i
        event.fields = fields
        event.rest = {}
        event.warnings = []
        self._event = event
        self._owners = owners
        self._has_losers = False
        self._slots_left = MAX_ARRAY_SLOTS
        for i in range(len(paths)):
            path = <KeyPath>paths[i]
            if path.kind == KeyKind.WARNED:
                self._warn(path.warning, path)
            elif path.kind == KeyKind.WRITE_KEY:
                pass
            elif path.root == RootField.PROPERTIES or path.root == RootField.CONTEXT:
                if fields[path.root] is None:
                    fields[path.root] = {}
                self._place(i, path, <dict>fields[path.root], 1)
            elif path.root < RootField.FIELD_COUNT:
                if fields[path.root] is None:
                    fields[path.root] = self._field(i, path.root, is_track)
            elif path.root == RootField.TRAITS:
                if "traits" not in event.rest:
                    event.rest["traits"] = {}
                self._place(i, path, <dict>event.rest["traits"], 1)
            elif path.depth > 1 or path.names[0] not in self._rules.ignore:
                self._place(i, path, event.rest, 0)
        self._event = None
        return event

    cdef object _field(self, int i, int root, bint is_track):
        if not self._makes_slots:
            return self.string_of_parameter(self._query, i)
        if root == RootField.ANONYMOUS_ID or root == RootField.USER_ID:
            return new_slot(SlotKind.IDENTITY_SLOT, i)
        if root == RootField.EVENT and is_track:
            return new_slot(SlotKind.EVENT_NAME_SLOT, i)
        if root == RootField.NAME and not is_track:
            return new_slot(SlotKind.PAGE_NAME_SLOT, i)
        return new_slot(SlotKind.STRING_SLOT, i)

    cdef object _coerced(self, int i, KeyPath path, unsigned int in_arrays, bint is_string):
        cdef Rules rules = self._rules
        cdef bint numbers = rules.numbers and not is_string
        cdef bint booleans = rules.booleans and not is_string
        cdef str string
        if rules.has_overrides:
            place = path.dotted if in_arrays == 0 else _place_of(path, in_arrays)
            if place in rules.strings:
                numbers = booleans = False
            elif place in rules.force_numbers:
                numbers = True
        if self._makes_slots:
            return new_slot(SlotKind.VALUE_SLOT, i, numbers, booleans)
        string = self.string_of_parameter(self._query, i)
        if numbers:
            number = number_of(string)
            if number is not None:
                return number
        if booleans:
            if string == "true":
                return True
            if string == "false":
                return False
        return string

    cdef int _place(self, int i, KeyPath path, dict root, int start) except -1:
        # Walk from `root` along the segments from `start`, making what is missing.
        cdef:
            object container = root
            object child
            PyObject* found
            unsigned int in_arrays = 0  # a bit for each segment that is an index of an array
            int segment, index
            int last = path.depth - 1
            bint is_string = last == 0  # a value at the root is always a string
            str name
        for segment in range(start, path.depth):
            name = <str>path.names[segment]
            index = path.index[segment]
            if type(container) is dict:
                if last > 0:
                    # In an object an index is a name like any other, and not one that means a string.
                    is_string = path.is_string[segment] and index == NAME_SEGMENT
                if segment == last:
                    return self._put_in_object(
                        i, path, <dict>container, name, in_arrays, is_string
                    )
                found = PyDict_GetItem(<dict>container, name)
                child = None if found == NULL else <object>found
                container = self._descend(
                    path, container, name, child, path.index[segment + 1] != NAME_SEGMENT
                )
            else:
                if index == NAME_SEGMENT:
                    return self._warn("not-an-index", path)
                in_arrays |= <unsigned int>1 << segment
                if segment == last:
                    return self._put_in_array(
                        i, path, <list>container, index, in_arrays, is_string
                    )
                if index == APPEND_SEGMENT:
                    index = len(<list>container)
                self._grow(<list>container, index + 1)
                container = self._descend(
                    path,
                    container,
                    index,
                    (<list>container)[index],
                    path.index[segment + 1] != NAME_SEGMENT,
                )
        return 0

    cdef object _descend(
        self, KeyPath path, object container, object name, object child, bint wants_array
    ):
        # The container at `name`; a plain value there gives way to it.
        if type(child) is dict or type(child) is list:
            return child
        if child is not None:
            if self._owners is None:
                self._has_losers = True
            else:
                for owner in self._owners[(id(container), name)]:
                    self._warn("object-or-array-wins", <KeyPath>owner)
        child = [] if wants_array else {}
        container[name] = child
        return child

    cdef int _put_in_object(
        self, int i, KeyPath path, dict container, str name, unsigned int in_arrays, bint is_string
    ) except -1:
        cdef PyObject* found = PyDict_GetItem(container, name)
        if found == NULL:
            container[name] = self._coerced(i, path, in_arrays, is_string)
            return 0 if self._owners is None else self._own(path, container, name)
        return self._keep_first(path, container, name, <object>found)

    cdef int _put_in_array(
        self, int i, KeyPath path, list container, int index, unsigned int in_arrays, bint is_string
    ) except -1:
        if index == APPEND_SEGMENT:
            index = len(container)
        self._grow(container, index + 1)
        if container[index] is None:
            container[index] = self._coerced(i, path, in_arrays, is_string)
            return 0 if self._owners is None else self._own(path, container, index)
        return self._keep_first(path, container, index, container[index])

    cdef int _keep_first(self, KeyPath path, object container, object name, object there) except -1:
        if type(there) is dict or type(there) is list:
            return self._warn("object-or-array-wins", path)
        # Silent; but should a container take the place, each of these was left out too.
        return 0 if self._owners is None else self._own(path, container, name)

    cdef int _own(self, KeyPath path, object container, object name) except -1:
        self._owners.setdefault((id(container), name), []).append(path)
        return 0

    cdef int _grow(self, list container, int size) except -1:
        cdef Py_ssize_t missing = size - len(container)
        if missing <= 0:
            return 0
        self._slots_left -= missing
        if self._slots_left < 0:
            raise RequestError(
                413, "event-too-large", f"arrays of more than {MAX_ARRAY_SLOTS:,} slots together"
            )
        container.extend([None] * missing)
        return 0

    cdef int _warn(self, str reason, KeyPath path) except -1:
        self._event.warnings.append((reason, path.raw))
        return 0


cdef str _place_of(KeyPath path, unsigned int in_arrays):
    # What settings call a place inside an array.
    return ".".join(
        [path.names[i] for i in range(path.depth) if not in_arrays & (<unsigned int>1 << i)]
    )


cdef int _check_identity(Event event, bint is_track) except -1:
    cdef list fields = event.fields
    if fields[RootField.USER_ID] is not None:
        fields[RootField.USER_ID] = trim(<str>fields[RootField.USER_ID]) or None
    if fields[RootField.ANONYMOUS_ID] is not None:
        fields[RootField.ANONYMOUS_ID] = (
            trim(_unquoted(trim(<str>fields[RootField.ANONYMOUS_ID]))) or None
        )
    if fields[RootField.USER_ID] is None and fields[RootField.ANONYMOUS_ID] is None:
        raise RequestError(400, "no-identity", "neither userId nor anonymousId")
    if is_track:
        if fields[RootField.EVENT] is None or not trim(<str>fields[RootField.EVENT]):
            raise RequestError(400, "no-event", "a track call without event")
    elif fields[RootField.NAME] is not None and not <str>fields[RootField.NAME]:
        fields[RootField.NAME] = "Unknown Page"
    return 0


cdef str _unquoted(str name):
    # Without one pair of double quotes: AMP sends them.
    cdef Py_ssize_t last = len(name) - 1
    return name[1:last] if last >= 1 and name[0] == '"' and name[last] == '"' else name
