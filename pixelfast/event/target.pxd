cdef enum Route:
    NOT_FOUND = 0
    TRACK = 1
    PAGE = 2
    ROBOTS = 3

cdef Route split_target(bytes target, Py_ssize_t* query, Py_ssize_t* query_end) noexcept
