# The headers that matter, each once: its name, and what becomes of it.
#
#     header              by the scan, of a plain GET     by the reader, of any request
#     User-Agent          kept                            kept, the first
#     Accept-Language     kept                            kept, the first
#     Referer             kept                            kept, the first
#     Origin              kept                            kept, the last
#     X-Real-IP           kept, of a trusted proxy        kept, the last that is not empty, of one
#     X-Forwarded-For     kept, of a trusted proxy        kept, all joined, of a trusted proxy
#     the message id's    kept, of a trusted proxy        kept, the last that is not empty, of one
#     Host                must be there once, a host      must be a host; once in HTTP/1.1
#     Connection          the reader's                    `keep-alive` is answered
#     Expect              the reader's                    `100-continue` is answered
#     Content-Length      the reader's                    bounds the body
#     Transfer-Encoding   the reader's                    closes an HTTP/1.0 connection
#     Upgrade             the reader's                    the parser's
#     Proxy-Connection    the reader's                    the parser's
#
# The scan leaves a request to the reader if a header that it keeps is duplicated. The message id's
# header has its name from the settings (`server.message_id_header`): `header_in` knows it.

from posix.strings cimport strncasecmp

cdef enum Header:
    OTHER_HEADER
    # kept by the scan and the reader
    USER_AGENT
    ACCEPT_LANGUAGE
    REFERER
    ORIGIN
    X_REAL_IP
    X_FORWARDED_FOR
    MESSAGE_ID
    # counted by both
    HOST
    # about the connection or the body: the scan takes no request with one of them
    CONNECTION
    EXPECT
    CONTENT_LENGTH
    TRANSFER_ENCODING
    UPGRADE
    PROXY_CONNECTION

cdef extern from *:
    """
    /* RFC 9110 section 5.6.2 */
    static const unsigned char IS_TOKEN[256] = {
        ['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1, ['&'] = 1, ['\\''] = 1, ['*'] = 1, ['+'] = 1,
        ['-'] = 1, ['.'] = 1, ['^'] = 1, ['_'] = 1, ['`'] = 1, ['|'] = 1, ['~'] = 1,
        ['0' ... '9'] = 1, ['A' ... 'Z'] = 1, ['a' ... 'z'] = 1,
    };
    """
    const unsigned char[256] IS_TOKEN


cdef inline Header header_of(const char* name, Py_ssize_t length) noexcept nogil:
    # By length first: most headers match no name here.
    if length == 10:
        if strncasecmp(name, b"user-agent", 10) == 0:
            return Header.USER_AGENT
        if strncasecmp(name, b"connection", 10) == 0:
            return Header.CONNECTION
    elif length == 15:
        if strncasecmp(name, b"accept-language", 15) == 0:
            return Header.ACCEPT_LANGUAGE
        if strncasecmp(name, b"x-forwarded-for", 15) == 0:
            return Header.X_FORWARDED_FOR
    elif length == 7:
        if strncasecmp(name, b"referer", 7) == 0:
            return Header.REFERER
        if strncasecmp(name, b"upgrade", 7) == 0:
            return Header.UPGRADE
    elif length == 4:
        if strncasecmp(name, b"host", 4) == 0:
            return Header.HOST
    elif length == 6:
        if strncasecmp(name, b"origin", 6) == 0:
            return Header.ORIGIN
        if strncasecmp(name, b"expect", 6) == 0:
            return Header.EXPECT
    elif length == 9:
        if strncasecmp(name, b"x-real-ip", 9) == 0:
            return Header.X_REAL_IP
    elif length == 14:
        if strncasecmp(name, b"content-length", 14) == 0:
            return Header.CONTENT_LENGTH
    elif length == 17:
        if strncasecmp(name, b"transfer-encoding", 17) == 0:
            return Header.TRANSFER_ENCODING
    elif length == 16:
        if strncasecmp(name, b"proxy-connection", 16) == 0:
            return Header.PROXY_CONNECTION
    return Header.OTHER_HEADER
