from pixelfast.event.query cimport Slice

cdef enum Route:
    NOT_FOUND = 0
    TRACK = 1
    PAGE = 2
    ROBOTS = 3

cdef Route split_target(Slice target, Slice* query) noexcept
