"""Heat maps of one image: class activation, and occlusion of the last map or of the pixels.

The score of a class is its log-odds, ln(p / (1 - p)). It is not the probability, which hardly changes near 0 and 1, so that
positions that matter would be hidden. The score of a head for numbers is the number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.bundles.bundle import Bundle
from headstart.errors import ParameterError
from headstart.heads.base import Layer
from headstart.heads.head_specs import POOLINGS
from headstart.images.load import LoadedImage
from headstart.types import FeatureBatch

#: ``auto`` takes the first that is possible and shows the whole decision.
METHODS = ("auto", "cam", "occlusion", "occlusion-pixels")

#: Scalings of a row that are the same affine function of each value in every row.
AFFINE_SCALINGS = ("standard", "none")

#: Cells of each side that are occluded, at most; larger maps are divided into as many blocks.
MAX_CELLS = 14

#: Cells of each side of the pixels, if the network has no map: as many as VGG16 has at 224 pixels.
PIXEL_CELLS = 7

#: Smallest probability in a logarithm, as heads may predict exactly 0: the smallest normal float32. A larger limit hides
#: values: a dense head on unscaled maps predicted less than 1e-12 of a class for a third of the images of hymenoptera.
MIN_PROBABILITY = float(np.finfo(np.float32).tiny)

#: Memory of occluded copies of a map or of an image, bytes.
MAX_COPIES_BYTES = 2**28

Floats = NDArray[np.float64]

#: First and last row, and first and last column, as fractions of the height and of the width.
Cell = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class HeatMap:
    """How much each position of an image contributes to a score.

    Attributes
    ----------
    values : ndarray of shape (height, width), float64
        Positive for the class, negative against it. By ``cam`` the contributions, whose mean plus ``constant`` is the
        score; by occlusion the drop of the score if the cell is occluded.
    score, constant : float
        ``constant`` is 0 unless the method is ``cam``.
    """

    values: Floats
    score: float
    constant: float = 0.0


def choose_method(bundle: Bundle, method: str, side: int) -> str:
    """Return the method for a head whose stored map has a longer side of ``side`` positions.

    Raises ParameterError if the method cannot explain this head.
    """
    spec, has_map = bundle.spec, len(bundle.recipes) == 1 and side > 1
    inner = [name for name in spec.features if name not in POOLINGS]
    if method == "auto":
        if has_map and activation_layer(bundle):
            return "cam"
        return "occlusion" if has_map and not inner else "occlusion-pixels"
    if method == "cam" and not (has_map and activation_layer(bundle)):
        raise ParameterError(
            "Class activation is for heads whose score is linear in avg alone, on a map of one backbone. Received: "
            f"{spec.type} on {', '.join(spec.features)} (scaling {spec.scaling}).",
            hint="Use `method='auto'`.",
        )
    if method == "occlusion" and not (has_map and len(inner) < len(spec.features)):
        raise ParameterError(
            "Occlusion of the map is for heads on the map of one backbone. Received: "
            f"{spec.type} on {', '.join(spec.features)} of {len(bundle.recipes)} backbones, a map side of {side}.",
            hint="Use `method='occlusion-pixels'`.",
        )
    return method


def missing_part(bundle: Bundle, method: str) -> str:
    """Return a sentence that says which part of the decision the method does not show; empty for none."""
    inner = [name for name in bundle.spec.features if name not in POOLINGS]
    if method != "occlusion" or not inner:
        return ""
    return f"The part of the decision that comes from the inner layers {', '.join(inner)} is not shown."


def activation_layer(bundle: Bundle) -> Layer | None:
    """Return the dense layer from scaled averages to the scores of a head; None if it is not linear in ``avg`` alone."""
    classifier = bundle.head.steps[-1][1]
    is_affine = bundle.spec.features == ("avg",) and bundle.spec.scaling in AFFINE_SCALINGS
    has_layers = (
        hasattr(classifier, "to_layers") and getattr(classifier, "views", 1) == 1
    )  # a mean of views is not linear
    layers: tuple[Layer, ...] = classifier.to_layers() if is_affine and has_layers else ()
    return layers[0] if len(layers) == 1 and not layers[0].normalised else None


def class_activation(bundle: Bundle, batch: FeatureBatch, output: int) -> HeatMap:
    """Return the class activation map of one image (Zhou et al., CVPR 2016), whose mean plus a constant is the score.

    The scaling is applied to each position, as the scaled average is the average of scaled positions. A softmax does not
    change if all scores do by the same amount, so the score of a class is its linear score less the mean of those of the
    others: the log-odds of two classes; of more the mean, over the others, of ln(p of the class / p of the other).
    """
    layer = activation_layer(bundle)
    assert layer is not None  # noqa: S101  # by choose_method
    column = int(np.flatnonzero(bundle.head.classes_ == output)[0])
    kernel, bias = layer.kernel.astype(np.float64), layer.bias.astype(np.float64)
    weights, constant = kernel[:, column], float(bias[column])
    if layer.activation == "softmax":
        weights = weights - np.delete(kernel, column, axis=1).mean(axis=1)
        constant -= float(np.delete(bias, column).mean())
    features = batch.features[0].astype(np.float64)
    positions = bundle.head.steps[0][1].transform(features.reshape(-1, features.shape[-1]))
    values = (positions @ weights).reshape(features.shape[:2])
    return HeatMap(values, float(values.mean()) + constant, constant)


def occlusion(bundle: Bundle, batch: FeatureBatch, output: int) -> HeatMap:
    """Return the drop of the score if a cell of the map of one image is replaced, without a pass through the network.

    The replacement is the mean of the image's own map over its positions, channel by channel: it is defined for layers with
    negative values too, stays in the range of the features that the head was fitted on, and needs nothing of the training
    images. A cell that is like the rest of the image has the value 0. Averages of inner layers stay as they are.
    """
    (features,) = batch.features
    fill = features.mean(axis=(0, 1), dtype=np.float64).astype(features.dtype)

    def scores(cells: Sequence[Cell]) -> Floats:
        occluded = np.stack([covered(features, cell, fill) for cell in cells])
        pooled = np.repeat(batch.pooled, len(cells), axis=0)
        copies = FeatureBatch(occluded, pooled, batch.pooled_column_layer)
        return scores_of(bundle.outputs([copies], bundle.recipes), output)

    return drops(scores, grid_of(*features.shape[:2]), max(1, MAX_COPIES_BYTES // features.nbytes))


def pixel_occlusion(
    probabilities: Callable[[Sequence[LoadedImage]], Floats],
    image: LoadedImage,
    output: int,
    *,
    grid: tuple[int, int],
    batch_size: int,
) -> HeatMap:
    """Return the drop of the score if a block of pixels is replaced by the mean colour of the image, by forward passes.

    Zeiler & Fergus, "Visualizing and understanding convolutional networks", ECCV 2014. ``probabilities`` returns what a head
    predicts for decoded images, ``grid`` has the number of blocks in a column and in a row.
    """

    def hidden(pixels: NDArray[np.uint8], cell: Cell) -> Any:
        return covered(pixels, cell, pixels.mean(axis=(0, 1)).round().astype(np.uint8))

    def scores(cells: Sequence[Cell]) -> Floats:
        copies = [
            replace(image, pixels=hidden(image.pixels, cell), others=tuple(hidden(one, cell) for one in image.others))
            for cell in cells
        ]
        return scores_of(probabilities(copies), output)

    return drops(scores, grid, batch_size)


def grid_of(height: int, width: int) -> tuple[int, int]:
    """Return the number of cells in a column and in a row of a map; of a single position, those of the pixels."""
    if height * width == 1:
        return PIXEL_CELLS, PIXEL_CELLS
    return min(height, MAX_CELLS), min(width, MAX_CELLS)


def drops(scores: Callable[[Sequence[Cell]], Floats], grid: tuple[int, int], n_at_once: int) -> HeatMap:
    """Return the drop of a score for each cell of a grid; ``scores`` returns those with each of some cells occluded."""
    rows, columns = (list(pairwise(np.linspace(0, 1, n + 1).tolist())) for n in grid)
    cells: list[Cell] = [((0.0, 0.0), (0.0, 0.0)), *product(rows, columns)]  # the first is empty
    found = np.concatenate([scores(cells[start : start + n_at_once]) for start in range(0, len(cells), n_at_once)])
    return HeatMap((found[0] - found[1:]).reshape(grid), float(found[0]))


def covered(values: Any, cell: Cell, fill: Any) -> Any:
    """Return a copy of an array of shape (height, width, n_channels) with one value for each channel in a cell."""
    rows, columns = (
        slice(round(start * length), round(end * length))
        for (start, end), length in zip(cell, values.shape[:2], strict=True)
    )
    copy = values.copy()
    copy[rows, columns] = fill
    return copy


def scores_of(outputs: Floats, output: int) -> Floats:
    """Return the scores of a class from probabilities, shape (n_images, n_outputs); numbers of heads for numbers."""
    if outputs.shape[1] == 1:
        return outputs[:, 0]
    others = np.delete(outputs, output, axis=1).sum(axis=1)  # not 1 - p, which is 0 for p near 1
    log_odds: Floats = np.log(np.maximum(outputs[:, output], MIN_PROBABILITY)) - np.log(
        np.maximum(others, MIN_PROBABILITY)
    )
    return log_odds
