"""The demo source, with which pixelfast runs without settings."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from pixelfast.commands.key import new_write_key
from pixelfast.config import Config, Source, WriteKey
from pixelfast.config.schema import DEMO_SOURCE

__all__ = ["demo_key_path", "with_demo_source"]


def demo_key_path(data_dir: str | Path) -> Path:
    """Return the path of the file with the write key of the demo source."""
    return Path(data_dir) / "demo-write-key"


def with_demo_source(config: Config, data_dir: str | Path) -> Config:
    """Add the source `demo` to settings without a source; return other settings unchanged.

    The write key is created at the first start and kept in the data directory.
    """
    if config.sources:
        return config
    path = demo_key_path(data_dir)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    else:
        with os.fdopen(fd, "w") as file:
            file.write(new_write_key("demo") + "\n")
    key = path.read_text().strip()
    source = Source(name=DEMO_SOURCE, write_keys=(WriteKey(key=key),))
    return msgspec.structs.replace(config, sources=(source,))
