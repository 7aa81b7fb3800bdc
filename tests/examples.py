"""The number of examples of the largest hypothesis tests, by the profile of the run."""

from __future__ import annotations

import os

from hypothesis import settings

_DIVISORS = {"long": 1, "default": 5, "first-failure": 5, "short": 20}


def examples(count: int) -> settings:
    """Return the decorator of a test that has `count` examples under `make torture`.

    `make test` runs a fifth of them; builds with a sanitizer or line tracing run a twentieth.
    """
    profile = os.environ.get("HYPOTHESIS_PROFILE", "default")
    return settings(max_examples=count // _DIVISORS[profile])
