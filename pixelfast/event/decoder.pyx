"""The dot-notation decoder and numeric coercer: from a query to the nested event.

Two steps, because the write key decides how its query is read: `Decoder.split` finds the parameters
and the write key, `Decoder.decode` builds the event by the rules of the source.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.ref cimport PyObject

from pixelfast.event.identity cimport trim, trim_anonymous_id
from pixelfast.event.keypath cimport APPEND_SEGMENT, NAME_SEGMENT, KeyKind, KeyPath, RootField
from pixelfast.event.numbers cimport number_of
from pixelfast.event.query cimport Query
from pixelfast.event.shape cimport shape_of
from pixelfast.event.template cimport SlotKind, new_slot
from pixelfast.event.text cimport decode_text

from pixelfast.errors import RequestError

__all__ = ["Decoder", "Event", "Rules"]

cdef enum:
    # Every slot of an array takes two bytes of JSON or more, so an event with more slots than this
    # can't be within its size limit; without the bound 32 KB of query made 500,000 slots.
    MAX_ARRAY_SLOTS = 16384

cdef int _rules_made = 0


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
        global _rules_made
        _rules_made += 1
        self.number = _rules_made
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
        self._query = Query()
        self._query.split(b"", 0)
        self._empty = self._shape = shape_of(self._query)

    def split(self, bytes query not None):
        self._kept = query  # its parameters point into it
        return self.split_at(PyBytes_AS_STRING(query), PyBytes_GET_SIZE(query))

    cdef int split_at(self, const char* query, Py_ssize_t length) except -1:
        self._shape = self._empty
        self._query.split(query, length)
        self._shape = shape_of(self._query)
        return self._query.count

    cpdef str write_key(self):
        if self._shape.write_key < 0:
            return None
        return self._text(self._shape.write_key)

    cpdef Event decode(self, Rules rules, bint is_track):
        cdef Event event
        self._makes_slots = False
        event = self._build_all(rules, is_track)
        _check_identity(event, is_track)
        return event

    cdef Event decode_slots(self, Rules rules, bint is_track):
        # The event with slots for its values: what is checked of them is not checked here.
        self._makes_slots = True
        return self._build_all(rules, is_track)

    cdef Event _build_all(self, Rules rules, bint is_track):
        cdef Event event
        if self._shape.is_too_deep:
            raise RequestError(400, "too-deep", "a parameter has more than 32 segments")
        self._rules = rules
        event = self._build(is_track, None)
        if self._has_losers:
            # Rare, so only now: once more, remembering who owns what, to name those that give way.
            event = self._build(is_track, {})
        return event

    cdef Event _build(self, bint is_track, dict owners):
        cdef:
            Event event = Event.__new__(Event)
            list fields = [None] * RootField.FIELD_COUNT
            list paths = self._shape.paths
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

    cdef str _text(self, int i):
        return decode_text(
            self._query.values[i].at, self._query.values[i].length, self._scratch
        )

    cdef object _field(self, int i, int root, bint is_track):
        if not self._makes_slots:
            return self._text(i)
        if root == RootField.ANONYMOUS_ID or root == RootField.USER_ID:
            return new_slot(SlotKind.IDENTITY_SLOT, i)
        if root == RootField.EVENT and is_track:
            return new_slot(SlotKind.EVENT_NAME_SLOT, i)
        if root == RootField.NAME and not is_track:
            return new_slot(SlotKind.PAGE_NAME_SLOT, i)
        return new_slot(SlotKind.TEXT_SLOT, i)

    cdef object _coerced(self, int i, KeyPath path, unsigned int in_arrays, bint is_textual):
        cdef Rules rules = self._rules
        cdef bint numbers = rules.numbers and not is_textual
        cdef bint booleans = rules.booleans and not is_textual
        cdef str text
        if rules.has_overrides:
            place = path.dotted if in_arrays == 0 else place_of(path, in_arrays)
            if place in rules.strings:
                numbers = booleans = False
            elif place in rules.force_numbers:
                numbers = True
        if self._makes_slots:
            return new_slot(SlotKind.VALUE_SLOT, i, numbers, booleans)
        text = self._text(i)
        if numbers:
            number = number_of(text)
            if number is not None:
                return number
        if booleans:
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
