"""pixelfast: a pixel collector that answers 200 when the event is on the disk."""

from __future__ import annotations

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("pixelfast")
