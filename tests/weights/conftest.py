"""The real weights are read once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest

from headstart.backbones import vgg16 as weights

#: Digest, parsing and copies of 58 MB take a quarter of a second, which every network and every export would take anew.
read_wheel_file = cache(weights.read_wheel_file)


@pytest.fixture(scope="module", autouse=True)
def weights_in_memory() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "read_wheel_file", read_wheel_file)
        yield
