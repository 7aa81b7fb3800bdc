"""What it means when no response came: mostly to try again, at times a mistake in the settings."""

from __future__ import annotations

import os
import ssl

import aiohttp

from pixelfast.deliver.http.bounds import ResponseTooCostly
from pixelfast.deliver.http.guard import AddressBlocked
from pixelfast.deliver.http.tls import describe_tls, is_about_certificates
from pixelfast.deliver.outcomes import Held, Retry

__all__ = ["outcome_of_failure"]


def outcome_of_failure(error: Exception, total_s: float, connect_s: float) -> Retry | Held:
    """Tell from an exception of aiohttp what became of a request.

    Reasons never hold the URL: its query may be a secret. They do name host and port.

    Held: an address that is not connected to, a URL that is none, a certificate that is not
    accepted on one side. A certificate may be renewed on either side; held destinations are tried
    again slowly, so nothing is lost.
    """
    cause: BaseException | None = error.__cause__
    where = ""
    if isinstance(error, aiohttp.ClientConnectorError):
        cause, where = error.os_error, f"{error.host}:{error.port}: "
    for each in (cause, error):
        if isinstance(each, AddressBlocked):
            return Held(f"not connected to: {each}")
        if isinstance(each, ssl.SSLError):
            reason = where + describe_tls(each)
            return Held(reason) if is_about_certificates(each) else Retry(reason)
    if isinstance(error, ResponseTooCostly):
        return Retry(str(error))
    if isinstance(error, aiohttp.InvalidURL):
        return Held("the URL's host is no name and no address")
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return Retry(f"no connection within {connect_s:g} s")
    if isinstance(error, TimeoutError):
        return Retry(f"no response within {total_s:g} s")
    if isinstance(error, aiohttp.ClientConnectorError):
        return Retry(where + (error.os_error.strerror or type(error.os_error).__name__))
    if isinstance(error, OSError) and error.errno:
        return Retry(os.strerror(error.errno))  # aiohttp's own text has the URL in it
    if isinstance(error, aiohttp.ClientResponseError):
        return Retry("the response is not valid HTTP")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return Retry("the connection was closed without a response")
    return Retry(type(error).__name__)
