# The limits of a request and of a connection.

from pixelfast.event.limits cimport MAX_TARGET_BYTES

cdef enum:
    MAX_HEADERS = 100
    MAX_HEADER_BYTES = 32768
    # 1024 bytes for the rest of the request line.
    MAX_HEAD_BYTES = MAX_TARGET_BYTES + MAX_HEADER_BYTES + 1024
    MAX_BODY_BYTES = 65536
    MAX_FRAMING_BYTES = 7 * MAX_BODY_BYTES  # of a chunked body; a 1-byte chunk has 5
    MAX_ORIGIN_BYTES = 512      # a longer Origin is not echoed
    MAX_RESPONSE_BYTES = 32768  # owed by one connection, which stops reading there
