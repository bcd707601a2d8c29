"""The views of an image that its features are the mean of, whatever the engine: the image, or that and its mirror image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from headstart.backbone.vgg16 import started
from headstart.schema import FeatureBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.schema import Backbone


def in_views(backbone: Backbone, views: str) -> Backbone:
    """Return a backbone that sees each image in these views (``schema.VIEWS``), from one that sees it as it is."""
    return MirroredBackbone(backbone) if views == "mirrored" else backbone


class MirroredBackbone:
    """A backbone whose features are the mean of those of an image and of its mirror image.

    Both go through the network in one pass, so that a batch holds half as many images and takes as long: nothing that counts
    batches waits longer for one.

    Parameters
    ----------
    backbone : Backbone
        That sees images as they are.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self.recipe = replace(backbone.recipe, views="mirrored")
        self.device = getattr(backbone, "device", "cpu")

    @property
    def batch_size(self) -> int:
        """Images that fill a forward pass together with their mirror images."""
        return max(1, self._backbone.batch_size // 2)

    def forward(self, images: NDArray[np.uint8]) -> FeatureBatch:
        """Return the features of images, float32; parameters and errors are those of the backbone.

        An image and its mirror image have maps that are each other's mirror images, and the same averages.
        """
        return mean_of_views(self._backbone.forward(with_mirror_images(images)))

    def start(self, images: NDArray[np.uint8]) -> Callable[[], FeatureBatch]:
        """Start a pass, where the backbone can, and compute it otherwise; return what waits for the features."""
        fetch = started(self._backbone, with_mirror_images(images))
        return lambda: mean_of_views(fetch())


def with_mirror_images(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images of shape (n_images, height, width, 3), and behind them their mirror images: (2 n_images, …)."""
    return np.concatenate([images, images[:, :, ::-1]])


def mean_of_views(both: FeatureBatch) -> FeatureBatch:
    """Return the mean of the features of images and of the mirror images behind them, whose maps are turned back.

    Computed in float32, in which the order of the two makes no difference.
    """
    n_images = len(both) // 2
    maps, mirrored = both.features[:n_images], both.features[n_images:, :, ::-1]
    half = np.float32(0.5)
    return FeatureBatch((maps + mirrored) * half, (both.pooled[:n_images] + both.pooled[n_images:]) * half)
