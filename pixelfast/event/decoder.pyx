"""Decode the parameters of a query into the nested event: places, numbers, identities and times.

`Decoder` stores each value in the place that its key names, according to the `Rules` of the source.
"""

from cpython.dict cimport PyDict_GetItem
from cpython.ref cimport PyObject

from pixelfast.event.keys cimport APPEND_SEGMENT, NAME_SEGMENT, KeyKind, KeyPath, RootField
from pixelfast.event.limits cimport MAX_ARRAY_SLOTS, MAX_SEGMENTS
from pixelfast.event.numbers cimport number_of
from pixelfast.event.placeholders cimport is_placeholder
from pixelfast.event.query cimport Query
from pixelfast.event.strings cimport decode_string, trim
from pixelfast.event.template cimport SlotKind, new_slot
from pixelfast.event.times cimport read_time

from pixelfast.errors import RequestError

__all__ = ["Rules"]


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
        keeps_placeholders=False,
    ):
        self.numbers = numbers
        self.booleans = booleans
        self.strings = frozenset(strings)
        self.force_numbers = frozenset(force_numbers)
        self.ignore = frozenset(ignore)
        self.fill = frozenset(fill)
        self.keeps_placeholders = keeps_placeholders
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
        rules.keeps_placeholders,
    )


cdef class Event:
    pass


cdef class Decoder:

    cdef Event decode(self, Query* query, list paths, Rules rules, bint is_track):
        cdef Event event
        self._makes_slots = False
        event = self._build_all(query, paths, rules, is_track)
        _check_required(event, is_track)
        return event

    cdef Event decode_slots(self, Query* query, list paths, Rules rules, bint is_track):
        # Build the event with slots in place of its values. Values are not checked.
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
        if self._has_displaced:
            # Build again and track the owner of each value, so that the displaced parameters can be
            # named. This is rare, so the first pass does not pay for it.
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
        self._blank_times = []
        self._repeats = []
        self._tried_times = 0
        self._owners = owners
        self._has_displaced = False
        self._slots_left = MAX_ARRAY_SLOTS
        for i in range(len(paths)):
            path = <KeyPath>paths[i]
            if path.is_escaped:
                self._warn("html-escaped", path)
            if path.kind == KeyKind.WARNED:
                self._warn(path.warning, path)
            elif path.kind == KeyKind.WRITE_KEY:
                pass
            elif path.root == RootField.PROPERTIES or path.root == RootField.CONTEXT:
                if fields[path.root] is None:
                    fields[path.root] = {}
                self._place(i, path, <dict>fields[path.root], 1)
            elif path.root < RootField.FIELD_COUNT:
                if self._makes_slots:
                    event.has_repeated_field |= fields[path.root] is not None
                    fields[path.root] = new_slot(_slot_kind(path.root, is_track), i)
                elif not fields[path.root]:
                    fields[path.root] = self._usable(i, path)
            elif path.root == RootField.TRAITS:
                if "traits" not in event.rest:
                    event.rest["traits"] = {}
                self._place(i, path, <dict>event.rest["traits"], 1)
            elif path.depth > 1 or path.names[0] not in self._rules.ignore:
                self._place(i, path, event.rest, 0)
        if self._blank_times:
            self._warn_of_blank_times()
        if self._repeats:
            self._warn_of_repeats()
        self._event = None
        return event

    cdef str _usable(self, int i, KeyPath path):
        # Return the event's value of a string field at the root, or an empty string or None. A
        # later parameter replaces an empty value: forms and templates send an empty field before
        # the real one.
        cdef str string = self.string_of_parameter(self._query, i)
        cdef str trimmed = trim(string)
        cdef int root = path.root
        if root == RootField.EVENT or root == RootField.NAME:
            return trimmed
        if root >= RootField.ORIGINAL_TIMESTAMP:
            return self._usable_time(trimmed, path)
        if root == RootField.CHANNEL:
            return string if trimmed else None
        if root == RootField.ANONYMOUS_ID:
            trimmed = trim(_unquoted(trimmed))
        if not trimmed:
            return None
        if root == RootField.ANONYMOUS_ID or root == RootField.USER_ID:
            if not self._rules.keeps_placeholders:
                if is_placeholder(trimmed, self._query.values[i]):
                    self._event.has_placeholder = True
                    self._warn("placeholder", path)
                    return None
        return trimmed

    cdef str _usable_time(self, str trimmed, KeyPath path):
        cdef int place = path.root - RootField.ORIGINAL_TIMESTAMP
        cdef str time
        if not trimmed:
            self._blank_times.append(path)
            return None
        self._tried_times |= 1 << place
        time = read_time(trimmed, &self._event.times_us[place])
        if time is None:
            self._warn("invalid-time", path)
        return time

    cdef int _warn_of_blank_times(self) except -1:
        # Warn once for each time field that has only blank values.
        cdef KeyPath path
        cdef int place
        for path in self._blank_times:
            place = path.root - RootField.ORIGINAL_TIMESTAMP
            if not self._tried_times & (1 << place):
                self._tried_times |= 1 << place
                self._warn("invalid-time", path)
        return 0

    cdef int _warn_of_repeats(self) except -1:
        # If an object or array displaced the values, each of them already has a warning.
        for container, name, path in self._repeats:
            if type(container[name]) is not dict and type(container[name]) is not list:
                self._warn("repeated-array-name", <KeyPath>path)
        return 0

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
        # Store the value of parameter `i`: follow the segments of `path` from `start` on, beginning
        # at `root`, and create missing containers.
        cdef:
            object container = root
            object child
            PyObject* found
            unsigned int in_arrays = 0  # a bit for each segment that is an array index
            int segment, index
            int last = path.depth - 1
            bint is_string = last == 0  # a value at the root is always a string
            str name
        for segment in range(start, path.depth):
            name = <str>path.names[segment]
            index = path.index[segment]
            if type(container) is dict:
                if last > 0:
                    # An index is an ordinary name in an object, and such a name may hold a number.
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
                    return self._warn("invalid-index", path)
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
        # Return the container at `name`, created if necessary. It displaces a plain value.
        if type(child) is dict or type(child) is list:
            return child
        if child is not None:
            if self._owners is None:
                self._has_displaced = True
            else:
                for owner in self._owners[(id(container), name)]:
                    self._warn("value-conflict", <KeyPath>owner)
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
            return self._warn("value-conflict", path)
        if path.has_brackets:
            self._repeats.append((container, name, path))
        # There is no warning, unless a container displaces the first value: then it displaces this
        # one, too.
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
                413, "event-too-large", f"arrays have more than {MAX_ARRAY_SLOTS:,} slots in total"
            )
        container.extend([None] * missing)
        return 0

    cdef int _warn(self, str reason, KeyPath path) except -1:
        self._event.warnings.append((reason, path.raw))
        return 0


