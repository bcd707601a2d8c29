"""Convert caches to other file formats, import features, and merge caches."""

from pathlib import Path

from headstart.errors import DataError

#: Value of ``format`` in converted files.
FORMAT = "headstart-features"

#: Increment it if old readers would misread new files.
FORMAT_VERSION = 1


def check_new_file(path: Path, overwrite: bool) -> None:
    """Raise DataError if a file exists and may not be replaced."""
    if path.exists() and not overwrite:
        raise DataError(f"{path} exists already.", hint="Replace it with `overwrite=True`.")


def check_new_cache(path: Path, overwrite: bool) -> None:
    """Raise DataError if a cache cannot be written to a path."""
    if path.suffix != ".h5":
        raise DataError(f"A cache is written to a file that ends in .h5. Received: {path}.")
    check_new_file(path, overwrite)
