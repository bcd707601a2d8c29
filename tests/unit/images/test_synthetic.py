from __future__ import annotations

import pytest

from headstart.doctor.machine import photograph
from headstart.images.decode import decode


@pytest.mark.parametrize("megapixels", [0.01, 0.1, 1.0])
def test_a_synthetic_photograph_is_as_large_as_asked_for_and_costs_as_one(megapixels: float) -> None:
    data = photograph(megapixels)
    image = decode(data, name="photo.jpg")
    assert image.width_px * image.height_px == pytest.approx(megapixels * 1e6, rel=0.03)
    assert image.width_px / image.height_px == pytest.approx(4 / 3, rel=0.03)
    assert image.notes == ()
    assert 0.17 < len(data) / (megapixels * 1e6) < 0.46


def test_equal_for_equal_seeds() -> None:
    assert photograph(0.01) == photograph(0.01) != photograph(0.02)
