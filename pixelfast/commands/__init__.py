"""One module a command; `pixelfast.cli` assembles them.

`options`, `tables`, `lines`, `startup` and `demo` are what several commands share.
"""