cdef str _place_of(KeyPath path, unsigned int in_arrays):
    # Return the name that settings use for a place: the segments without array indexes.
    return ".".join(
        [path.names[i] for i in range(path.depth) if not in_arrays & (<unsigned int>1 << i)]
    )


cdef int _check_required(Event event, bint is_track) except -1:
    cdef list fields = event.fields
    if fields[RootField.USER_ID] is None and fields[RootField.ANONYMOUS_ID] is None:
        if event.has_placeholder:
            raise RequestError(
                400,
                "placeholder-identity",
                "userId and anonymousId are missing, or are placeholders that no template replaced",
            )
        raise RequestError(400, "no-identity", "userId and anonymousId are both missing or empty")
    if is_track:
        if not fields[RootField.EVENT]:
            raise RequestError(400, "no-event", "a track call requires event")
    elif fields[RootField.NAME] is not None and not <str>fields[RootField.NAME]:
        fields[RootField.NAME] = "Unknown Page"
    return 0


cdef SlotKind _slot_kind(int root, bint is_track):
    if root == RootField.ANONYMOUS_ID or root == RootField.USER_ID:
        return SlotKind.IDENTITY_SLOT
    if root == RootField.MESSAGE_ID:
        return SlotKind.GIVEN_ID_SLOT
    if root == RootField.ORIGINAL_TIMESTAMP:
        return SlotKind.ORIGINAL_TIME_SLOT
    if root == RootField.SENT_AT:
        return SlotKind.SENT_TIME_SLOT
    if root == RootField.TIMESTAMP:
        return SlotKind.TIMESTAMP_SLOT
    if root == RootField.EVENT and not is_track:
        return SlotKind.TRIMMED_SLOT
    if root == RootField.NAME and is_track:
        return SlotKind.TRIMMED_SLOT
    return SlotKind.NAME_SLOT


cdef str _unquoted(str name):
    # Remove one pair of double quotes: AMP sends ids in quotes.
    cdef Py_ssize_t last = len(name) - 1
    return name[1:last] if last >= 1 and name[0] == '"' and name[last] == '"' else name
