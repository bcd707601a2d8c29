"""verify with the real network: preprocessing that is wrong is found, whatever the mistake."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from headstart.backbones.convnet import Weights
from headstart.backbones.tensorflow import FrozenBackbone
from headstart.extract.pipeline import extract_shard
from headstart.extract.shard_jobs import ShardJob
from headstart.images.discovery.scan import discover
from headstart.types import Backbone, FeatureBatch
from headstart.verify import verify_cache

pytestmark = pytest.mark.weights

SIZE = 96


@pytest.fixture(scope="module")
def backbone(imagenet: Weights) -> FrozenBackbone:
    return FrozenBackbone(imagenet, input_size_px=SIZE, batch_size=4)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures with smooth colours, as photographs have them."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(6):
        blocks = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((120, 110), Image.Resampling.BICUBIC).save(root / f"{number}.png")
    return root


class Wrapper(Backbone):
    """The real network behind pixels that are prepared wrongly; its recipe is that of the right ones."""

    def __init__(self, backbone: FrozenBackbone, mistake: str) -> None:
        self.recipe, self.device, self.inner, self.mistake = backbone.recipe, backbone.device, backbone, mistake

    @property
    def batch_size(self) -> int:
        return self.inner.batch_size

    def forward(self, images: NDArray[np.uint8]) -> FeatureBatch:
        if self.mistake == "RGB instead of BGR":
            images = np.ascontiguousarray(images[..., ::-1])
        elif self.mistake == "divided by 255":
            images = (images / 255).round().astype(np.uint8)
        return self.inner.forward(images)


@pytest.mark.parametrize("mistake", ["", "RGB instead of BGR", "divided by 255"])
def test_wrong_preprocessing_is_found(photos: Path, tmp_path: Path, backbone: FrozenBackbone, mistake: str) -> None:
    images, path = discover(photos), tmp_path / "a.h5"
    extract_shard(images.refs, path, job=ShardJob(photos, ()), backbone=Wrapper(backbone, mistake))
    assert verify_cache(path).findings == ()
    found = verify_cache(path, photos, n_sample=4, backbone=backbone)
    assert found.n_recomputed == 4
    if not mistake:
        assert found.findings == ()
        assert found.lowest_cosine > 0.99999
        assert found.largest_error < 1e-3
        return
    assert found.findings[-1].place == "recipe"
    assert "channel order, scale" in found.findings[-1].what
    assert found.lowest_cosine < 0.99
