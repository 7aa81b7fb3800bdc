"""The commands, one module for each; `pixelfast.cli` assembles them.

`options`, `running`, `tables`, `lines`, `startup` and `demo` are shared by several commands.
"""
