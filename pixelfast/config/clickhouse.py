"""Settings of ClickHouse that an insert must not have."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pixelfast.config.tables import Table
from pixelfast.errors import ConfigError

__all__ = ["clickhouse_clashes"]

# Names of settings, and why an insert must not have them.
_RESERVED = {
    re.compile(pattern): reason
    for pattern, reason in (
        (
            r"(wait_for_)?async_insert.*",
            "an event counts as delivered once it is written, not once it is queued",
        ),
        (r".*dedup.*", "pixelfast sets it so that a retry stores no row twice"),
        (r"wait_end_of_query", "pixelfast sets it so that no error follows the status 200"),
        (
            r"input_format_skip_unknown_fields|date_time_input_format",
            "pixelfast sets it so that every event of a pixel can be read",
        ),
        (r"input_format_allow_errors_.*", "ClickHouse would discard rows without an error"),
        (
            r"(max|min)_insert_block_size.*",
            "an insert must be one block, so that it is stored as a whole or not at all",
        ),
        (
            r"query|query_id|database|default_format|user|password|quota_key|role|readonly|profile"
            r"|session_.*|(de)?compress|param_.*|buffer_size|stacktrace",
            "it is a parameter of the HTTP interface, or belongs to the user's profile",
        ),
    )
}


def clickhouse_clashes(database: Table) -> Iterator[ConfigError]:
    """Yield the settings of ClickHouse that an insert must not have."""
    for name in database.get("settings") or ():
        for pattern, reason in _RESERVED.items():
            if pattern.fullmatch(name):
                yield ConfigError(f"{database.path}.settings.{name}", None, f"remove it: {reason}")
                break
