"""A backbone for tests: no network, but features that depend on every pixel, and a count of what went through."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.vgg16 import VGG16
from headstart.types import Backbone, FeatureBatch, Recipe

N_POOLED = len(VGG16.column_layers)


class FakeBackbone(Backbone):
    """Features by fixed random projections of the image's mean colours on a 7 × 7 grid, cheap to make and to compute."""

    batch_size = 4

    def __init__(self, recipe: Recipe | None = None, batch_size: int = 4, channels: int = 16) -> None:
        self.recipe = recipe or VGG16.recipe(weights="custom", weights_sha256="0" * 64, input_size_px=35)
        self.batch_size = batch_size
        self.n_images = 0
        rng = np.random.default_rng(0)
        self._map = rng.normal(size=(3, channels)).astype(np.float32)
        self._places = np.arange(N_POOLED) % (7 * 7 * channels)
        self._weights = rng.uniform(0.1, 1, N_POOLED).astype(np.float32)

    def forward(self, images: NDArray[np.uint8]) -> FeatureBatch:
        """Features of shape (n, 7, 7, channels)."""
        n, size = len(images), self.recipe.input_size_px
        self.n_images += n
        cells = images.reshape(n, 7, size // 7, 7, size // 7, 3).mean(axis=(2, 4), dtype=np.float32) / 64
        features = np.maximum(np.stack([cell @ self._map for cell in cells.reshape(n, 49, 3)]), 0)
        pooled = features.reshape(n, -1)[:, self._places] * self._weights
        return FeatureBatch(features.reshape(n, 7, 7, -1), pooled, VGG16.column_layers)


class QuickBackbone(FakeBackbone):
    """Averages that cost nothing, for folders of many images."""

    def forward(self, images: NDArray[np.uint8]) -> FeatureBatch:
        """Features of shape (n, 7, 7, 3): the mean colours."""
        n, size = len(images), self.recipe.input_size_px
        self.n_images += n
        cells = images.reshape(n, 7, size // 7, 7, size // 7, 3).mean(axis=(2, 4), dtype=np.float32)
        return FeatureBatch(cells, np.tile(cells.reshape(n, -1), (1, 11))[:, :N_POOLED], VGG16.column_layers)


class FakeNetwork:
    """Stands in for ``extract.network.Network``: hands out a fake backbone, and remembers that it did."""

    def __init__(self, batch_size: int = 4, kind: type[FakeBackbone] = FakeBackbone) -> None:
        self.made = kind(batch_size=batch_size)
        self.asked = 0

    def is_at_hand(self) -> bool:
        """Nothing to download."""
        return True

    def wanted(self, existing: Recipe | None) -> Recipe:
        """The recipe of the fake backbone."""
        return self.made.recipe

    def backbone(self, existing: Recipe | None, images: NDArray[np.uint8], sample: object) -> tuple[FakeBackbone, str]:
        """The one fake backbone."""
        self.asked += 1
        return self.made, "float32: fake"
