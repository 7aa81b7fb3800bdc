"""pixelfast: a pixel collector that answers 200 when the event is on the disk."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
