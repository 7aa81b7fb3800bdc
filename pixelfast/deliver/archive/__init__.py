"""The archive of a `file` destination: file names, disk space, compression and deletion."""
