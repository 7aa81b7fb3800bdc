# A response as a value, and the queue of responses that a connection owes, in the order of its
# requests. A response is rendered once, when it is written.

from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from libc.stdint cimport int64_t
from libc.string cimport memmove

cdef enum:
    # The maximum size of a rendered response, whatever its content.
    MAX_PIXEL_BYTES = 436       # without CORS headers
    MAX_PREFLIGHT_BYTES = 288
    MAX_TEXT_BYTES = 320
    MAX_CORS_BYTES = 88         # without the origin itself
    FIRST_CAPACITY = 2          # most connections have one request at a time
    MAX_EMPTY_CAPACITY = 16     # that an empty queue keeps

cdef enum Kind:
    PIXEL
    PREFLIGHT
    ROBOTS
    NOT_FOUND
    HEALTH
    CONTINUE

cdef struct Response:
    int64_t ticket              # of the event it waits for; 0 if it is ready
    PyObject* reason            # str for X-Pixelfast-Error, owned; NULL if there is no error
    PyObject* origin            # bytes for Access-Control-Allow-Origin, owned; NULL for no CORS
    int retry_after_s           # 0 for no Retry-After
    short status
    unsigned char kind          # Kind
    unsigned char connection    # KEEP, KEEP_SAID or CLOSE of `responses`
    unsigned char is_head       # the request was HEAD, so there is no body
    int64_t read_ns             # when the request was read; 0 if its duration is not measured

cdef struct ResponseQueue:
    Response* all
    int capacity
    int first                   # index of the oldest response in `all`
    int count
    int searched                # position where the last ticket was found
    Py_ssize_t size_bytes       # maximum size of the rendered responses


cdef inline Response new_response(Kind kind, int status, int connection) noexcept:
    return Response(0, NULL, NULL, 0, status, kind, connection, False, 0)


cdef inline PyObject* owned(object value) noexcept:
    Py_INCREF(value)
    return <PyObject*>value


cdef inline void free_response(Response* response) noexcept:
    Py_XDECREF(response.reason)
    Py_XDECREF(response.origin)
    response.reason = response.origin = NULL


cdef inline Py_ssize_t max_bytes(const Response* response) noexcept:
    cdef Py_ssize_t size = MAX_TEXT_BYTES
    if response.kind == Kind.PIXEL:
        size = MAX_PIXEL_BYTES
    elif response.kind == Kind.PREFLIGHT:
        size = MAX_PREFLIGHT_BYTES
    if response.origin != NULL:
        size += MAX_CORS_BYTES + PyBytes_GET_SIZE(<bytes>response.origin)
    return size


cdef inline int push_response(ResponseQueue* queue, Response response) except -1:
    # The queue takes ownership of the response's references.
    if queue.first + queue.count == queue.capacity:
        grow_queue(queue)
    queue.all[queue.first + queue.count] = response
    queue.count += 1
    queue.size_bytes += max_bytes(&response)
    return 0


cdef inline int grow_queue(ResponseQueue* queue) except -1:
    cdef int capacity = queue.capacity * 2 or FIRST_CAPACITY
    cdef void* larger
    if queue.first > 0:
        memmove(queue.all, queue.all + queue.first, queue.count * sizeof(Response))
        queue.first = 0
        return 0
    larger = PyMem_Realloc(queue.all, capacity * sizeof(Response))
    if larger == NULL:
        raise MemoryError()
    queue.all = <Response*>larger
    queue.capacity = capacity
    return 0


cdef inline Response* response_at(ResponseQueue* queue, int place) noexcept:
    # `place` counts from the oldest response.
    return &queue.all[queue.first + place]


cdef inline Response* find_response(ResponseQueue* queue, int64_t ticket) noexcept:
    # Return the response that waits for a ticket, or NULL. Tickets are nearly always acknowledged
    # in order, so the search starts at the last one found.
    cdef int i, place
    for i in range(queue.count):
        place = (queue.searched + i) % queue.count
        if queue.all[queue.first + place].ticket == ticket:
            queue.searched = place
            return &queue.all[queue.first + place]
    return NULL


cdef inline int ready_responses(ResponseQueue* queue) noexcept:
    # Return the number of responses before the first that waits.
    cdef int count = 0
    while count < queue.count and queue.all[queue.first + count].ticket == 0:
        count += 1
    return count


cdef inline void drop_responses(ResponseQueue* queue, int count) noexcept:
    # Remove the oldest responses.
    cdef int place
    for place in range(queue.first, queue.first + count):
        queue.size_bytes -= max_bytes(&queue.all[place])
        free_response(&queue.all[place])
    queue.count -= count
    queue.first += count
    queue.searched = 0
    if queue.count == 0:
        queue.first = 0
        if queue.capacity > MAX_EMPTY_CAPACITY:
            free_queue(queue)


cdef inline void free_queue(ResponseQueue* queue) noexcept:
    # Remove all responses and free the memory.
    cdef int place
    for place in range(queue.first, queue.first + queue.count):
        free_response(&queue.all[place])
    PyMem_Free(queue.all)
    queue.all = NULL
    queue.capacity = queue.first = queue.count = queue.searched = 0
    queue.size_bytes = 0
