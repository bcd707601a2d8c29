"""Extraction: a folder of images and the name of a cache → a run, alone with the cache."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from headstart.cache.folder import is_cache
from headstart.extract.destination import destination
from headstart.extract.network import Network
from headstart.extract.options import ExtractionSummary, ExtractOptions, Progress, Silence
from headstart.extract.run import Run
from headstart.images.csv_rows import TABLE_SUFFIXES
from headstart.images.discover import discover
from headstart.storage.address import Address, Location, location


def extract_features(
    data: str | Location,
    output: str | Location | None = None,
    *,
    manifest: str | Location | None = None,
    options: ExtractOptions | None = None,
    progress: Progress | None = None,
    network: Network | None = None,
    **overrides: Any,
) -> ExtractionSummary:
    """Make or bring up to date the feature cache of a folder of images.

    Only what is new or changed goes through the network. The cache appears whole or not at all; an interrupted run goes
    on where it stopped.

    Parameters
    ----------
    data : str, Path or Address
        A folder of class folders, of ``train``/``val``/``test`` folders of class folders, or of images; or a CSV manifest;
        on a disk or in a bucket, as ``s3://bucket/photos``.
    output : str, Path or Address, optional
        The cache, on a disk or in a bucket; default ``features/<name of the folder>.h5``.
    manifest : str, Path or Address, optional
        A CSV with the columns path, label and optionally split and group.
    options : ExtractOptions, optional
        How features are made and stored.
    progress : Progress, optional
        Is told how the run goes on.
    network : Network, optional
        Where the backbone comes from; for tests and other engines.
    **overrides
        Single options by name, as ``precision="float32"``.

    Raises
    ------
    DataError
        If the input holds no images, its layout is not understood, or its folder vanishes in the middle of the run; or if
        most images of the cache are gone, or some of a cache that was made from another folder, and neither
        ``keep_missing`` nor ``drop_missing`` says what to do.
    RecipeMismatchError
        If the cache exists and was made by another recipe.
    CacheError
        If the cache cannot be written, or another process is writing it.
    StorageError
        If a bucket cannot be reached.
    """
    started = time.perf_counter()
    options, progress = replace(options or ExtractOptions(), **overrides), progress or Silence()
    images = discover(location(data), manifest=location(manifest) if manifest else None)
    for notice in images.notices:
        progress.message(notice)
    target = location(output) if output else default_output(location(data), options.cache_layout)
    place = destination(target, options.cache_layout)
    with place.held():
        summary = Run(images, place, options, progress, network or Network(options)).execute()
    summary.notices = images.notices
    summary.seconds = time.perf_counter() - started
    return summary


def default_output(data: Location, layout: str = "auto") -> Path:
    """Return ``features/<name>.h5`` in the current folder for a folder or manifest of that name.

    Without ``.h5`` for a folder of shards, and for ``auto`` where there is one and no file.
    """
    if isinstance(data, Address):
        name = data.stem if data.suffix.lower() in TABLE_SUFFIXES else data.name
    else:
        resolved = data.resolve()
        name = resolved.stem if resolved.is_file() else resolved.name
    folder = Path("features") / (name or "images")
    file = folder.with_name(f"{folder.name}.h5")
    there = is_cache(folder) and not file.exists()
    return folder if layout == "shards" or (layout == "auto" and there) else file
