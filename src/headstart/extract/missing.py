"""Rows of a cache whose images are gone from the folder: dropped in small numbers, kept on request, never lost by mistake."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from headstart.errors import DataError
from headstart.storage.address import Address
from headstart.texts import counted, printable

if TYPE_CHECKING:
    from headstart.extract.known import KnownRows
    from headstart.extract.options import ExtractOptions
    from headstart.extract.plan import Plan
    from headstart.storage.address import Location

#: Share of the rows of a cache that may be dropped unasked.
MAX_DROPPED = 0.5

#: Name, among the provenance of a cache (``info``), of the folder that its images were found in.
SOURCE = "source"


def source_of(root: Location) -> str:
    """Return the address of a folder, or its absolute path without links."""
    return str(root) if isinstance(root, Address) else os.path.realpath(root)


def check_missing(
    sources: Sequence[KnownRows], plan: Plan, root: Location, target: Location, options: ExtractOptions
) -> None:
    """Raise DataError where a run would drop most rows of a cache, or any rows that were made from another folder.

    Parameters
    ----------
    sources : sequence of KnownRows
        The open cache that is to be brought up to date, if there is one, and the shards of an interrupted run.
    plan : Plan
        What the run would do with them.
    root, target : Path or Address
        The folder of images, and the cache.
    options : ExtractOptions
        With ``keep_missing`` rows of the cache are not dropped, and with ``drop_missing`` it was asked for.
    """
    if options.drop_missing:
        return
    for number, source in enumerate(sources):
        origin = other_folder(source, root)
        if isinstance(source.file, Path):
            n_used = len(np.unique(plan.rows[plan.sources == number]))
            if origin and n_used < len(source):
                raise DataError(
                    f"An interrupted run has left {len(source) - n_used:,} images of {origin} for {target}, which are not in "
                    f"{root} and would be dropped. Nothing was changed. End that run first, write to another cache with -o, "
                    "or drop them with --drop-missing."
                )
        elif not options.keep_missing and len(plan.gone) > (0 if origin else MAX_DROPPED * len(source)):
            made_from = f", which was made from another folder ({origin})," if origin else ""
            raise DataError(
                f"{len(plan.gone):,} of the {counted(len(source))} of {target}{made_from} "
                f"{'is' if len(plan.gone) == 1 else 'are'} not in {root}, and their features "
                "would be dropped. Nothing was changed. Write to another cache with -o, keep these rows with "
                "--keep-missing, or drop them with --drop-missing."
            )


def other_folder(source: KnownRows, root: Location) -> str:
    """Return the folder that rows were made from, where it is known and another one than now; else nothing."""
    known = str(source.info.get(SOURCE, ""))
    return "" if known in ("", source_of(root)) else printable(known)
