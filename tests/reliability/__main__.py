"""`python -m tests.reliability`: what `make torture` runs."""

from __future__ import annotations

import sys

from tests.reliability.campaign import main

sys.exit(main())
