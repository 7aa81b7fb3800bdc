# The size limits of a pixel and its event, each once. docs/pixel.md lists them.

cdef enum:
    MAX_TARGET_BYTES = 32768    # as RudderStack's gateway; nginx's default is 8 KB
    MAX_PARAMETERS = 256
    MAX_SEGMENTS = 32           # of a key
    MAX_INDEX = 63              # of an array; the next number is a name
    MAX_EVENT_BYTES = 32768     # of its JSON
    # Every slot of an array takes at least two bytes of JSON, so an event with more slots than this
    # exceeds its size limit; without the bound, a query of 32 KB made 500,000 slots.
    MAX_ARRAY_SLOTS = MAX_EVENT_BYTES // 2
