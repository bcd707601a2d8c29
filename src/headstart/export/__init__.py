"""Export the whole classifier, image in and probabilities out, as one file independent of headstart."""

from __future__ import annotations

from pathlib import Path

from headstart.errors import HeadstartError
from headstart.export.keras_file import export_keras
from headstart.export.onnx_file import export_onnx

__all__ = ["EXPORTERS", "export_keras", "export_model", "export_onnx"]

#: Suffix → writer.
EXPORTERS = {".keras": export_keras, ".onnx": export_onnx}


def export_model(
    head: str | Path, output: str | Path, *, weights: str | Path = "imagenet", overwrite: bool = False
) -> Path:
    """Export a saved head and its backbone in the format given by the suffix; return the file with the class names.

    Raises HeadstartError if the suffix is unknown; and as :func:`export_keras` and :func:`export_onnx` do.
    """
    exporter = EXPORTERS.get(Path(output).suffix)
    if exporter is None:
        raise HeadstartError(f"A model is written to a file that ends in {' or '.join(EXPORTERS)}. Received: {output}.")
    return exporter(head, output, weights=weights, overwrite=overwrite)
