"""Images → the class that a head predicts, and a heat map of where that comes from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.bundles.bundle import Bundle
from headstart.errors import ParameterError
from headstart.explain.heat_maps import (
    METHODS,
    HeatMap,
    choose_method,
    class_activation,
    grid_of,
    missing_part,
    occlusion,
    pixel_occlusion,
)
from headstart.images.load import LoadedImage
from headstart.predict import Input, Prediction, Predictor, collect_images
from headstart.texts import did_you_mean
from headstart.types import FeatureBatch, ImageRef


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where in one image the decision of a head comes from, or the reason why the image could not be read.

    Attributes
    ----------
    prediction : Prediction
        Path, what the head predicts, and what was lost while decoding; or the reason of a failure.
    output : int or None
        The number of the class that is explained; 0 for a head for numbers.
    class_name : str
        Its name; ``target`` for a number.
    method : str
        ``cam``, ``occlusion`` or ``occlusion-pixels``.
    heat_map : HeatMap or None
    pixels : ndarray of shape (size, size, 3), uint8, or None
        The image as the network saw it; by several backbones, as the first did.
    missing : str
        Which part of the decision the heat map does not show; empty for none.
    """

    prediction: Prediction
    output: int | None = None
    class_name: str = ""
    method: str = ""
    heat_map: HeatMap | None = None
    pixels: NDArray[np.uint8] | None = None
    missing: str = ""

    @property
    def value(self) -> float:
        """The predicted probability of the class, or the predicted number; NaN if the image could not be read."""
        if self.prediction.probabilities is None or self.output is None:
            return math.nan
        return float(self.prediction.probabilities[self.output])


def explain_images(
    head: str | Path | Bundle | Predictor,
    images: Input | Sequence[Input],
    *,
    class_name: str | None = None,
    method: str = "auto",
) -> Iterator[Explanation]:
    """Return an iterator over an explanation of every image, in their order.

    Parameters
    ----------
    head : str, Path, Bundle or Predictor
        A saved head; a Predictor for other weights, another device or batch size.
    images : path, bytes, PIL image or array; or a sequence of these
        As :meth:`headstart.predict.Predictor.predict` takes them.
    class_name : str, optional
        The class to explain; by default, of each image, the class that the head decides for.
    method : str
        ``cam``, exact, for heads that are linear in ``avg``; ``occlusion`` of the cells of the last map, without a pass
        through the network; ``occlusion-pixels``, with a pass for each cell; or ``auto``, the first of these that is
        possible and shows the whole decision.

    Raises
    ------
    ParameterError
        If the method does not exist or cannot explain this head, or the head has no such class.
    DataError
        As from :meth:`headstart.predict.Predictor.predict`.

    Examples
    --------
    >>> for one in explain_images("heads/ants-bees", "photo.jpg"):         # doctest: +SKIP
    ...     print(one.class_name, one.value, one.heat_map.values.round(1))
    """
    if method not in METHODS:
        raise ParameterError(f"There is no method {method!r}. Expected one of: {', '.join(METHODS)}.")
    predictor = head if isinstance(head, Predictor) else Predictor(head)
    output = None if class_name is None else output_of(predictor.bundle, class_name)
    root, found = collect_images(images)
    return _explained(predictor, root, found, output, method)


def output_of(bundle: Bundle, class_name: str) -> int:
    """Return the number of a class; raise ParameterError if the head does not predict it."""
    if bundle.task == "regression":
        raise ParameterError(
            f"The head predicts a number, and no classes. Received: the class {class_name!r}.",
            hint="Leave out `class_name`.",
        )
    fitted = [bundle.class_names[code] for code in bundle.head.classes_]
    if class_name not in fitted:
        raise ParameterError(
            f"The head was fitted on no image of a class {class_name!r}. Expected one of: {', '.join(fitted)}."
            f"{did_you_mean([class_name], fitted)}"
        )
    return bundle.class_names.index(class_name)


def _explained(
    predictor: Predictor, root: Path, found: Sequence[tuple[str, ImageRef]], output: int | None, method: str
) -> Iterator[Explanation]:
    for images, failures in predictor.batches(root, [ref for _, ref in found]):
        done = {
            index: Explanation(Prediction(found[index][0], None, failure.reason)) for index, failure in failures.items()
        }
        if images:
            names, loaded = [found[index][0] for index in images], list(images.values())
            batch = predictor.forward(loaded)
            chosen = choose_method(predictor.bundle, method, max(batch.features.shape[1:3]))
            predictions = predictor.predictions(names, loaded, batch)
            for row, (index, prediction) in enumerate(zip(images, predictions, strict=True)):
                done[index] = explain_image(predictor, loaded[row], row_of(batch, row), prediction, output, chosen)
        yield from (done[index] for index in sorted(done))


def explain_image(
    predictor: Predictor,
    image: LoadedImage,
    batch: FeatureBatch,
    prediction: Prediction,
    output: int | None,
    method: str,
) -> Explanation:
    """Return the explanation of one image, whose features are the only row of a batch; by default of the decided class."""
    bundle = predictor.bundle
    if output is None:
        decided = prediction.decision
        output = (
            output_of(bundle, decided.class_name) if decided else int(np.asarray(prediction.probabilities).argmax())
        )
    if method == "cam":
        heat_map = class_activation(bundle, batch, output)
    elif method == "occlusion":
        heat_map = occlusion(bundle, batch, output)
    else:
        heat_map = pixel_occlusion(
            predictor.probabilities,
            image,
            output,
            grid=grid_of(*batch.features.shape[1:3]),
            batch_size=min(backbone.batch_size for backbone in predictor.backbones),
        )
    return Explanation(
        prediction, output, bundle.class_names[output], method, heat_map, image.pixels, missing_part(bundle, method)
    )


def row_of(batch: FeatureBatch, row: int) -> FeatureBatch:
    """Return the features of one image of a batch."""
    rows = slice(row, row + 1)
    return replace(
        batch,
        features=batch.features[rows],
        pooled=batch.pooled[rows],
        others=tuple(row_of(one, row) for one in batch.others),
    )
