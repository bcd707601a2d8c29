"""Readers that an optional extra brings; the message where it is not installed."""

from __future__ import annotations

import importlib
from typing import Any

from headstart.errors import ImageError


def import_reader(module: str, *, extra: str, kind: str) -> Any:
    """Return an optional module that reads images of a kind.

    Parameters
    ----------
    module : str
        Name of the module, as ``tifffile``.
    extra : str
        The extra of headstart that brings it, as ``microscopy``.
    kind : str
        What it is needed for, as the subject of a sentence: ``64-bit float``, ``5 channels``, ``HEIC``.

    Raises
    ------
    ImageError
        If it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImageError(
            f"{kind} {verb_of(kind)} not supported without the extra {extra}: "
            f'pip install "headstart[{extra}]", or convert it to JPEG, PNG or TIFF of 8 bits'
        ) from error


def verb_of(kind: str) -> str:
    """Return ``are`` for a plural, as ``5 channels``, else ``is``."""
    return "are" if kind.endswith(("channels", "values")) else "is"
