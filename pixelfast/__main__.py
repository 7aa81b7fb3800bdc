"""`python -m pixelfast` is the command `pixelfast`."""

from pixelfast.cli import main

main()
