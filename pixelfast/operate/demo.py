"""The source of a first try: where the settings name none, there is one with its own key."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import msgspec

from pixelfast.config import Config, Source, WriteKey

__all__ = ["demo_key_path", "new_write_key", "with_demo_source"]


def new_write_key(kind: str = "live") -> str:
    """A write key that nobody guesses: 192 random bits."""
    return f"wk_{kind}_{secrets.token_urlsafe(24)}"


def demo_key_path(data_dir: str | Path) -> Path:
    return Path(data_dir) / "demo-write-key"


def with_demo_source(config: Config, data_dir: str | Path) -> Config:
    """Add the source `demo` where the settings name no source.

    Its key is made at the first start and kept in the data directory.
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
    source = Source(name="demo", write_keys=(WriteKey(key=key),))
    return msgspec.structs.replace(config, sources=(source,))
