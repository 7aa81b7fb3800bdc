# Every limit of a request, and of what a connection may hold.

from pixelfast.event.limits cimport MAX_TARGET_BYTES

cdef enum:
    MAX_HEADERS = 100
    MAX_HEADER_BYTES = 32768
    MAX_HEAD_BYTES = MAX_TARGET_BYTES + MAX_HEADER_BYTES + 1024  # the rest of the request line
    MAX_BODY_BYTES = 65536
    MAX_FRAMING_BYTES = 7 * MAX_BODY_BYTES  # of a body in chunks; chunks of one byte take 5
    MAX_ORIGIN_BYTES = 512      # a longer one is not echoed
    MAX_RESPONSE_BYTES = 32768  # owed by one connection; over it nothing more is read
