"""Strings of JSON, where they stand."""

from libc.string cimport memchr


cdef inline const char* closing_quote(const char* start, const char* end) noexcept nogil:
    """Return the quote that ends a string, or NULL if it has no end."""
    cdef const char* quote = start
    cdef const char* before
    while True:
        quote = <const char*> memchr(quote, c'"', end - quote)
        if quote == NULL:
            return NULL
        before = quote
        while before > start and (before - 1)[0] == c'\\':
            before -= 1
        if (quote - before) % 2 == 0:
            return quote
        quote += 1
