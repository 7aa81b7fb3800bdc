"""Packages that settings require, and the extras of pixelfast that install them."""

from __future__ import annotations

import importlib.util

__all__ = ["is_installed", "missing_package"]


def missing_package(extra: str, *packages: str) -> str:
    """Return what is wrong if one of the packages of an extra is not installed, otherwise "".

    >>> missing_package("nothing", "msgspec", "no_such_package")
    "requires the package no-such-package: pip install 'pixelfast[nothing]'"
    >>> missing_package("nothing", "msgspec")
    ''
    """
    for package in packages:
        if not is_installed(package):
            name = package.replace("_", "-").replace(".", "-")
            return f"requires the package {name}: pip install 'pixelfast[{extra}]'"
    return ""


def is_installed(package: str) -> bool:
    """Whether a package can be imported; does not import it, unless it is inside of another."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False
