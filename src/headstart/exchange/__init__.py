"""Caches as other files, features from them, merged caches; whole classifiers as one Keras or ONNX file."""

import pkgutil
from pathlib import Path

from headstart.errors import DataError, HeadstartError

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


#: Suffix → writer of a whole classifier.
EXPORTERS = {
    ".keras": "headstart.exchange.keras_file:export_keras",
    ".onnx": "headstart.exchange.onnx_file:export_onnx",
}


def export_model(
    head: str | Path, output: str | Path, *, weights: str | Path | None = None, overwrite: bool = False
) -> Path:
    """Export a saved head and its backbone in the format given by the suffix; return the file with the class names.

    Raises HeadstartError if the suffix is unknown; and as :func:`headstart.export_keras` and :func:`headstart.export_onnx`.
    """
    exporter = EXPORTERS.get(Path(output).suffix)
    if exporter is None:
        raise HeadstartError(f"A model is written to a file that ends in {' or '.join(EXPORTERS)}. Received: {output}.")
    written: Path = pkgutil.resolve_name(exporter)(head, output, weights=weights, overwrite=overwrite)
    return written
