"""The dot-notation decoder and numeric coercer: from a query to the nested event.

Two steps, because the write key decides how its query is read: `Decoder.split` finds the parameters
and the write key, `Decoder.decode` builds the event by the rules of the source.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.long cimport PyLong_FromLongLong
from cpython.ref cimport PyObject
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.string cimport memchr

from pixelfast.event.identity cimport trim, trim_anonymous_id
from pixelfast.event.keypath cimport (
    APPEND_SEGMENT,
    NAME_SEGMENT,
    KeyKind,
    KeyPath,
    RootField,
    decode_text,
    key_path,
)

from pixelfast.errors import RequestError

__all__ = ["Decoder", "Event", "Rules"]

cdef enum:
    # Every slot of an array takes two bytes of JSON or more, so an event with more slots than this
    # can't be within its size limit; without the bound 32 KB of query made 500,000 slots.
    MAX_ARRAY_SLOTS = 16384

cdef long long MAX_SAFE_INTEGER = 9007199254740991  # 2^53 - 1
cdef double[16] _POWERS_OF_TEN
cdef int _i
for _i in range(16):
    _POWERS_OF_TEN[_i] = 10.0 ** _i


cdef class Rules:

    def __init__(
        self,
        *,
        numbers=True,
        booleans=False,
        strings=(),
        force_numbers=(),
        ignore=("_", "z", "cb", "rand"),
    ):
        self.numbers = numbers
        self.booleans = booleans
        self.strings = frozenset(strings)
        self.force_numbers = frozenset(force_numbers)
        self.ignore = frozenset(ignore)
        self.has_overrides = bool(self.strings or self.force_numbers)


cdef class Event:

    def __init__(self, str type not None):
        self.type = type
        self.fields = [None] * RootField.FIELD_COUNT
        self.rest = {}
        self.warnings = []

    def to_dict(self):
        return event_dict(self)


cdef dict event_dict(Event event):
    # Without the server's additions, in the order that events have.
    cdef list fields = event.fields
    cdef dict result = {"type": event.type}
    if fields[RootField.ANONYMOUS_ID] is not None:
        result["anonymousId"] = fields[RootField.ANONYMOUS_ID]
    if fields[RootField.USER_ID] is not None:
        result["userId"] = fields[RootField.USER_ID]
    if fields[RootField.EVENT] is not None:
        result["event"] = fields[RootField.EVENT]
    if fields[RootField.NAME] is not None:
        result["name"] = fields[RootField.NAME]
    if fields[RootField.PROPERTIES] is not None:
        result["properties"] = fields[RootField.PROPERTIES]
    if fields[RootField.CONTEXT] is not None:
        result["context"] = fields[RootField.CONTEXT]
    if event.rest:
        result.update(event.rest)
    return result


cdef class Decoder:

    def __cinit__(self):
        self._whole = b""
        self._paths = [None] * MAX_PARAMETERS
        self._write_key = -1

    cpdef int split(self, bytes query) except -1:
        return self.split_slice(query, 0, PyBytes_GET_SIZE(query))

    cdef int split_slice(self, bytes whole, Py_ssize_t first, Py_ssize_t after) except -1:
        cdef:
            const char* start = PyBytes_AS_STRING(whole) + first
            const char* end = PyBytes_AS_STRING(whole) + after
            const char* stop
            const char* equals
            KeyPath path
            int count = 0
        self._whole = whole  # keeps the bytes alive that _values points into
        self._count = 0
        self._write_key = -1
        self._too_deep = False
        if after - first > MAX_TARGET_BYTES:
            raise RequestError(
                414,
                "target-too-long",
                f"query is {after - first:,} bytes, limit {MAX_TARGET_BYTES:,}",
            )
        while start < end:
            stop = <const char*>memchr(start, c'&', end - start)
            if stop == NULL:
                stop = end
            if stop > start:
                if count == MAX_PARAMETERS:
                    raise RequestError(
                        400, "too-many-parameters", f"more than {MAX_PARAMETERS} parameters"
                    )
                equals = <const char*>memchr(start, c'=', stop - start)
                if equals == NULL:
                    equals = stop
                path = key_path(start, equals - start)
                self._paths[count] = path
                self._values[count] = equals + 1 if equals < stop else stop
                self._lengths[count] = stop - self._values[count]
                if path.kind == KeyKind.WRITE_KEY and self._write_key < 0:
                    self._write_key = count
                elif path.kind == KeyKind.TOO_DEEP:
                    self._too_deep = True
                count += 1
            start = stop + 1
        self._count = count
        return count

    cpdef str write_key(self):
        return None if self._write_key < 0 else self._text(self._write_key)

    cpdef Event decode(self, Rules rules, bint is_track):
        cdef Event event
        if self._too_deep:
            raise RequestError(400, "too-deep", "a parameter has more than 32 segments")
        self._rules = rules
        event = self._build(is_track, None)
        if self._has_losers:
            # Rare, so only now: once more, remembering who owns what, to name those that give way.
            event = self._build(is_track, {})
        _check_identity(event, is_track)
        return event

    cdef Event _build(self, bint is_track, dict owners):
        cdef:
            Event event = Event.__new__(Event)
            list fields = [None] * RootField.FIELD_COUNT
            KeyPath path
            int i
        event.type = "track" if is_track else "page"
        event.fields = fields
        event.rest = {}
        event.warnings = []
        self._event = event
        self._owners = owners
        self._has_losers = False
        self._slots_left = MAX_ARRAY_SLOTS
        for i in range(self._count):
            path = <KeyPath>self._paths[i]
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
                    fields[path.root] = self._text(i)
            elif path.root == RootField.TRAITS:
                if "traits" not in event.rest:
                    event.rest["traits"] = {}
                self._place(i, path, <dict>event.rest["traits"], 1)
            elif path.depth > 1 or path.names[0] not in self._rules.ignore:
                self._place(i, path, event.rest, 0)
        self._event = None
        return event

    cdef str _text(self, int i):
        return decode_text(self._values[i], self._lengths[i], self._scratch)

    cdef object _coerced(self, int i, KeyPath path, unsigned int in_arrays, bint is_textual):
        cdef Rules rules = self._rules
        cdef str text = self._text(i)
        cdef bint numbers = rules.numbers and not is_textual
        if rules.has_overrides:
            place = path.dotted if in_arrays == 0 else place_of(path, in_arrays)
            if place in rules.strings:
                return text
            if place in rules.force_numbers:
                numbers = True
        if numbers:
            number = number_of(text)
            if number is not None:
                return number
        if rules.booleans and not is_textual:
            if text == "true":
                return True
            if text == "false":
                return False
        return text

    cdef int _place(self, int i, KeyPath path, dict root, int start) except -1:
        # Walk from `root` along the segments from `start`, making what is missing.
        cdef:
            object container = root
            object child
            PyObject* found
            unsigned int in_arrays = 0  # a bit for each segment that is an index of an array
            int segment, index
            int last = path.depth - 1
            bint is_textual = last == 0  # a value at the root is always a text
            str name
        for segment in range(start, path.depth):
            name = <str>path.names[segment]
            index = path.index[segment]
            if type(container) is dict:
                if last > 0:
                    # An index is a name like any other in an object, and no textual one.
                    is_textual = path.is_textual[segment] and index == NAME_SEGMENT
                if segment == last:
                    return self._put_in_object(
                        i, path, <dict>container, name, in_arrays, is_textual
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
                        i, path, <list>container, index, in_arrays, is_textual
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
        self, int i, KeyPath path, dict container, str name, unsigned int in_arrays, bint is_textual
    ) except -1:
        cdef PyObject* found = PyDict_GetItem(container, name)
        if found == NULL:
            container[name] = self._coerced(i, path, in_arrays, is_textual)
            return 0 if self._owners is None else self._own(path, container, name)
        return self._keep_first(path, container, name, <object>found)

    cdef int _put_in_array(
        self, int i, KeyPath path, list container, int index, unsigned int in_arrays, bint is_textual
    ) except -1:
        if index == APPEND_SEGMENT:
            index = len(container)
        self._grow(container, index + 1)
        if container[index] is None:
            container[index] = self._coerced(i, path, in_arrays, is_textual)
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
            raise RequestError(413, "event-too-large", "arrays of more than 16,384 slots together")
        container.extend([None] * missing)
        return 0

    cdef int _warn(self, str reason, KeyPath path) except -1:
        self._event.warnings.append((reason, path.raw))
        return 0


cdef str place_of(KeyPath path, unsigned int in_arrays):
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
            trim_anonymous_id(<str>fields[RootField.ANONYMOUS_ID]) or None
        )
    if fields[RootField.USER_ID] is None and fields[RootField.ANONYMOUS_ID] is None:
        raise RequestError(400, "no-identity", "neither userId nor anonymousId")
    if is_track:
        if fields[RootField.EVENT] is None or not trim(<str>fields[RootField.EVENT]):
            raise RequestError(400, "no-event", "a track call without event")
    elif fields[RootField.NAME] is not None and not <str>fields[RootField.NAME]:
        fields[RootField.NAME] = "Unknown Page"
    return 0


cdef object number_of(str text):
    # The number a text stands for, or None: what a double carries without loss.
    cdef:
        Py_ssize_t length, i = 0
        const char* digits = PyUnicode_AsUTF8AndSize(text, &length)
        bint negative = False
        long long value = 0
        int before, after
    if length == 0 or length > 17 or digits[0] > c'9':
        return None
    if digits[0] == c'-':
        negative = True
        i = 1
    before = i
    while i < length and c'0' <= digits[i] <= c'9':
        value = value * 10 + (digits[i] - c'0')
        i += 1
    before = <int>i - before
    if before == 0 or (before > 1 and digits[i - before] == c'0'):
        return None
    if i == length:
        if value > MAX_SAFE_INTEGER or (negative and value == 0):
            return None
        return PyLong_FromLongLong(-value if negative else value)
    if digits[i] != c'.':
        return None
    i += 1
    after = <int>i
    while i < length and c'0' <= digits[i] <= c'9':
        value = value * 10 + (digits[i] - c'0')
        i += 1
    after = <int>i - after
    if i != length or after == 0 or before + after > 15:
        return None
    # Both fit a double exactly, so one division rounds correctly (Clinger 1990, the fast path).
    return (-1.0 if negative else 1.0) * (<double>value / _POWERS_OF_TEN[after])
