"""The meaning of an error of the client library: usually a retry, or a wrong setting.

obstore raises exceptions whose messages contain the response. They end in a dump of the library's
own structs, by which network errors can be distinguished.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from pixelfast.deliver.outcomes import Held, Retry

__all__ = ["most_serious", "outcome_of_error"]

_KEPT_BYTES = 1024  # of a response, for the log and dead letters
_MAX_WORDS = 300
_STATUS = re.compile(r"Server returned non-2xx status code: (\d{3})[^:\n]{0,40}: ?(.*)", re.DOTALL)
_CODE = re.compile(r"<Code>([^<]{1,100})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,1000})</Message>")
_REQUEST = re.compile(r"Error performing [A-Z]+ (\S+) in ")
_HOST = re.compile(r"https?://([^/?\s]+)")
_BUSY = frozenset({408, 425, 429})
_LASTING_5XX = frozenset({501, 505})
# Codes of "Error responses" in the API reference of Amazon S3 that a retry can resolve, whatever
# their status: the request was damaged or cut off on its way, or competed with another one.
_TEMPORARY_CODES = frozenset(
    {
        "BadDigest",
        "ConditionalRequestConflict",
        "IncompleteBody",
        "InternalError",
        "InvalidPart",
        "InvalidPartOrder",
        "NoSuchUpload",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "XAmzContentChecksumMismatch",
        "XAmzContentSHA256Mismatch",
    }
)
_KINDS = {
    "Connect": "cannot connect",
    "Interrupted": "the connection was lost",
    "Decode": "the response is not valid HTTP",
}
_SYSTEM_WORDS = re.compile(r'(?:message|error): "([^"\\]{1,200})"')
_CERTIFICATE = re.compile(r"(InvalidCertificate|invalid peer certificate)\W*(\w*)")


def outcome_of_error(error: BaseException, name: str, timeout_s: float) -> Retry | Held:
    """Return the outcome of a request about the object `name` that raised this exception.

    A store is held for all responses that blame the request: wrong credentials, a missing bucket
    or permission, a wrong region. No event is to blame, because events are opaque to a store.
    """
    message, _, dump = str(error).partition("\n\nDebug source:")
    status = _STATUS.search(message)
    request = _REQUEST.search(message)
    if request is not None and name.rpartition("/")[2] not in request[1]:
        return Held(f"no credentials: {_words(message, dump, timeout_s)}")
    if status is not None:
        return _outcome_of_status(int(status[1]), status[2])
    if "ETag Header missing" in message:
        return Retry("the response is not one of an object store: it has no ETag")
    if (found := _CERTIFICATE.search(dump)) is not None:
        return Held(f"the server's certificate is not accepted: {found[2] or found[1]}")
    if "inner: Http(" in dump and "BadScheme" not in dump:
        return Retry(_words(message, dump, timeout_s))
    return Held(_words(message, dump, timeout_s))


def most_serious(failures: Sequence[Retry | Held]) -> Retry | Held:
    """Return the outcome of a batch with these failures: `Held` if one of them is.

    >>> most_serious([Retry("status 503"), Held("status 403")]).reason
    'status 403'
    """
    return next((each for each in failures if isinstance(each, Held)), failures[0])


def _outcome_of_status(status: int, body: str) -> Retry | Held:
    code, words = _CODE.search(body), _MESSAGE.search(body)
    reason = f"status {status}"
    if code is not None:
        reason += f", {html.unescape(code[1])}"
    if words is not None:
        reason += f": {html.unescape(words[1])[:_MAX_WORDS]}"
    response = body.encode("utf-8", "replace")[:_KEPT_BYTES]
    is_server_error = status >= 500 and status not in _LASTING_5XX
    is_temporary = code is not None and code[1] in _TEMPORARY_CODES
    if is_temporary or is_server_error or status in _BUSY:
        return Retry(reason, 0.0, status, response)
    return Held(reason, status, response)


def _words(message: str, dump: str, timeout_s: float) -> str:
    """Return what is known about a request without a response, without its URL."""
    request = _REQUEST.search(message)
    host = _HOST.match(request[1]) if request is not None else None
    where = f"{host[1]}: " if host is not None else ""
    kind = re.search(r"HttpError \{\s*kind: (\w+)", dump)
    if kind is None:
        text = message.rpartition(" - ")[2] if request is not None else message
        return where + text[:_MAX_WORDS]
    if kind[1] == "Timeout":
        return f"{where}no response within {timeout_s:g} s"
    said = _SYSTEM_WORDS.search(dump)
    words = _KINDS.get(kind[1], "the request failed")
    return f"{where}{words}: {said[1]}" if said is not None else where + words
