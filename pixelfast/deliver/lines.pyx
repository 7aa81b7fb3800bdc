"""Some lines of NDJSON, without a copy of any."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memchr

from pixelfast.deliver.excerpts cimport Excerpts

__all__ = ["pick_lines"]


def pick_lines(bytes body not None, places):
    cdef const char* start = PyBytes_AS_STRING(body)
    cdef const char* place = start
    cdef const char* end = start + PyBytes_GET_SIZE(body)
    cdef const char* line_feed
    cdef Py_ssize_t number = 0, wanted
    cdef Excerpts found = Excerpts.inside(body)
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
        found.add(place - start, line_feed - start)
        place = line_feed + 1
        number += 1
    return found
