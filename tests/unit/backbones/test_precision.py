from __future__ import annotations

import numpy as np

from fakes import FakeBackbone
from headstart.backbones.precision import choose_precision, row_cosines
from headstart.types import FeatureBatch

IMAGES = np.random.default_rng(1).integers(0, 256, (3, 35, 35, 3), dtype=np.uint8)


class WrongInOneRow(FakeBackbone):
    """A device that is right but for one image."""

    def forward(self, images: np.ndarray) -> FeatureBatch:
        batch = super().forward(images)
        batch.features[-1] = batch.features[-1, ::-1]
        return batch


def test_the_reduced_type_is_taken_where_every_row_agrees() -> None:
    built: dict[str, FakeBackbone] = {}
    chosen, reason = choose_precision(lambda p: built.setdefault(p, FakeBackbone()), "bfloat16", "cpu", IMAGES)
    assert chosen is built["bfloat16"]
    assert reason.startswith("bfloat16")


def test_one_row_that_disagrees_keeps_float32() -> None:
    built: dict[str, FakeBackbone] = {"bfloat16": WrongInOneRow()}
    chosen, reason = choose_precision(lambda p: built.setdefault(p, FakeBackbone()), "bfloat16", "cpu", IMAGES)
    assert chosen is built["float32"]
    assert "did not pass" in reason


def test_without_a_native_type_nothing_is_computed() -> None:
    backbone = FakeBackbone()
    chosen, _ = choose_precision(lambda _p: backbone, None, "cpu", IMAGES)
    assert chosen is backbone
    assert backbone.n_images == 0


def test_cosines_of_rows_without_direction() -> None:
    a = np.array([[0, 0], [0, 0], [1, 0], [np.inf, 0], [3, 4]], np.float32)
    b = np.array([[0, 0], [1, 0], [0, 1], [1, 0], [6, 8]], np.float32)
    np.testing.assert_allclose(row_cosines(a, b), [1, 0, 0, 0, 1])
