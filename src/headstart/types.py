"""Immutable types shared across packages: free of I/O."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Protocol

from headstart.own_network import OwnNetwork

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

#: Valid split names, in display order.
SPLITS = ("train", "validation", "test")

#: The four views of an image by flips: for each, the steps that make it, ``rows`` or ``columns`` in reverse order.
_FLIPS: tuple[tuple[str, ...], ...] = ((), ("columns",), ("rows",), ("rows", "columns"))

#: Views averaged into the features, by name: for each view, the steps that turn the image into it. Each step undoes itself;
#: ``transpose`` exchanges rows and columns. ``single``, the image alone, is not written. The order is part of the format:
#: neighbours are added first (backbones/registry.py).
VIEWS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "single": _FLIPS[:1],
    "mirrored": _FLIPS[:2],
    "flips": _FLIPS,
    "dihedral": (*_FLIPS, *(("transpose", *steps) for steps in _FLIPS)),
}

#: Projections that turn several pages of a file into one image (images/samples.py).
PROJECTIONS = ("max", "mean")

#: Fields added after the first release, with the defaults at which they are not written: fingerprints of older recipes stay
#: the same.
UNWRITTEN: Mapping[str, Any] = {
    "quantization": None,
    "views": "single",
    "page": None,
    "intensity": None,
    "own_network": None,
    "random_crop": 0,
}


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image file found by a scan; it has not been read yet."""

    #: Relative to the scanned root, with ``/`` as separator. Bytes that are not UTF-8 are kept as lone surrogates
    #: (``os.fsdecode``), so that the file can be opened again.
    path: str
    label: str | None  # class name; None if the image is unlabelled
    split: str | None  # one of :data:`SPLITS`, or None
    group: str | None  # images of one group (e.g. a patient) are never on both sides of a split
    size_bytes: int  # size and time from ``os.stat``; used to detect changed files without reading them
    mtime_ns: int
    #: 32 bits derived from inode and status change time (images/discovery/refs.py), to tell files of equal size and time
    #: apart; 0 if unknown
    stamp: int = 0
    #: How sure the label is: the weight of the image in a fit, finite; at 0 it is not fitted on
    weight: float = 1.0
    target: float | None = None  # the number to predict for the image, finite; None for none


def is_weight(value: float) -> bool:
    """Return whether a number can be the weight of an image."""
    return 0 <= value < math.inf


@dataclass(frozen=True, slots=True)
class ImageRow:
    """The description of one image in a cache, without its features."""

    ref: ImageRef  # where the image was found
    sha256: str  # SHA-256 of the file's bytes, 64 hexadecimal digits; identifies the row in a cache
    width_px: int  # size after EXIF rotation and before the resize
    height_px: int
    #: Conversions and oddities: ``exif-rotated-90``, ``alpha-on-white``, ``from-CMYK`` … (images/decode.py)
    notes: tuple[str, ...] = ()


#: Name of the target of heads that predict one class per image (evaluate/targets.py).
SINGLE_LABEL = "single-label"

#: Name of the target of heads that predict a number per image (evaluate/target_types/number_target.py).
NUMBER = "number"

#: Name of the target of heads that predict one of ordered levels (evaluate/target_types/order_target.py).
ORDER = "order"

#: Name of the target of heads that tell normal images from others (evaluate/target_types/normal_target.py).
NORMAL = "normal"

#: Name of the mean of several heads (heads/ensemble.py).
ENSEMBLE = "ensemble"


@dataclass(frozen=True, slots=True)
class Failure:
    """An image for which no features could be computed, with the reason as a readable text."""

    ref: ImageRef
    reason: str


@dataclass(frozen=True, slots=True)
class Quantization:
    """The parameters, besides the weights, that determine a network of 8-bit integers."""

    engine: str  # inference engine: ``openvino``
    #: Largest activation on the sample for each convolution but the last, in network order. It is mapped to 255 in the
    #: input of the next convolution.
    ranges: tuple[float, ...]
    n_images: int  # size and random seed of the calibration sample
    seed: int
    sample_sha256: str  # digest of the sorted file digests of the sample
    network_sha256: str  # digest of the quantised network: integers, scales, biases and ranges

    def __str__(self) -> str:
        return f"{self.engine} network {self.network_sha256[:12]}… of {self.n_images} images"

    @classmethod
    def from_dict(cls, values: Any) -> Quantization:
        """Return the inverse of ``asdict``; raise ValueError if a field is missing, unknown or of the wrong type."""
        kinds = {"engine": str, "n_images": int, "seed": int, "sample_sha256": str, "network_sha256": str}
        if not isinstance(values, dict) or set(values) != {*kinds, "ranges"}:
            raise ValueError(
                f"quantization needs exactly the fields {sorted({*kinds, 'ranges'})}. Received: {values!r}"
            )
        for name, kind in kinds.items():
            if type(values[name]) is not kind:
                raise ValueError(f"quantization.{name} must be {kind.__name__}. Received: {values[name]!r}")
        ranges = values["ranges"]
        if not isinstance(ranges, list) or not all(type(high) is float and 0 < high < math.inf for high in ranges):
            raise ValueError(f"quantization.ranges must be a list of positive numbers. Received: {ranges!r}")
        return cls(**{**values, "ranges": tuple(ranges)})


