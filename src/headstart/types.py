"""Immutable types shared across packages: free of I/O."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

#: The names a split may have, in the order in which people list them.
SPLITS = ("train", "validation", "test")

#: Last convolution of each VGG16 block and its channels: the columns of ``pooled``, in this order (1,472 in all).
#: Simonyan & Zisserman, "Very Deep Convolutional Networks", 2015, table 1, configuration D.
POOLED_LAYERS: tuple[tuple[str, int], ...] = (
    ("block1_conv2", 64),
    ("block2_conv2", 128),
    ("block3_conv3", 256),
    ("block4_conv3", 512),
    ("block5_conv3", 512),
)

#: Their names alone.
POOLED_LAYER_NAMES = tuple(name for name, _ in POOLED_LAYERS)

#: What features may be the mean of: an image as it is, which is not written; or that and its mirror image
#: (backbones/registry.py).
VIEWS = ("single", "mirrored")

#: How several pages of a file become one picture, other than by choosing one of them (images/samples.py).
PROJECTIONS = ("max", "mean")


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One image file as a scan of the input found it; nothing of it has been read yet.

    Attributes
    ----------
    path : str
        Relative to the root of the scan, ``/`` between parts. Bytes that are not UTF-8 are kept as lone surrogates
        (``os.fsdecode``), so that the file can be opened again.
    label : str or None
        Name of the class; None where the images are unlabelled.
    split : str or None
        One of :data:`SPLITS`, or None.
    group : str or None
        Images of one group (a patient, a module) never sit on both sides of a split.
    size_bytes, mtime_ns : int
        As ``os.stat`` gives them; a first guess whether the file changed.
    stamp : int
        32 bits of the file's inode and time of status change (images/discovery/refs.py), which another file of the same
        size and time does not have; 0 where they are not known.
    """

    path: str
    label: str | None
    split: str | None
    group: str | None
    size_bytes: int
    mtime_ns: int
    stamp: int = 0


@dataclass(frozen=True, slots=True)
class ImageRow:
    """Everything a cache knows of one image but its features.

    Attributes
    ----------
    ref : ImageRef
        Where it was found.
    sha256 : str
        64 hexadecimal digits, of the bytes of the file that was decoded. The identity of the row.
    width_px, height_px : int
        Of the image as it is seen (after EXIF rotation), before the resize.
    notes : tuple of str
        What was done to it or odd about it: ``exif-rotated-90``, ``alpha-on-white``, ``from-CMYK`` … (images/decode.py).
    """

    ref: ImageRef
    sha256: str
    width_px: int
    height_px: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """An image that could not be turned into features, and why, in words for a person."""

    ref: ImageRef
    reason: str


