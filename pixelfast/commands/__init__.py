"""Groups of commands that look at what is stored; `pixelfast.cli` has the others."""