@dataclass(frozen=True, slots=True)
class Recipe:
    """Every input that can change a number in the cache.

    Two caches with equal recipes hold the same features for the same image bytes. The fingerprint is stored in the
    cache and in every head fitted on it.

    Attributes
    ----------
    backbone : str
        ``vgg16``, ``onnx:<name>`` for a network of the user's own, or ``foreign:<name>`` for imported features.
    weights : str
        ``imagenet`` or ``custom``.
    weights_sha256 : str
        Digest of all weight tensors in network order, float32, little-endian; of the file of an own network.
    layer : str
        Keras name of the layer whose output is stored.
    pooled_layers : tuple[str, ...]
        Layers whose spatial averages are stored too.
    input_size_px : int
        Height and width of the network's input.
    decode : str
        Version of the decoding rules (EXIF, alpha, 16 bit …): images/decode.py.
    resize : str
        Resize preset: images/resize.py. ``jpeg-draft`` also sets the scale at which JPEGs are decoded.
    precision : str
        Type used by the forward pass: ``float32``, ``bfloat16``, ``float16`` or ``int8``.
    storage : str
        Type of the stored features: ``float16`` or ``float32``.
    format_version : int
        Of the cache.
    quantization : Quantization | None
        Required by ``int8``; None, and not written, for other precisions.
    views : str
        One of :data:`VIEWS`; ``single`` is not written.
    page : int | str | None
        Page taken from multi-page files, counted from 1, or one of :data:`PROJECTIONS`; None, not written, is the first
        page.
    intensity : tuple[float, float] | None
        Values mapped to 0 and 255 in images of more than 8 bits; None, not written, is the range of the image's type.
    own_network : OwnNetwork | None
        Preprocessing and output of a network of the user's own; None, not written, for others.
    random_crop : int
        Number of the random crop and flip of each image that was taken instead of the image (images/resize.py); 0, not
        written, is the image itself.
    """

    backbone: str
    weights: str
    weights_sha256: str
    layer: str
    pooled_layers: tuple[str, ...]
    input_size_px: int
    decode: str
    resize: str
    precision: str
    storage: str
    format_version: int = 1
    quantization: Quantization | None = None
    views: str = "single"
    page: int | str | None = None
    intensity: tuple[float, float] | None = None
    own_network: OwnNetwork | None = None
    random_crop: int = 0

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the recipe, 64 hexadecimal digits; equal if and only if two recipes are equal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Return the recipe as one line of JSON with sorted keys."""
        values = asdict(self)
        for name, unwritten in UNWRITTEN.items():
            if values[name] == unwritten:
                del values[name]
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Return the inverse of :meth:`to_json`; raise ValueError if a field is missing, unknown or of the wrong type."""
        values = json.loads(text)
        expected = {f.name for f in fields(cls)} - set(UNWRITTEN)
        if not isinstance(values, dict) or set(values) - set(UNWRITTEN) != expected:
            received = sorted(values) if isinstance(values, dict) else type(values).__name__
            raise ValueError(f"a recipe needs exactly the fields {sorted(expected)}. Received: {received}")
        layers = values["pooled_layers"]
        if not isinstance(layers, list) or not all(isinstance(name, str) for name in layers):
            raise ValueError(f"pooled_layers must be a list of layer names. Received: {layers!r}")
        for name in expected - {"pooled_layers"}:
            wanted = int if name in {"input_size_px", "format_version"} else str
            if not isinstance(values[name], wanted) or isinstance(values[name], bool):
                raise ValueError(f"{name} must be {wanted.__name__}. Received: {values[name]!r}")
        for name, checked in CHECKED.items():
            if name in values:
                values[name] = checked(values[name])
        return cls(**{**values, "pooled_layers": tuple(layers)})

    def differences(self, other: Recipe) -> tuple[str, ...]:
        """Return ``field: mine ≠ theirs`` for each field that differs."""
        pairs = ((f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return tuple(f"{name}: {mine} ≠ {theirs}" for name, mine, theirs in pairs if mine != theirs)


def checked_page(value: Any) -> int | str:
    """Return the page of a recipe; raise ValueError unless it is an integer from 2 or a projection."""
    if value in PROJECTIONS or (type(value) is int and value >= 2):
        return value  # type: ignore[no-any-return]
    raise ValueError(f"page, where it is written, is 2 or more, {' or '.join(PROJECTIONS)}. Received: {value!r}")


def checked_intensity(value: Any) -> tuple[float, float]:
    """Return the intensity window of a recipe; raise ValueError unless it is two finite ascending numbers."""
    if isinstance(value, list | tuple) and len(value) == 2 and all(type(v) in {int, float} for v in value):
        low, high = map(float, value)
        if -math.inf < low < high < math.inf:
            return low, high
    raise ValueError(f"intensity, where it is written, is two finite numbers, the lower first. Received: {value!r}")


def checked_views(value: Any) -> str:
    """Return the views of a recipe; raise ValueError unless they are several of :data:`VIEWS`."""
    if isinstance(value, str) and value in VIEWS and value != "single":
        return value
    raise ValueError(f"views, where it is written, is {' or '.join(tuple(VIEWS)[1:])}. Received: {value!r}")


def checked_crop(value: Any) -> int:
    """Return the number of a recipe's random crop; raise ValueError unless it is an integer from 1."""
    if type(value) is int and value >= 1:
        return value
    raise ValueError(f"random_crop, where it is written, is 1 or more. Received: {value!r}")


#: What reads each field of :data:`UNWRITTEN`, where it is written.
CHECKED: Mapping[str, Callable[[Any], Any]] = {
    "quantization": Quantization.from_dict,
    "views": checked_views,
    "page": checked_page,
    "intensity": checked_intensity,
    "own_network": OwnNetwork.from_dict,
    "random_crop": checked_crop,
}


@dataclass(frozen=True, slots=True)
class FeatureBatch:
    """Features of several images, in the order of the images."""

    features: NDArray[np.floating[Any]]  # output of the recipe's layer; shape (n_images, height, width, channels)
    pooled: NDArray[np.float32]  # spatial averages of the pooled layers, concatenated; shape (n_images, n_pooled)
    #: Layer of each column of ``pooled``; may be left out where there are no columns, or only one pooled layer
    pooled_column_layer: tuple[str, ...] = ()
    others: tuple[FeatureBatch, ...] = ()  # features of the same images by the further recipes of a join

    def __len__(self) -> int:
        return len(self.features)


class Backbone(Protocol):
    """The interface of a frozen network on some engine. A subclass sets ``recipe`` and implements ``forward``."""

    recipe: Recipe  # of the features
    device: str = "cpu"  # that computes, e.g. ``gpu:0``

    @property
    def batch_size(self) -> int:
        """Images per forward pass; reduced after memory has run out."""
        ...

    def forward(self, images: NDArray[np.uint8]) -> FeatureBatch:
        """Return features of RGB images, uint8 of shape (n_images, size, size, 3), n_images ≥ 1."""
        ...

    def start(self, images: NDArray[np.uint8]) -> Callable[[], FeatureBatch]:
        """Start a forward pass, and return a callable that waits for its features.

        Override it where the device computes asynchronously: the next pass is started before the features of this one are
        fetched (extract/pipeline.py).
        """
        features = self.forward(images)
        return lambda: features


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """The configuration of a head: everything needed to fit it again.

    Attributes
    ----------
    type : str
        Name in the catalogue (heads/catalogue.py), or import path of a scikit-learn classifier.
    features : tuple[str, ...]
        ``avg``, ``max``, ``gem``, ``crops`` or ``flatten`` of the stored layer, or pooled layers; concatenated in this
        order. On a join of caches each has the number of its cache, e.g. ``2:avg``.
    scaling : str
        ``sqrt-l2``, ``l2``, ``standard`` or ``none``.
    random_state : int
    params : Mapping[str, Any]
        Parameters of the estimator that differ from the catalogue's defaults; JSON types only.
    widths : tuple[int, ...]
        On a join of caches, the columns of each cache, which are scaled on their own; otherwise empty.
    """

    type: str
    features: tuple[str, ...]
    scaling: str
    random_state: int = 0
    params: Mapping[str, Any] = field(default_factory=dict)
    widths: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; ``widths`` only on a join."""
        values = asdict(self)
        return values if self.widths else {name: value for name, value in values.items() if name != "widths"}


class Progress(Protocol):
    """Callbacks that report the progress of a run."""

    def message(self, text: str) -> None:
        """Report one sentence."""

    def start(self, n_images: int) -> None:
        """Report the number of images to be computed."""

    def advance(self, n_images: int, place: str = "") -> None:
        """Report finished images, failures included, and where they were computed (e.g. the node of a cluster)."""


class Silence:
    """Progress that only logs messages."""

    def message(self, text: str) -> None:
        """Log it."""
        log.info(text)

    def start(self, n_images: int) -> None:
        """Do nothing."""

    def advance(self, n_images: int, place: str = "") -> None:
        """Do nothing."""
