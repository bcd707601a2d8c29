"""Rows of a cache whose images are gone from the folder: dropped in small numbers, kept on request, never lost by mistake."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from headstart.errors import DataError
from headstart.storage.address import Address
from headstart.texts import printable

if TYPE_CHECKING:
    from headstart.cache.store import FeatureCache
    from headstart.extract.options import ExtractOptions
    from headstart.storage.address import Location

#: Share of the rows of a cache that may be dropped unasked.
MAX_DROPPED = 0.5

#: Name, among the provenance of a cache (``info``), of the folder that its images were found in.
SOURCE = "source"


def source_of(root: Location) -> str:
    """Return the address of a folder, or its absolute path without links."""
    return str(root) if isinstance(root, Address) else os.path.realpath(root)


def check_missing(old: FeatureCache, n_gone: int, root: Location, options: ExtractOptions) -> None:
    """Raise DataError where a run would drop most rows of a cache, or any rows of one that was made from another folder.

    Parameters
    ----------
    old : FeatureCache
        The cache that is to be brought up to date.
    n_gone : int
        Its rows whose images are gone.
    root : Path or Address
        The folder of images.
    options : ExtractOptions
        With ``keep_missing`` nothing is dropped, and with ``drop_missing`` it was asked for.
    """
    source = str(old.info.get(SOURCE, ""))
    is_other = source not in ("", source_of(root))
    if not n_gone or options.keep_missing or options.drop_missing:
        return
    if n_gone <= MAX_DROPPED * old.n_images and not is_other:
        return
    origin = f", which was made from another folder ({printable(source)})," if is_other else ""
    raise DataError(
        f"{n_gone:,} of the {old.n_images:,} images of {old.path}{origin} are not in {root}, and their features would be "
        "dropped. Nothing was changed. Write to another cache with -o, keep these rows with --keep-missing, or drop them "
        "with --drop-missing."
    )
