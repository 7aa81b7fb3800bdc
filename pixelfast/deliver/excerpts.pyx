"""Many byte strings in one buffer, without an object for each of them."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from "<endian.h>" nogil:
    uint32_t htole32(uint32_t)
    uint32_t le32toh(uint32_t)

__all__ = ["Excerpts"]

cdef enum:
    MIN_CAPACITY = 16


cdef class Excerpts:
    @staticmethod
    def of(parts):
        cdef list distinct = []
        cdef list places = []       # of each part in `distinct`
        cdef bytes part, last = None
        cdef Excerpts every, found
        for part in parts:
            if part is not last or not distinct:
                distinct.append(part)
                last = part
            places.append(len(distinct) - 1)
        every = Excerpts.inside(b"\n".join(distinct))
        cdef Py_ssize_t start = 0
        for part in distinct:
            every.add(start, start + PyBytes_GET_SIZE(part))
            start += PyBytes_GET_SIZE(part) + 1
        return every if len(places) == every.count else every.picked(places)

    @staticmethod
    cdef Excerpts inside(bytes buffer):
        """Return no excerpts yet; `add` adds them in the order of their positions."""
        cdef Excerpts made = Excerpts.__new__(Excerpts)
        made.buffer = buffer
        return made

    def __dealloc__(self):
        PyMem_Free(self.bounds)

    cdef int add(self, Py_ssize_t start, Py_ssize_t end) except -1:
        cdef Py_ssize_t capacity
        cdef void* grown
        if self.count == self.capacity:
            capacity = max(MIN_CAPACITY, 2 * self.capacity)
            grown = PyMem_Realloc(self.bounds, capacity * 2 * sizeof(Py_ssize_t))
            if grown == NULL:
                raise MemoryError()
            self.bounds = <Py_ssize_t*>grown
            self.capacity = capacity
        self.bounds[2 * self.count] = start
        self.bounds[2 * self.count + 1] = end
        self.count += 1
        return 0

    cdef int check(self, Py_ssize_t start, Py_ssize_t stop) except -1:
        if not 0 <= start <= stop <= self.count:
            raise IndexError(f"excerpts {start} to {stop} of {self.count}")
        return 0

    def __len__(self):
        return self.count

    def __iter__(self):
        cdef Py_ssize_t index
        return iter([self.copy(index) for index in range(self.count)])

    def __getitem__(self, Py_ssize_t index):
        self.check(index, index + 1)
        return self.copy(index)

    cdef bytes copy(self, Py_ssize_t index):
        cdef const char* start = PyBytes_AS_STRING(self.buffer) + self.bounds[2 * index]
        return PyBytes_FromStringAndSize(start, self.size(index))

    def __eq__(self, other):
        return list(self) == list(other) if isinstance(other, (Excerpts, list)) else NotImplemented

    __hash__ = None

    def __repr__(self):
        return f"Excerpts.of({list(self)})"

    def start_of(self, Py_ssize_t index):
        self.check(index, index + 1)
        return self.bounds[2 * index]

    def end_of(self, Py_ssize_t index):
        self.check(index, index + 1)
        return self.bounds[2 * index + 1]

    def index_at(self, Py_ssize_t position):
        cdef Py_ssize_t low = 0, high = self.count, middle
        while low < high:
            middle = (low + high) // 2
            if self.bounds[2 * middle + 1] <= position:
                low = middle + 1
            else:
                high = middle
        return low

    def span(self, Py_ssize_t start, Py_ssize_t stop):
        self.check(start, stop)
        if start == stop:
            return b""
        return self.buffer[self.bounds[2 * start]:self.bounds[2 * stop - 1]]

    def sizes(self):
        cdef Py_ssize_t index
        return [self.size(index) for index in range(self.count)]

    def picked(self, places):
        cdef Excerpts some = Excerpts.inside(self.buffer)
        cdef Py_ssize_t place
        for place in places:
            self.check(place, place + 1)
            some.add(self.bounds[2 * place], self.bounds[2 * place + 1])
        return some

    def fitting(self, Py_ssize_t start, Py_ssize_t max_bytes, Py_ssize_t each_bytes):
        cdef Py_ssize_t index, size_bytes = 0
        self.check(start, self.count)
        for index in range(start, self.count):
            size_bytes += each_bytes + self.size(index)
            if size_bytes > max_bytes and index > start:
                return index
        return self.count

    def joined(self, Py_ssize_t start, Py_ssize_t stop, bytes separator=b""):
        cdef Py_ssize_t index, size, total = 0
        cdef Py_ssize_t between = PyBytes_GET_SIZE(separator)
        cdef bytes whole
        cdef char* place
        self.check(start, stop)
        for index in range(start, stop):
            total += self.size(index)
        if stop > start:
            total += (stop - start - 1) * between
        whole = PyBytes_FromStringAndSize(NULL, total)
        place = PyBytes_AS_STRING(whole)
        for index in range(start, stop):
            if index > start and between:
                memcpy(place, PyBytes_AS_STRING(separator), between)
                place += between
            size = self.size(index)
            memcpy(place, PyBytes_AS_STRING(self.buffer) + self.bounds[2 * index], size)
            place += size
        return whole

    def folded(
        self,
        Py_ssize_t start,
        Py_ssize_t max_bytes,
        Py_ssize_t each_bytes,
        Excerpts others not None,
    ):
        cdef Py_ssize_t index, size, first_size, before, behind, stop = start
        cdef Py_ssize_t size_bytes = 0, own_bytes = 0
        cdef const char* text = PyBytes_AS_STRING(self.buffer)
        cdef const char* first
        cdef const char* each
        cdef uint32_t* divisions
        cdef uint32_t* division
        cdef char* place
        cdef bytes own
        self.check(start, start + 1)
        others.check(start, self.count)
        first, first_size = text + self.bounds[2 * start], self.size(start)
        divisions = <uint32_t*>PyMem_Malloc((self.count - start) * 3 * sizeof(uint32_t))
        if divisions == NULL:
            raise MemoryError()
        try:
            division = divisions
            for index in range(start, self.count):
                each, size = text + self.bounds[2 * index], self.size(index)
                before = behind = 0
                if index > start:
                    before = same_before(first, each, min(size, first_size))
                    behind = same_behind(
                        first + first_size, each + size, min(size, first_size) - before
                    )
                size -= before + behind
                size_bytes += each_bytes + size + others.size(index)
                if size_bytes > max_bytes and index > start:
                    break
                division[0] = htole32(<uint32_t>before)
                division[1] = htole32(<uint32_t>behind)
                division[2] = htole32(<uint32_t>size)
                division += 3
                own_bytes += size
                stop = index + 1
            own = PyBytes_FromStringAndSize(NULL, own_bytes)
            place = PyBytes_AS_STRING(own)
            division = divisions
            for index in range(start, stop):
                size = le32toh(division[2])
                memcpy(place, text + self.bounds[2 * index] + le32toh(division[0]), size)
                place += size
                division += 3
            return (
                stop,
                PyBytes_FromStringAndSize(<char*>divisions, <char*>division - <char*>divisions),
                own,
            )
        finally:
            PyMem_Free(divisions)


cdef inline uint64_t word(const char* place) noexcept nogil:
    cdef uint64_t value
    memcpy(&value, place, sizeof(value))
    return value


cdef Py_ssize_t same_before(const char* one, const char* two, Py_ssize_t limit) noexcept nogil:
    """Return how many bytes are the same from here on."""
    cdef Py_ssize_t n = 0
    while n + 8 <= limit and word(one + n) == word(two + n):
        n += 8
    while n < limit and one[n] == two[n]:
        n += 1
    return n


cdef Py_ssize_t same_behind(const char* one, const char* two, Py_ssize_t limit) noexcept nogil:
    """Return how many bytes are the same up to here."""
    cdef Py_ssize_t n = 0
    while n + 8 <= limit and word(one - n - 8) == word(two - n - 8):
        n += 8
    while n < limit and one[-n - 1] == two[-n - 1]:
        n += 1
    return n
