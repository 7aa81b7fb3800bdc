# A response as a value, from the request until it is written; and the responses that a connection
# owes, in the order of its requests. Bytes are made of them once, when they go out.

from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from libc.stdint cimport int64_t
from libc.string cimport memmove

cdef enum:
    # The most that a response takes when it is written, whatever it says by then.
    MOST_PIXEL_BYTES = 436      # without an origin
    MOST_PREFLIGHT_BYTES = 288
    MOST_TEXT_BYTES = 320
    MOST_CORS_BYTES = 88        # beside the origin itself
    FIRST_ROOM = 2              # most connections have one request under way
    MOST_KEPT_ROOM = 16         # of an empty queue

cdef enum Kind:
    PIXEL
    PREFLIGHT
    ROBOTS
    NOT_FOUND
    HEALTH
    CONTINUE

cdef struct Response:
    int64_t ticket              # of the event that it waits for; 0: it is ready
    PyObject* reason            # str of X-Pixelfast-Error, owned; NULL: no error
    PyObject* origin            # bytes of Access-Control-Allow-Origin, owned; NULL: no CORS
    int retry_after_s           # 0: no Retry-After
    short status
    unsigned char kind          # Kind
    unsigned char connection    # what it says of the connection, as `responses` numbers it
    unsigned char is_head       # the request was HEAD: no body
    int64_t read_ns             # when the request had been read; 0: its duration is not measured

cdef struct ResponseQueue:
    Response* all
    int room
    int first                   # of `all`, the oldest
    int count
    int searched                # where the last ticket stood
    Py_ssize_t size_bytes       # the most that the responses take when they are written


cdef inline Response new_response(Kind kind, int status, int connection) noexcept:
    return Response(0, NULL, NULL, 0, status, kind, connection, False, 0)


cdef inline PyObject* owned(object value) noexcept:
    Py_INCREF(value)
    return <PyObject*>value


cdef inline void free_response(Response* response) noexcept:
    Py_XDECREF(response.reason)
    Py_XDECREF(response.origin)
    response.reason = response.origin = NULL


cdef inline Py_ssize_t most_bytes(const Response* response) noexcept:
    cdef Py_ssize_t most = MOST_TEXT_BYTES
    if response.kind == Kind.PIXEL:
        most = MOST_PIXEL_BYTES
    elif response.kind == Kind.PREFLIGHT:
        most = MOST_PREFLIGHT_BYTES
    if response.origin != NULL:
        most += MOST_CORS_BYTES + PyBytes_GET_SIZE(<bytes>response.origin)
    return most


cdef inline int push_response(ResponseQueue* queue, Response response) except -1:
    # The queue owns what the response owns.
    if queue.first + queue.count == queue.room:
        make_room(queue)
    queue.all[queue.first + queue.count] = response
    queue.count += 1
    queue.size_bytes += most_bytes(&response)
    return 0


cdef inline int make_room(ResponseQueue* queue) except -1:
    cdef int room = queue.room * 2 or FIRST_ROOM
    cdef void* larger
    if queue.first > 0:
        memmove(queue.all, queue.all + queue.first, queue.count * sizeof(Response))
        queue.first = 0
        return 0
    larger = PyMem_Realloc(queue.all, room * sizeof(Response))
    if larger == NULL:
        raise MemoryError()
    queue.all = <Response*>larger
    queue.room = room
    return 0


cdef inline Response* response_at(ResponseQueue* queue, int place) noexcept:
    # Counted from the oldest.
    return &queue.all[queue.first + place]


cdef inline Response* find_response(ResponseQueue* queue, int64_t ticket) noexcept:
    # The response that waits for a ticket; NULL if none does. Tickets come in order, so the search
    # goes on behind the last one.
    cdef int i, place
    for i in range(queue.count):
        place = (queue.searched + i) % queue.count
        if queue.all[queue.first + place].ticket == ticket:
            queue.searched = place
            return &queue.all[queue.first + place]
    return NULL


cdef inline int ready_responses(ResponseQueue* queue) noexcept:
    # How many may go out: those before the first that waits.
    cdef int count = 0
    while count < queue.count and queue.all[queue.first + count].ticket == 0:
        count += 1
    return count


cdef inline void drop_responses(ResponseQueue* queue, int count) noexcept:
    # Forget the oldest.
    cdef int place
    for place in range(queue.first, queue.first + count):
        queue.size_bytes -= most_bytes(&queue.all[place])
        free_response(&queue.all[place])
    queue.count -= count
    queue.first += count
    queue.searched = 0
    if queue.count == 0:
        queue.first = 0
        if queue.room > MOST_KEPT_ROOM:
            free_queue(queue)


cdef inline void free_queue(ResponseQueue* queue) noexcept:
    # Forget all of them, and give their memory back.
    cdef int place
    for place in range(queue.first, queue.first + queue.count):
        free_response(&queue.all[place])
    PyMem_Free(queue.all)
    queue.all = NULL
    queue.room = queue.first = queue.count = queue.searched = 0
    queue.size_bytes = 0
