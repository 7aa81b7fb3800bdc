"""What a `file` destination keeps on its disk: names, room, compression, and what is deleted."""
