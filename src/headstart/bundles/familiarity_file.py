"""The file of a bundle that tells how far an image is from the training images: JSON, then numbers.

Eight bytes, little-endian, hold the length of the JSON text; the arrays follow it without gaps, in the order of ``ARRAYS``.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.decisions.familiarity import Familiarity, Gaussian
from headstart.errors import BundleError
from headstart.heads.head_specs import is_number
from headstart.texts import reason_of
from headstart.types import Recipe

#: Size limit of the file.
MAX_BYTES = 8 * 2**20

#: Size limit of the paths and labels of training images; of those that exceed it, the first ones are kept.
MAX_NAME_BYTES = 2 * 2**20

#: Array → its type and shape, in sizes that the JSON text gives.
ARRAYS = {
    "mean": ("<f4", ("n_features",)),
    "variances": ("<f4", ("n_components",)),
    "components": ("<f2", ("n_components", "n_features")),
    "coordinates": ("<f2", ("n_images", "n_coordinates")),
}


def familiarity_bytes(one: Familiarity) -> bytes:
    """Return the content of the file."""
    sizes = np.cumsum(
        [len(json.dumps(path)) + len(json.dumps(label)) for path, label in zip(one.paths, one.labels, strict=True)]
    )
    n_images = max(int(np.searchsorted(sizes, MAX_NAME_BYTES, side="right")), 1)
    gaussian, coordinates = one.gaussian, one.coordinates[:n_images]
    header = {
        "features": list(one.features),
        "threshold": one.threshold,
        "rate": one.rate,
        "residual_variance": gaussian.residual_variance,
        "n_features": len(gaussian.mean),
        "n_components": len(gaussian.components),
        "n_images": n_images,
        "n_coordinates": coordinates.shape[1],
        "paths": list(one.paths[:n_images]),
        "labels": list(one.labels[:n_images]),
    }
    arrays = {
        "mean": gaussian.mean,
        "variances": gaussian.variances,
        "components": gaussian.components,
        "coordinates": coordinates,
    }
    text = json.dumps(header).encode()
    numbers = (np.ascontiguousarray(arrays[name], kind).tobytes() for name, (kind, _) in ARRAYS.items())
    return b"".join([len(text).to_bytes(8, "little"), text, *numbers])


def read_familiarity(path: Path, recipe: Recipe) -> Familiarity:
    """Return the content of a file for features of a recipe; raise BundleError if it is not what it should be."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is larger than the {MAX_BYTES:,} bytes allowed")
        return _parsed(path.read_bytes(), (*recipe.pooled_layers, "avg"))
    except KeyError as error:
        raise BundleError(f"{path} is damaged: it lacks {error}. Fit the head again.") from error
    except (OSError, TypeError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} is damaged: {reason_of(error)}. Fit the head again.") from error


def _parsed(data: bytes, features: tuple[str, ...]) -> Familiarity:
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    if not isinstance(header, dict):
        raise ValueError("it begins with something else than a table")
    arrays = _arrays(data[start:], header)
    gaussian = Gaussian(
        arrays["mean"], arrays["components"], arrays["variances"], _positive(header, "residual_variance")
    )
    if not (gaussian.variances > 0).all():
        raise ValueError("a variance is not positive")
    return Familiarity(
        features=_texts(header, "features", known=features),
        gaussian=gaussian,
        threshold=_positive(header, "threshold"),
        rate=_positive(header, "rate"),
        coordinates=arrays["coordinates"],
        paths=_texts(header, "paths", n=len(arrays["coordinates"])),
        labels=_texts(header, "labels", n=len(arrays["coordinates"])),
    )


def _arrays(data: bytes, header: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file, copied; raise ValueError where sizes or numbers are none."""
    shapes = {name: tuple(header[size] for size in sizes) for name, (_, sizes) in ARRAYS.items()}
    if not all(type(size) is int and 0 < size <= MAX_BYTES for shape in shapes.values() for size in shape):
        raise ValueError("a size is no positive number")
    counts = [math.prod(shape) * np.dtype(ARRAYS[name][0]).itemsize for name, shape in shapes.items()]
    if sum(counts) != len(data) or header["n_coordinates"] > header["n_components"]:
        raise ValueError(f"it holds {len(data):,} bytes of numbers, and its sizes are those of {sum(counts):,}")
    arrays, start = {}, 0
    for (name, shape), count in zip(shapes.items(), counts, strict=True):
        arrays[name] = np.frombuffer(data[start : start + count], ARRAYS[name][0]).reshape(shape)
        start += count
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("a number is not finite")
    return arrays


def _positive(header: dict[str, Any], name: str) -> float:
    if not is_number(header[name]) or not 0 < header[name] < math.inf:
        raise ValueError(f"{name} is no positive number")
    return float(header[name])


def _texts(header: dict[str, Any], name: str, *, n: int | None = None, known: tuple[str, ...] = ()) -> tuple[str, ...]:
    found = header[name]
    right = isinstance(found, list) and found and all(isinstance(one, str) for one in found)
    if not right or (n is not None and len(found) != n) or (known and not set(found) <= set(known)):
        raise ValueError(f"{name} is not the list of words that was expected")
    return tuple(found)
