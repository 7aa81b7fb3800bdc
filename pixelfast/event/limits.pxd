# The size limits of a pixel and its event. docs/pixel.md lists them.

cdef enum:
    MAX_TARGET_BYTES = 32768    # as in RudderStack's gateway; nginx's default is 8 KB
    MAX_PARAMETERS = 256
    MAX_SEGMENTS = 32           # of a key
    MAX_INDEX = 63              # of an array; a larger number is a name
    MAX_EVENT_BYTES = 32768     # of its JSON
    # Each array slot takes at least two bytes of JSON, so an event with more slots would exceed its
    # size limit anyway. Without this limit a query of 32 KB could create 500,000 slots.
    MAX_ARRAY_SLOTS = MAX_EVENT_BYTES // 2
