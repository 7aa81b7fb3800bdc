from libc.stdint cimport int64_t

from pixelfast.event.decoder cimport Decoder, Event, Rules
from pixelfast.event.template cimport Template

cdef dict complete(
    Event event, int64_t received_ms, str request_ip, str user_agent, dict fill
)
cdef Template template_for(Decoder decoder, Rules rules, bint is_track, bint has_user_agent)
cpdef bytes encode_event(
    Event event, int64_t received_ms, str request_ip, str user_agent, dict fill
)
