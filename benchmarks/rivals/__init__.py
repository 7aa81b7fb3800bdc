"""What pixelfast is measured against: each a server of one process that answers the same pixels.

`launch` starts them; the other modules run in the rivals' own environment (`requirements.txt`).
"""
