"""The meaning of a request without a response: usually a retry, sometimes a wrong setting."""

from __future__ import annotations

import os
import ssl

import aiohttp

from pixelfast.deliver.http.bounds import ResponseTooCostly
from pixelfast.deliver.http.guard import AddressBlocked
from pixelfast.deliver.outcomes import Held, Retry
from pixelfast.tls import describe_tls, is_about_certificates

__all__ = ["outcome_of_failure"]


def outcome_of_failure(error: Exception, total_s: float, connect_s: float) -> Retry | Held:
    """Return the outcome of a request that raised this exception of aiohttp.

    Reasons contain the host and port but never the URL, because its query may be a secret.

    A destination is held for a blocked address, an invalid URL, or a certificate that one side does
    not accept. Held destinations are retried slowly, so a renewed certificate ends the hold.
    """
    cause: BaseException | None = error.__cause__
    where = ""
    if isinstance(error, aiohttp.ClientConnectorError):
        cause, where = error.os_error, f"{error.host}:{error.port}: "
    for each in (cause, error):
        if isinstance(each, AddressBlocked):
            return Held(f"blocked address: {each}")
        if isinstance(each, ssl.SSLError):
            reason = where + describe_tls(each)
            return Held(reason) if is_about_certificates(each) else Retry(reason)
    if isinstance(error, ResponseTooCostly):
        return Retry(str(error))
    if isinstance(error, aiohttp.InvalidURL):
        return Held("the host of the URL is not a valid host name or IP address")
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return Retry(f"no connection within {connect_s:g} s")
    if isinstance(error, TimeoutError):
        return Retry(f"no response within {total_s:g} s")
    if isinstance(error, aiohttp.ClientConnectorError):
        return Retry(where + (error.os_error.strerror or type(error.os_error).__name__))
    if isinstance(error, OSError) and error.errno:
        return Retry(os.strerror(error.errno))  # aiohttp's own message contains the URL
    if isinstance(error, aiohttp.ClientResponseError):
        return Retry("the response is not valid HTTP")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return Retry("the connection was closed without a response")
    return Retry(type(error).__name__)
