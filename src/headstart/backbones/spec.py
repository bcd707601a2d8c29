"""The description of a backbone: its layers, preprocessing, weights and engines; and what the engines share."""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.convnet import ConvNet, LayerSpec, Source, Weights
from headstart.errors import HeadstartError, RecipeMismatchError
from headstart.images.decode import DECODE_RULES
from headstart.own_network import OwnNetwork
from headstart.types import (
    VIEWS,
    Backbone,
    FeatureBatch,
    Quantization,
    Recipe,
    checked_intensity,
    checked_page,
)

#: Called as ``factory(recipe, weights, spec=..., batch_size=..., device=...)``; the first two by position.
EngineFactory = Callable[..., Backbone]


#: Options of a recipe that an engine is built from.
ENGINE_OPTIONS = ("layer", "input_size_px", "resize", "precision", "storage", "quantization")


@dataclass(frozen=True, kw_only=True, eq=False)
class BackboneSpec:
    """The description of a backbone, an entry of ``headstart.backbones.registry.BACKBONES``."""

    name: str  # value of the parameter ``backbone`` and of Recipe.backbone
    layers: Mapping[str, LayerSpec]  # layers whose output may be stored, in network order
    pooled_layers: tuple[str, ...]  # layers whose spatial averages are stored beside it, in the order of their columns
    default_layer: str
    default_input_size_px: int  # height and width of the input
    preprocessing: str  # what the backbone does to RGB pixels of 0–255, in words
    #: Published weights → SHA-256 of all tensors; the first is the default, others are ``custom``.
    weights: Mapping[str, str]
    load_weights: Callable[..., Weights]  # ``(name or file, custom=bool)`` → checked weights
    engines: Mapping[str, EngineFactory | str]  # factory or import path (``package.module:name``), the fastest first
    min_input_size_px: int = 1
    weights_sources: Callable[[], Sequence[Source]] = tuple  # places where the default weights are looked for
    weights_licence: str = ""
    can_download: bool = False  # whether weights that are found nowhere are downloaded
    precisions: tuple[str, ...] = ("float32",)  # types in which an engine computes
    auto_tries: bool = True  # whether ``auto`` tries a reduced type; not where features are known to differ
    network: ConvNet | None = None  # the layers, for engines that build them
    gmac: float | None = None  # multiply-add operations for one image of the default size, in billions
    n_parameters: int | None = None
    own_network: OwnNetwork | None = None  # description of an ONNX model of the user's own

    @cached_property
    def column_layers(self) -> tuple[str, ...]:
        """Layer of each column of the averages."""
        return tuple(name for name in self.pooled_layers for _ in range(self.layers[name].channels))

    def has_local_weights(self) -> bool:
        """Return whether the default weights are on this machine, or there are none to be found."""
        sources = self.weights_sources()
        return not sources or any(source.location for source in sources)

    def to_dict(self) -> dict[str, Any]:
        """Return the description as plain JSON types, with where the default weights are (empty if nowhere here)."""
        sources, network = self.weights_sources(), self.network
        found = next((source for source in sources if source.location), None)
        return {
            "name": self.name,
            "input_size_px": self.default_input_size_px,
            "gmac": network.multiplications(self.default_input_size_px) / 1e9 if network else self.gmac,
            "n_parameters": network.n_parameters() if network else self.n_parameters,
            "default_layer": self.default_layer,
            "map_shape": list(self.map_shape(self.recipe(weights_sha256=""))),
            "layers": list(self.layers),
            "pooled_layers": list(self.pooled_layers),
            "preprocessing": self.preprocessing,
            "precisions": list(self.precisions),
            "engines": list(self.engines),
            "weights_licence": self.weights_licence,
            "weights": found.name if found else "" if sources else "built in",
            "weights_remedy": "; ".join(source.remedy for source in sources),
        }

    def map_shape(self, recipe: Recipe) -> tuple[int, int, int]:
        """Return height, width and channels of the output of a recipe's layer."""
        layer = self.layers[recipe.layer]
        side = layer.side(recipe.input_size_px)
        return side, side, layer.channels

    def convnet(self) -> ConvNet:
        """Return the layers; raise HeadstartError if they are not described."""
        if self.network is None:
            raise HeadstartError(
                f"The layers of {self.name} are not described, so it cannot be exported or built for another engine."
            )
        return self.network

    def engine(self, name: str) -> EngineFactory:
        """Return the factory of an engine, imported if necessary."""
        engine = self.engines[name]
        factory: EngineFactory = pkgutil.resolve_name(engine) if isinstance(engine, str) else engine
        return factory

    def loaded(self, weights: str | Path | Weights | None) -> Weights:
        """Return checked weights; None stands for the default, and a name that is not published for a file."""
        weights = next(iter(self.weights)) if weights is None else weights
        if not isinstance(weights, str | Path):
            return weights
        return self.load_weights(weights, custom=str(weights) not in self.weights)

    def check(self, recipe: Recipe, weights: Weights) -> None:
        """Raise RecipeMismatchError if these weights, or this version of the program, give other features."""
        if recipe.backbone != self.name:
            raise RecipeMismatchError(f"This is the backbone {self.name}. The recipe needs: {recipe.backbone}.")
        options = {name: getattr(recipe, name) for name in (*ENGINE_OPTIONS, "views", "page", "intensity")}
        available = self.recipe(weights=weights.name, weights_sha256=weights.sha256, **options)
        differences = recipe.differences(available)
        if differences:
            raise RecipeMismatchError(
                f"The features cannot be made again here. Wanted ≠ available: {'; '.join(differences)}."
            )

    def recipe(
        self,
        *,
        weights: str | None = None,
        weights_sha256: str,
        layer: str | None = None,
        input_size_px: int | None = None,
        resize: str = "keras-bilinear",
        precision: str = "float32",
        storage: str = "float16",
        quantization: Quantization | None = None,
        views: str = "single",
        page: int | str | None = None,
        intensity: tuple[float, float] | None = None,
        random_crop: int = 0,
    ) -> Recipe:
        """Return the recipe of features; raise HeadstartError, listing the possible values, if an option is unknown."""
        layer = self.default_layer if layer is None else layer
        size = self.default_input_size_px if input_size_px is None else input_size_px
        check_choice(f"layer of {self.name}", layer, tuple(self.layers))
        check_choice("precision", precision, self.precisions)
        if size < self.min_input_size_px:
            raise HeadstartError(
                f"The input of {self.name} is at least {self.min_input_size_px} pixels wide. Received: {size}."
            )
        if self.own_network and size != self.default_input_size_px:
            raise HeadstartError(
                f"The input of {self.name} is {self.default_input_size_px} pixels wide, as the description beside it says. "
                f"Received: {size}. Write another size into that file."
            )
        check_choice("storage type", storage, ("float16", "float32"))
        check_choice("views", views, tuple(VIEWS))
        try:
            page = None if page in {None, 1} else checked_page(page)
            intensity = None if intensity is None else checked_intensity(intensity)
        except ValueError as error:
            raise HeadstartError(f"{error}.") from error
        return Recipe(
            backbone=self.name,
            weights=weights or next(iter(self.weights)),
            weights_sha256=weights_sha256,
            layer=layer,
            pooled_layers=self.pooled_layers,
            input_size_px=size,
            decode=DECODE_RULES,
            resize=resize,
            precision=precision,
            storage=storage,
            quantization=quantization,
            views=views,
            page=page,
            intensity=intensity,
            own_network=self.own_network,
            random_crop=random_crop,
        )


