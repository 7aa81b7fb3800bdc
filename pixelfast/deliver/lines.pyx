"""Some lines of NDJSON, without a copy of the others."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr

__all__ = ["line_sizes", "pick_lines"]


def pick_lines(bytes body not None, places):
    return walk(body, places, True)


def line_sizes(bytes body not None, places):
    return walk(body, places, False)


cdef list walk(bytes body, places, bint copies):
    cdef const char* place = PyBytes_AS_STRING(body)
    cdef const char* end = place + PyBytes_GET_SIZE(body)
    cdef const char* line_feed
    cdef Py_ssize_t number = 0, wanted
    cdef list found = []
    for wanted in places:
        if wanted < number:
            raise ValueError(f"line {wanted} comes after line {number - 1}")
        while True:
            line_feed = <const char*>memchr(place, c'\n', end - place)
            if line_feed == NULL:
                raise ValueError(f"line {wanted} does not exist; the body has {number} lines")
            if number == wanted:
                break
            place = line_feed + 1
            number += 1
        if copies:
            found.append(PyBytes_FromStringAndSize(place, line_feed - place))
        else:
            found.append(line_feed - place)
        place = line_feed + 1
        number += 1
    return found
