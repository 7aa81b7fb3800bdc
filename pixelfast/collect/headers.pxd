# The headers that the collector uses, and how each is handled.
#
#     header              scan (plain GET requests)       reader (all other requests)
#     User-Agent          kept                            first one kept
#     Accept-Language     kept                            first one kept
#     Referer             kept                            first one kept
#     Origin              kept                            last one kept
#     X-Real-IP           kept *1                         last non-empty one kept *1
#     X-Forwarded-For     kept *1                         all joined and kept *1
#     message id header   kept *1                         last non-empty one kept *1
#     Host                required once, must be a host   at most once, must be a host *2
#     Connection          accepted once, `keep-alive`     `keep-alive` is echoed
#     Expect              left to the reader              `100-continue` is honoured
#     Content-Length      left to the reader              limits the body
#     Transfer-Encoding   left to the reader              closes an HTTP/1.0 connection
#     Upgrade             left to the reader              handled by the parser
#     Proxy-Connection    left to the reader              handled by the parser
#
#     *1 only if the peer is a trusted proxy
#     *2 required in HTTP/1.1
#
# The scan leaves a request to the reader if a header that it keeps is duplicated. The setting
# `server.message_id_header` names the message id header, so `header_in` recognizes it.

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
    # checked by both
    HOST
    CONNECTION
    # about the connection or the body: the scan leaves such requests to the reader
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
    # Compare lengths first: most headers match none of these names.
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
