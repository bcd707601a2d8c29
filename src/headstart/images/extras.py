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
        What it is needed for, as the subject of a sentence in the singular: ``64-bit float``, ``HEIC``.

    Raises
    ------
    ImageError
        If it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImageError(
            f'{kind} is not supported without the extra {extra}: pip install "headstart[{extra}]", or convert it to 8-bit '
            "JPEG, PNG or TIFF"
        ) from error
