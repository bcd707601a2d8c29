from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headstart.backbones import vgg16 as weights
from headstart.backbones.vgg16 import IMAGENET_VGG16
from headstart.errors import WeightsError


def zeros() -> weights.Tensors:
    return {layer: (np.zeros((1,), np.float32), np.zeros((1,), np.float32)) for layer in IMAGENET_VGG16}


def test_a_mismatch_names_the_layer() -> None:
    with pytest.raises(WeightsError, match=r"block1_conv1 \(kernel\) differs.*25 more.*custom_weights=True"):
        weights.checked(zeros(), source="a file")


def test_custom_weights_get_their_own_digest() -> None:
    first = weights.checked(zeros(), source="a file", custom=True)
    other = zeros() | {"block5_conv3": (np.ones((1,), np.float32), np.zeros((1,), np.float32))}
    second = weights.checked(other, source="a file", custom=True)
    assert first.name == second.name == "custom"
    assert len({first.sha256, second.sha256, weights.IMAGENET_VGG16_SHA256}) == 3


def test_custom_weights_need_a_file() -> None:
    with pytest.raises(WeightsError, match="weights=PATH"):
        weights.load_weights("imagenet", custom=True)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weights file at"):
        weights.load_weights(tmp_path / "absent.h5")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"Expected: a Keras \.h5"):
        weights.load_weights(path)


def test_a_damaged_onnx_file_is_an_error_with_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "weights.onnx"
    path.write_bytes(b"\x00" * 100)
    with pytest.raises(WeightsError, match="cannot be read as VGG16 weights"):
        weights.read_onnx_file(path)


def test_sources_are_looked_for_in_keras_home_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert weights.local_sources()[0].read is None
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / weights.KERAS_FILE).write_bytes(b"x")
    assert weights.local_sources()[0].location == str(tmp_path / "models" / weights.KERAS_FILE)
