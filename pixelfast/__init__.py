"""pixelfast: a pixel collector that responds with 200 once the event is on disk."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
