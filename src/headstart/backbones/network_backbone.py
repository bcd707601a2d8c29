"""A convolutional network on some engine: what the engines share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.layers import ConvNet
from headstart.backbones.spec import ENGINE_OPTIONS, BackboneSpec
from headstart.backbones.vgg16 import VGG16
from headstart.backbones.weights import Weights
from headstart.errors import HeadstartError
from headstart.types import Backbone, FeatureBatch, Recipe


class NetworkBackbone(Backbone, ABC):
    """A convolutional network up to a layer, frozen, on some engine.

    Parameters
    ----------
    weights : str, Path or Weights
        Name of published weights (``imagenet``), a file, or weights that were loaded before.
    spec : BackboneSpec
        Description of the network, VGG16 by default.
    batch_size : int, optional
        Images per call of the engine; the default fits the device.
    device : str
        ``auto``, ``cpu`` or ``gpu:N``.
    **options
        ``layer``, ``input_size_px``, ``resize``, ``precision``, ``storage`` and ``quantization`` of
        :class:`headstart.types.Recipe`.

    Raises
    ------
    HeadstartError
        If the engine is not installed, or an option has an unknown value.
    """

    #: Name of the engine, and the precisions that it computes.
    engine: ClassVar[str]
    engine_precisions: ClassVar[tuple[str, ...]]

    batch_size: int = 1

    def __init__(
        self,
        weights: str | Path | Weights = "imagenet",
        *,
        spec: BackboneSpec = VGG16,
        batch_size: int | None = None,
        device: str = "auto",
        **options: Any,
    ) -> None:
        precision = options.get("precision", "float32")
        if precision not in self.engine_precisions:
            raise HeadstartError(
                f"{self.engine} computes in {', '.join(self.engine_precisions)}. Received: {precision}."
            )
        loaded = weights if isinstance(weights, Weights) else spec.load_weights(weights)
        self.spec = spec
        self.recipe = spec.recipe(weights=loaded.name, weights_sha256=loaded.sha256, **options)
        self.build(loaded, batch_size, device)

    @classmethod
    def from_recipe(
        cls,
        recipe: Recipe,
        weights: str | Path | Weights = "imagenet",
        *,
        spec: BackboneSpec = VGG16,
        batch_size: int | None = None,
        device: str = "auto",
    ) -> Self:
        """Return the backbone of a recipe; raise RecipeMismatchError if these weights or this version give other features."""
        loaded = weights if isinstance(weights, Weights) else spec.load_weights(weights)
        spec.check(recipe, loaded)
        options = {name: getattr(recipe, name) for name in ENGINE_OPTIONS}
        return cls(loaded, spec=spec, batch_size=batch_size, device=device, **options)

    @property
    def network(self) -> ConvNet:
        """The layers and the preprocessing."""
        return self.spec.convnet()

    @abstractmethod
    def build(self, weights: Weights, batch_size: int | None, device: str) -> None:
        """Set ``batch_size`` and ``device``, and make the network of ``self.recipe``."""

    def forward(self, images: NDArray[np.uint8]) -> FeatureBatch:
        """Return the float32 features of RGB images, uint8 of shape (n_images, input_size_px, input_size_px, 3), in order.

        A row does not depend on the other images. Raises HeadstartError if shape or dtype differ, or memory does not
        suffice for a single image. A subclass implements this or ``start``.
        """
        return self.start(images)()
