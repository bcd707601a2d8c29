"""A cache as a file that other programs read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from headstart.cache.portable import write_portable
from headstart.cache.store import open_cache
from headstart.errors import DataError
from headstart.exchange import FORMAT, FORMAT_VERSION
from headstart.exchange.contents import Contents, contents_of
from headstart.exchange.npz import plural, write_npz
from headstart.exchange.tables import import_pyarrow, write_csv, write_parquet


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was written.

    Attributes
    ----------
    output : Path
        The file.
    n_samples, n_features : int
        Rows and columns of X.
    features : tuple of str
        What the columns are made of.
    size_bytes : int
        Of the file.
    """

    output: Path
    n_samples: int
    n_features: int
    features: tuple[str, ...]
    size_bytes: int


def write_h5(path: Path, contents: Contents) -> None:
    """Write plain HDF5: gzip, float32, fixed-length UTF-8, no plug-in needed."""
    n = contents.n_samples
    texts = {plural(name): (n, values) for name, values in contents.texts.items()}
    for name in ("class_names", "feature_names"):
        values = getattr(contents, name)
        texts[name] = (len(values), lambda values=values: values)  # type: ignore[misc]
    attributes = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "recipe": contents.recipe,
        "features": json.dumps(contents.features),
        "map_shape": json.dumps(contents.map_shape),
    }
    shape = (n, len(contents.feature_names))
    write_portable(path, blocks=contents.blocks(), shape=shape, y=contents.y, texts=texts, attributes=attributes)


#: End of the file's name → what writes it.
WRITERS: dict[str, Callable[[Path, Contents], None]] = {
    ".npz": write_npz,
    ".h5": write_h5,
    ".parquet": write_parquet,
    ".csv": write_csv,
}


def convert(
    cache: str | Path,
    output: str | Path,
    *,
    features: Sequence[str] = ("avg",),
    raw: bool = False,
    overwrite: bool = False,
) -> Conversion:
    """Write a cache's features and all that belongs to them for other programs; memory does not grow with the features.

    Parameters
    ----------
    cache : str or Path
        The cache.
    output : str or Path
        The file to write; the end of its name says which kind: ``.npz``, ``.h5`` (plain HDF5), ``.parquet`` or ``.csv``.
    features : sequence of str
        Columns of X, as a head is fitted on them: ``avg``, ``max``, ``gem``, ``crops`` or ``flatten`` of the stored layer, or
        pooled layers.
    raw : bool
        Write text to ``.csv`` as it is. By default a cell that a spreadsheet would take for a formula, as ``=1+1``, begins
        with ``'``; the other kinds of file always hold text as it is.
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    DataError
        If the file exists, its name is of no known kind, or there is nothing to convert.
    HeadstartError
        If there is no such feature.
    CacheError
        If the cache cannot be read, or the file cannot be written.
    MissingExtraError
        If Parquet is asked for and pyarrow is not installed.

    Examples
    --------
    >>> convert("features/data.h5", "data.npz", features=("avg", "block4_conv3"))     # doctest: +SKIP
    """
    target = Path(output)
    check_target(Path(cache), target, raw, overwrite)
    with open_cache(cache) as opened:
        contents = contents_of(opened, features)
        write = partial(write_csv, raw=True) if raw else WRITERS[target.suffix]
        write(target, contents)
    width = len(contents.feature_names)
    return Conversion(target, contents.n_samples, width, contents.features, target.stat().st_size)


def check_target(cache: Path, target: Path, raw: bool, overwrite: bool) -> None:
    """Raise DataError where a file may not be written, before anything is read."""
    if target.suffix not in WRITERS:
        raise DataError(f"The end of the name says what is written: {', '.join(WRITERS)}. Received: {target}.")
    if target.exists() and cache.exists() and target.samefile(cache):
        raise DataError(f"{target} is the cache itself. Give the new file another name.")
    if target.exists() and not overwrite:
        raise DataError(f"{target} exists already. Use --overwrite to replace it.")
    if raw and target.suffix != ".csv":
        raise DataError(f"--raw is for .csv; other files hold text as it is. Received: {target}.")
    if target.suffix == ".parquet":
        import_pyarrow()
