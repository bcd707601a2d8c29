"""The file of a bundle with what is kept of the training images; it can come from anybody."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import FakeBackbone
from headstart.bundles import familiarity_file
from headstart.bundles.familiarity_file import familiarity_bytes, read_familiarity
from headstart.decisions.familiarity import Familiarity, fit_familiarity
from headstart.errors import BundleError

RECIPE = FakeBackbone().recipe


@pytest.fixture
def saved() -> Familiarity:
    X = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    names = [f"ants/{i}\udcff.jpg" for i in range(40)]
    found = fit_familiarity(X, np.arange(40), ("block4_conv3", "avg"), names, ["ants"] * 40)
    assert found is not None
    return found


def test_what_is_written_is_read(tmp_path: Path, saved: Familiarity) -> None:
    (tmp_path / "f").write_bytes(familiarity_bytes(saved))
    found = read_familiarity(tmp_path / "f", RECIPE)
    X = np.random.default_rng(1).normal(size=(9, 6)).astype(np.float32)
    np.testing.assert_array_equal(found.unfamiliarity(X), saved.unfamiliarity(X))
    np.testing.assert_array_equal(found.nearest(X), saved.nearest(X))
    assert (found.features, found.paths, found.labels) == (saved.features, saved.paths, saved.labels)


def test_long_names_are_left_out_with_their_images(
    tmp_path: Path, saved: Familiarity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(familiarity_file, "MAX_NAME_BYTES", 300)
    (tmp_path / "f").write_bytes(familiarity_bytes(saved))
    found = read_familiarity(tmp_path / "f", RECIPE)
    assert 1 < len(found.paths) == len(found.coordinates) < 20


def changed(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[end:]


@pytest.mark.parametrize(
    "values",
    [
        {"n_features": 10**12},
        {"n_features": -6},
        {"n_components": True},
        {"n_images": 39},
        {"n_coordinates": 7},
        {"threshold": 0.0},
        {"threshold": float("nan")},
        {"residual_variance": "1"},
        {"features": ["flatten"]},
        {"features": []},
        {"features": "avg"},
        {"paths": ["a"]},
        {"labels": [1] * 40},
    ],
)
def test_a_false_header_is_refused(tmp_path: Path, saved: Familiarity, values: dict[str, Any]) -> None:
    (tmp_path / "f").write_bytes(changed(familiarity_bytes(saved), lambda header: header.update(values)))
    with pytest.raises(BundleError, match="is damaged"):
        read_familiarity(tmp_path / "f", RECIPE)


def test_any_changed_or_missing_byte_gives_values_or_a_sentence(tmp_path: Path, saved: Familiarity) -> None:
    data = familiarity_bytes(saved)
    random = np.random.default_rng(0)
    contents = [data[:n] for n in random.integers(0, len(data), 100)]
    places = random.integers(0, len(data), 300).tolist()
    contents += [data[:i] + bytes([data[i] ^ random.integers(1, 256)]) + data[i + 1 :] for i in places]
    for content in contents:
        (tmp_path / "f").write_bytes(content)
        try:
            found = read_familiarity(tmp_path / "f", RECIPE)
        except BundleError:
            continue
        assert found.unfamiliarity(np.zeros((1, 6), np.float32)).shape == (1,)


def test_variances_are_positive(tmp_path: Path, saved: Familiarity) -> None:
    data = familiarity_bytes(saved)
    start = 8 + int.from_bytes(data[:8], "little") + 4 * 6
    (tmp_path / "f").write_bytes(data[:start] + np.float32(-1).tobytes() + data[start + 4 :])
    with pytest.raises(BundleError, match="a variance is not positive"):
        read_familiarity(tmp_path / "f", RECIPE)


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as file:
        file.truncate(familiarity_file.MAX_BYTES + 1)
    with pytest.raises(BundleError, match="larger than"):
        read_familiarity(tmp_path / "f", RECIPE)
