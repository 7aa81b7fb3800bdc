from libc.stdint cimport int64_t

from pixelfast.event.decoder cimport Event

cdef dict complete(
    Event event, int64_t received_ms, str request_ip, str user_agent, dict fill
)
cpdef bytes encode_event(
    Event event, int64_t received_ms, str request_ip, str user_agent, dict fill
)
