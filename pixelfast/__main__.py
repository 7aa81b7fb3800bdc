"""Run `pixelfast` as `python -m pixelfast`."""

from pixelfast.cli import main

main()