@dataclass(frozen=True, slots=True)
class Quantization:
    """What makes 8-bit integers of a network, besides its weights; enough to make the same network again.

    Attributes
    ----------
    engine : str
        ``openvino``: what computes in them.
    ranges : tuple of float
        Largest value that each convolution but the last had on the sample, in network order: what 255 stands for in the
        input of the next one.
    n_images, seed : int
        Size and seed of the sample of images.
    sample_sha256 : str
        Digest of the digests of their files, sorted.
    network_sha256 : str
        Digest of the quantised network: integers, scales, biases and ranges.
    """

    engine: str
    ranges: tuple[float, ...]
    n_images: int
    seed: int
    sample_sha256: str
    network_sha256: str

    def __str__(self) -> str:
        return f"{self.engine} network {self.network_sha256[:12]}… of {self.n_images} images"

    @classmethod
    def from_dict(cls, values: Any) -> Quantization:
        """Return what ``asdict`` made; raise ValueError where a field is missing, unknown or of the wrong type."""
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

    Two caches with equal recipes hold the same features for the same image bytes. The fingerprint is written into the
    cache, into every head fitted on it, and into every refusal.

    Attributes
    ----------
    backbone : str
        ``vgg16``, or ``foreign:<name>`` for features made elsewhere.
    weights : str
        ``imagenet`` or ``custom``.
    weights_sha256 : str
        Digest of all tensors of the backbone in network order, float32, little-endian.
    layer : str
        Keras name of the layer whose output is stored.
    pooled_layers : tuple of str
        Layers whose spatial averages are stored beside it.
    input_size_px : int
        Height and width of the network's input.
    decode : str
        Version of the rules that turn a file into RGB (EXIF, alpha, 16 bit …): images/decode.py.
    resize : str
        Name of the resize preset: images/resize.py, which for ``jpeg-draft`` includes the scale that JPEGs are decoded at.
    precision : str
        ``float32``, ``bfloat16``, ``float16`` or ``int8``: the type the forward pass multiplied in.
    storage : str
        ``float16`` or ``float32``: the type the layer's output is stored in.
    format_version : int
        Version of the cache format.
    quantization : Quantization or None
        How the network was made one of ``int8``; None in every other precision, and the field is not written then.
    views : str
        One of :data:`VIEWS`; ``single`` is not written.
    page : int, str or None
        Page of a file of several that was taken, counted from 1, or one of :data:`PROJECTIONS`. None, which is not written:
        the first.
    intensity : tuple of float or None
        The sample values of more than 8 bits that became 0 and 255. None, which is not written: those of the image's type.
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

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that are equal exactly when two recipes are."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """One line of JSON with sorted keys: the same text for the same recipe, always."""
        values = asdict(self)
        for name, unwritten in UNWRITTEN.items():
            if values[name] == unwritten:
                del values[name]
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Return the recipe that :meth:`to_json` wrote.

        Raises
        ------
        ValueError
            If a field is missing, unknown or of the wrong type.
        """
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
        if "quantization" in values:
            values["quantization"] = Quantization.from_dict(values["quantization"])
        if "views" in values and values["views"] not in VIEWS[1:]:
            raise ValueError(f"views, where it is written, is {' or '.join(VIEWS[1:])}. Received: {values['views']!r}")
        if "page" in values:
            values["page"] = checked_page(values["page"])
        if "intensity" in values:
            values["intensity"] = checked_intensity(values["intensity"])
        return cls(**{**values, "pooled_layers": tuple(layers)})

    def differences(self, other: Recipe) -> tuple[str, ...]:
        """Return ``field: mine ≠ theirs`` for every field that differs; empty when the recipes are equal."""
        pairs = ((f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return tuple(f"{name}: {mine} ≠ {theirs}" for name, mine, theirs in pairs if mine != theirs)


#: Fields that a recipe is written without while they have these values: those that came after the first recipes, whose
#: text, and so their fingerprints, stay what they were.
UNWRITTEN: Mapping[str, Any] = {"quantization": None, "views": VIEWS[0], "page": None, "intensity": None}


def checked_page(value: Any) -> int | str:
    """Return the page of a recipe; raise ValueError where it is neither a number from 2 on nor a projection."""
    if value in PROJECTIONS or (type(value) is int and value >= 2):
        return value  # type: ignore[no-any-return]
    raise ValueError(f"page, where it is written, is 2 or more, {' or '.join(PROJECTIONS)}. Received: {value!r}")


def checked_intensity(value: Any) -> tuple[float, float]:
    """Return the two sample values of a recipe; raise ValueError where they are not finite and ascending."""
    if isinstance(value, list | tuple) and len(value) == 2 and all(type(v) in {int, float} for v in value):
        low, high = map(float, value)
        if -math.inf < low < high < math.inf:
            return low, high
    raise ValueError(f"intensity, where it is written, is two finite numbers, the lower first. Received: {value!r}")


@dataclass(frozen=True, slots=True)
class FeatureBatch:
    """Features of some images, rows in the order of the images.

    Attributes
    ----------
    features : ndarray of shape (n_images, height, width, channels), float16 or float32
        Output of the recipe's layer, channels last.
    pooled : ndarray of shape (n_images, n_pooled), float32
        Spatial averages of the pooled layers, side by side.
    """

    features: NDArray[np.floating[Any]]
    pooled: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.features)


class Backbone(Protocol):
    """What extraction needs of a frozen network; the real one is ``backbone.vgg16.FrozenBackbone``.

    One whose device computes beside the program may also have ``start(images)``: it starts a pass over them and returns a
    callable that waits for its FeatureBatch, so that the next pass can be started meanwhile (extract/pipeline.py).
    """

    recipe: Recipe

    @property
    def batch_size(self) -> int:
        """Images that fill a forward pass; fewer after memory has run out."""
        ...

    def forward(self, images: NDArray[np.uint8]) -> FeatureBatch:
        """Features of ``images``, uint8 of shape (n_images, size, size, 3), RGB, 0–255; any n_images ≥ 1; float32."""
        ...


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """What a head is fitted on and with; enough to fit it again.

    Attributes
    ----------
    type : str
        Name in the catalogue (heads/catalogue.py), or import path of a scikit-learn classifier.
    features : tuple of str
        ``avg``, ``max``, ``gem``, ``crops`` or ``flatten`` of the stored layer, or names of pooled layers; joined in this
        order.
    scaling : str
        ``sqrt-l2``, ``l2``, ``standard`` or ``none``.
    random_state : int
        Seeds everything random.
    params : mapping
        Parameters of the estimator that differ from the catalogue's defaults; JSON types only.
    """

    type: str
    features: tuple[str, ...]
    scaling: str
    random_state: int = 0
    params: Mapping[str, Any] = field(default_factory=dict)


class Progress(Protocol):
    """What a run tells of itself while it goes on."""

    def message(self, text: str) -> None:
        """Say one sentence."""

    def start(self, n_images: int) -> None:
        """Announce how many images will be computed."""

    def advance(self, n_images: int, place: str = "") -> None:
        """Count images that are done, failures included; and where, as on a node of a cluster, where several compute."""


class Silence:
    """Progress that nobody looks at."""

    def message(self, text: str) -> None:
        """Log it."""
        log.info(text)

    def start(self, n_images: int) -> None:
        """Say nothing."""

    def advance(self, n_images: int, place: str = "") -> None:
        """Say nothing."""
