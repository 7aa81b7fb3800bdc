"""Servers to compare with pixelfast. Each is one process that responds to the same pixels.

`launch` starts them; the other modules run in the rivals' own environment (`requirements.txt`).
"""
