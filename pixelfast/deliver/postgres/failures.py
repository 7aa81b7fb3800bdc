"""The meaning of an error: a bad event, a wrong setting, or an unavailable server."""

from __future__ import annotations

import os
import socket
import ssl

import asyncpg

from pixelfast.deliver.outcomes import Held, Rejected, Retry
from pixelfast.tls import TlsFileError, describe_tls, is_about_certificates

__all__ = [
    "OTHER_CLASSES",
    "error_message",
    "is_of_rows",
    "lacks_index",
    "outcome_of_failure",
    "rejected",
]

_KEPT_BYTES = 1024  # of the server's message, for dead letters

# Classes of SQLSTATE whose errors are not caused by events, from Appendix A of PostgreSQL's
# documentation. All others are: values that do not fit (22), violated constraints (23, 44), limits
# (54), errors in triggers and functions (20, 21, 2F, 38, 39, P0), and classes that PostgreSQL does
# not use, because a trigger may raise any code.
OTHER_CLASSES = frozenset(
    {
        *("00", "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "10", "24", "25"),
        *("26", "27", "28", "2B", "2D", "34", "3B", "3D", "3F", "40", "42", "53", "55", "57", "58"),
        *("72", "F0", "HV", "XX"),
    }
)
# The classes among them whose errors are caused by the settings. Errors of the others are retried:
# they describe a problem of the connection, the server or its machine.
_SETTINGS_CLASSES = frozenset(
    {
        "0A",  # feature not supported
        "28",  # invalid authorization: no such user, wrong password, no entry in pg_hba.conf
        "3D",  # no such database
        "3F",  # no such schema
        "42",  # access rule violation: no permission, no such table or column
    }
)
_NOT_IN_STATE = "55000"  # a view that cannot be inserted into, a database that does not connect
_NO_UNIQUE_INDEX = "42P10"
_CHECK_VIOLATION = "23514"
_NO_PRIVILEGE = "42501"
_CHECKS_POLICIES = "ExecWithCheckOptions"  # the function of the server that checks them
_COPY_FORMAT = "22P04"
_NO_INDEX = "the table has no unique index on message_id, or on message_id and received_at"
_NO_PARTITION = "create the partition, or a default one"


def is_of_rows(error: asyncpg.PostgresError) -> bool:
    """Whether rows of a batch cause the error.

    The server reports a missing partition, which no event causes, as the violation of a constraint
    without a name. An error with the same code that a trigger raises names no table either. A row
    that violates a policy has the code of a missing permission.
    """
    code = error.sqlstate or ""
    if code == _CHECK_VIOLATION:
        return bool(error.constraint_name) or not error.table_name
    if code == _NO_PRIVILEGE:
        return error.server_source_function == _CHECKS_POLICIES
    return bool(code) and code[:2] not in OTHER_CLASSES


def lacks_index(error: asyncpg.PostgresError) -> bool:
    """Whether the table has no unique index on the columns of ON CONFLICT."""
    return error.sqlstate == _NO_UNIQUE_INDEX


def rejected(code: str, said: str) -> Rejected:
    """Return the outcome of an event for which the server reported an error."""
    reason = f"SQLSTATE {code}"
    if code == _COPY_FORMAT:  # it contains a delimiter of rows or columns
        reason += ": the event is not valid JSON"
    return Rejected(reason, response=said.encode("utf-8", "replace")[:_KEPT_BYTES])


def error_message(error: asyncpg.PostgresError) -> str:
    """Return the server's message and its details."""
    return "\n".join(filter(None, (error.message or str(error), error.detail)))


def outcome_of_failure(error: Exception, where: str) -> Retry | Held | Rejected | None:
    """Return the outcome of a batch that failed with this exception, or None for a bug.

    `where` is the server's address.
    """
    if isinstance(error, asyncpg.PostgresError):
        return _of_server(error)
    if isinstance(error, TlsFileError):
        return Held(str(error))
    if isinstance(error, ssl.SSLError):
        reason = f"{where}: {describe_tls(error)}"
        return Held(reason) if is_about_certificates(error) else Retry(reason)
    if isinstance(error, ConnectionError) and "rejected SSL upgrade" in str(error):
        return Held(f'{where}: the server does not support TLS; enable it, or set tls = "disable"')
    if isinstance(error, socket.gaierror):
        return Retry(f"{where}: {error.strerror}")
    if isinstance(error, OSError):
        said = os.strerror(error.errno) if error.errno else str(error) or type(error).__name__
        return Retry(f"{where}: {said}")
    if isinstance(error, asyncpg.UnsupportedServerFeatureError | asyncpg.ClientConfigurationError):
        return Held(f"{where}: {error}")
    if isinstance(error, asyncpg.InternalClientError):  # after the server ended the session
        return Retry(f"{where}: the connection is not usable: {error}")
    if isinstance(error, asyncpg.InterfaceError):
        return Retry(f"{where}: {error}")
    return None


def _of_server(error: asyncpg.PostgresError) -> Retry | Held | Rejected:
    code, said = error.sqlstate or "", error_message(error)
    if is_of_rows(error):
        return rejected(code, said)
    response = said.encode("utf-8", "replace")[:_KEPT_BYTES]
    reason = f"SQLSTATE {code}: {error.message or error}"
    if lacks_index(error):
        return Held(f"SQLSTATE {code}: {_NO_INDEX}", response=response)
    if code == _CHECK_VIOLATION:
        return Held(f"{reason}; {_NO_PARTITION}", response=response)
    if code[:2] in _SETTINGS_CLASSES or code == _NOT_IN_STATE:
        return Held(reason, response=response)
    return Retry(reason, response=response)
