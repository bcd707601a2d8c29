"""The options of an extraction."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from headstart.errors import DataError
from headstart.extract.shard_jobs import SHARD_IMAGES
from headstart.ray_cluster import ClusterOptions
from headstart.runtime import usable_cores


class OnImages(Protocol):
    """Callback for finished images, failures included; ``place`` is the device or node, where there are several."""

    def __call__(self, n_images: int, place: str = "", /) -> None:
        """Count images done."""


@dataclass(frozen=True, slots=True)
class ExtractOptions:
    """How features are made and stored; the defaults are the command's.

    Attributes
    ----------
    backbone : str
        Name of the network (``headstart.backbones.registry.BACKBONES``), or path of an ONNX model with a description beside
        it (docs/own-backbone.md).
    weights : str or Path, optional
        Name of published weights, e.g. ``imagenet``, or a weights file; the default is the first published one.
    custom_weights : bool
        Accept a file that does not hold published weights.
    layer, input_size_px : optional
        Layer to store, and height and width of the input; the defaults are the backbone's.
    resize, storage, views, page
        See :class:`headstart.types.Recipe`.
    intensity : str or tuple of float
        Which sample values of more than 8 bits become 0 and 255: ``type``, the limits of each image's type; two values; or
        ``range`` or ``percentiles`` of the data set, found before the extraction (extract/network.py). A cache that has
        two values keeps them.
    random_crop : int
        Number of the random crop of each training image to take instead of the image (headstart/crops.py); 0: all images
        as they are.
    precision : str
        ``auto``, ``float32``, ``bfloat16``, ``float16`` or ``int8``; ``auto`` takes what is proven equal, never ``int8``.
    compression : str
        ``zstd``, ``gzip`` or ``none``.
    batch_size : int, optional
        Images per forward pass, of which each view is one; the default fits the device.
    device : str
        ``auto``, every GPU or else the CPU; ``cpu`` or ``gpu:N``; or several with commas between, as ``gpu:0,gpu:1``.
    decode_threads : int
        Images decoded at the same time.
    stop_on_failure : bool
        Stop at the first image that cannot be read.
    overwrite : bool
        Make the cache anew, whatever is there.
    keep_missing : bool
        Keep the rows of images that are gone, unless they lie under another name now.
    drop_missing : bool
        Drop them even if they are most of the cache, or it was made from another folder (extract/plan.py).
    check_bytes : bool
        Compare the bytes of every image with the digest in the cache, not only size, times and inode.
    shard_images : int
        Images that a crash costs at most; files of half as many are written on the way.
    cache_layout : str
        ``file``; ``shards``, a folder of files of some images each and a manifest; or ``auto``, what is there already, else
        a file.
    engine : str
        ``local``, this process; or ``ray``, the workers of a cluster (extract/ray_engine.py).
    cluster : ClusterOptions
        Where those workers run.
    """

    backbone: str = "vgg16"
    weights: str | Path | None = None
    custom_weights: bool = False
    layer: str | None = None
    input_size_px: int | None = None
    resize: str = "keras-bilinear"
    precision: str = "auto"
    storage: str = "float16"
    views: str = "single"
    page: int | str | None = None
    intensity: str | tuple[float, float] = "type"
    random_crop: int = 0
    compression: str = "zstd"
    batch_size: int | None = None
    device: str = "auto"
    decode_threads: int = field(default_factory=usable_cores)
    stop_on_failure: bool = False
    overwrite: bool = False
    keep_missing: bool = False
    drop_missing: bool = False
    check_bytes: bool = False
    shard_images: int = SHARD_IMAGES
    cache_layout: str = "auto"
    engine: str = "local"
    cluster: ClusterOptions = field(default_factory=ClusterOptions)

    def __post_init__(self) -> None:
        """Raise DataError where two options contradict each other."""
        if self.keep_missing and self.overwrite:
            raise DataError(
                "`keep_missing=True` keeps rows of the cache that `overwrite=True` replaces. Give one of them."
            )
        if self.keep_missing and self.drop_missing:
            raise DataError("`keep_missing=True` keeps the rows that `drop_missing=True` drops. Give one of them.")

    @property
    def first_device(self) -> str:
        """The first of several devices."""
        return self.device.split(",")[0].strip()

    @property
    def file_images(self) -> int:
        """Images of a shard: half of what a crash may cost, so that one is finished while the network works for the next."""
        return -(-self.shard_images // 2)