def check_choice(what: str, value: str, choices: Sequence[str]) -> None:
    """Raise HeadstartError unless the value is one of the choices."""
    if value not in choices:
        raise HeadstartError(f"Unknown {what} {value!r}. Expected one of: {', '.join(choices)}.")


def check_images(images: NDArray[Any], size_px: int) -> None:
    """Raise HeadstartError if images are not the input of a backbone of this size."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size_px, size_px, 3) or not len(images):
        raise HeadstartError(
            f"The backbone takes uint8 images of shape (n ≥ 1, {size_px}, {size_px}, 3). "
            f"Received: {images.dtype} of shape {images.shape}."
        )


def joined(batches: Sequence[FeatureBatch]) -> FeatureBatch:
    """Return several batches as one."""
    if len(batches) == 1:
        return batches[0]
    features, pooled = (np.concatenate([getattr(b, name) for b in batches]) for name in ("features", "pooled"))
    return FeatureBatch(features, pooled, batches[0].pooled_column_layer)


def padded(images: NDArray[np.uint8], batch_size: int) -> NDArray[np.uint8]:
    """Return images padded to the batch size with black ones, since one shape is compiled."""
    if len(images) == batch_size:
        return images
    return np.concatenate([images, np.zeros((batch_size - len(images), *images.shape[1:]), np.uint8)])


def vgg16() -> BackboneSpec:
    """Return the description that is the default of every engine."""
    spec: BackboneSpec = pkgutil.resolve_name("headstart.backbones.vgg16:VGG16")
    return spec


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
        spec: BackboneSpec | None = None,
        batch_size: int | None = None,
        device: str = "auto",
        **options: Any,
    ) -> None:
        precision = options.get("precision", "float32")
        if precision not in self.engine_precisions:
            raise HeadstartError(
                f"{self.engine} computes in {', '.join(self.engine_precisions)}. Received: {precision}."
            )
        self.spec = spec = spec or vgg16()
        loaded = weights if isinstance(weights, Weights) else spec.load_weights(weights)
        self.recipe = spec.recipe(weights=loaded.name, weights_sha256=loaded.sha256, **options)
        self.build(loaded, batch_size, device)

    @classmethod
    def from_recipe(
        cls,
        recipe: Recipe,
        weights: str | Path | Weights = "imagenet",
        *,
        spec: BackboneSpec | None = None,
        batch_size: int | None = None,
        device: str = "auto",
    ) -> Self:
        """Return the backbone of a recipe; raise RecipeMismatchError if these weights or this version give other features."""
        spec = spec or vgg16()
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
