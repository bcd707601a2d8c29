from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fakes import FakeBackbone
from headstart.errors import BundleError, RecipeMismatchError
from headstart.heads import bundle as bundles
from headstart.heads.bundle import Bundle, load_bundle, save_bundle
from headstart.heads.catalogue import HEAD_TYPES, default_spec, make_head
from headstart.heads.transforms import design_matrix
from headstart.runtime import import_keras
from headstart.schema import FeatureBatch

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 35, 35, 3), dtype=np.uint8)
LABELS = np.repeat([0, 2], 12)  # class 1 has no image


@pytest.fixture(scope="module")
def batch() -> FeatureBatch:
    return FakeBackbone().forward(IMAGES)


def fitted(name: str, batch: FeatureBatch) -> Bundle:
    spec = default_spec(name, params={"epochs": 2} if name == "dense" else None)
    head = make_head(spec).fit(design_matrix([batch], spec.features), LABELS)
    return Bundle(head, spec, FakeBackbone().recipe, ("ant", "bee", "cat"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, batch: FeatureBatch) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("heads")
    return {n: save_bundle(folder / n, fitted(n, batch), metrics={"accuracy": 0.5}) for n in ("dense", "logistic")}


def refresh_digest(folder: Path, name: str) -> None:
    """An attacker can write digests too."""
    facts = json.loads((folder / "bundle.json").read_text())
    facts["files"][name] = bundles.digest(folder / name)
    (folder / "bundle.json").write_text(json.dumps(facts))


@pytest.fixture
def copy_of(saved: dict[str, Path], tmp_path: Path):
    import shutil

    return lambda name: Path(shutil.copytree(saved[name], tmp_path / name))


@pytest.mark.parametrize("name", list(HEAD_TYPES))
def test_a_head_comes_back_as_it_was(name: str, batch: FeatureBatch, tmp_path: Path) -> None:
    before = fitted(name, batch)
    expected = before.predict_proba([batch], before.recipe)
    after = load_bundle(save_bundle(tmp_path / "head", before, metrics={"accuracy": 0.5}))
    np.testing.assert_array_equal(after.predict_proba([batch], before.recipe), expected)
    assert (after.spec, after.recipe, after.class_names) == (before.spec, before.recipe, before.class_names)
    assert after.metrics == {"accuracy": 0.5}
    np.testing.assert_array_equal(expected[:, 1], 0)
    assert not [path for path in tmp_path.iterdir() if path.name != "head"]


@pytest.mark.parametrize("name", ["dense", "logistic"])
def test_no_file_of_a_bundle_is_a_pickle(name: str, saved: dict[str, Path]) -> None:
    def members(data: bytes) -> list[bytes]:
        if not zipfile.is_zipfile(io.BytesIO(data)):
            return [data]
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return [part for info in archive.infolist() for part in members(archive.read(info))]

    for path in saved[name].iterdir():
        for data in members(path.read_bytes()):
            assert not data.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")), path
            if data.startswith(b"\x93NUMPY"):
                np.load(io.BytesIO(data), allow_pickle=False)


def test_another_recipe_is_refused_with_its_field(saved: dict[str, Path], batch: FeatureBatch) -> None:
    head = load_bundle(saved["logistic"])
    with pytest.raises(RecipeMismatchError, match="input_size_px: 35 ≠ 224"):
        head.predict_proba([batch], replace(head.recipe, input_size_px=224))


def test_a_logistic_head_is_loaded_without_tensorflow(saved: dict[str, Path]) -> None:
    code = (
        "import sys; from pathlib import Path; from headstart.heads.bundle import load_bundle; "
        f"load_bundle(Path({str(saved['logistic'])!r})); assert not {{'tensorflow', 'keras'}}.intersection(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (os.environ["EVIL"],)


def test_a_pickle_in_place_of_a_head_is_not_run(copy_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVIL", str(tmp_path / "ran"))
    folder = copy_of("logistic")
    (folder / "head.skops").write_bytes(pickle.dumps(Evil()))
    refresh_digest(folder, "head.skops")
    with pytest.raises(BundleError, match=r"head\.skops cannot be loaded"):
        load_bundle(folder)
    assert not (tmp_path / "ran").exists()


def test_an_unknown_type_in_a_head_is_not_built(copy_of, tmp_path: Path) -> None:
    import skops.io
    from sklearn.preprocessing import FunctionTransformer

    folder = copy_of("logistic")
    skops.io.dump(FunctionTransformer(os.system), folder / "head.skops")
    refresh_digest(folder, "head.skops")
    with pytest.raises(BundleError, match=r"types that no head needs.*system"):
        load_bundle(folder)


def test_a_lambda_layer_in_a_network_is_not_built(copy_of) -> None:
    keras = import_keras()
    folder = copy_of("dense")
    network = keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: x)])
    network.save(folder / "network.keras")
    refresh_digest(folder, "network.keras")
    with pytest.raises(BundleError, match="Lambda"):
        load_bundle(folder)


def test_a_damaged_file_is_named(copy_of) -> None:
    folder = copy_of("logistic")
    data = bytearray((folder / "head.skops").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "head.skops").write_bytes(data)
    with pytest.raises(BundleError, match=r"head\.skops is missing or not the file"):
        load_bundle(folder)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": "other"}', '{"format": "headstart-bundle", "format_version": 99}']
)
def test_a_folder_that_is_no_bundle_is_refused(text: str, copy_of) -> None:
    folder = copy_of("logistic")
    (folder / "bundle.json").write_text(text)
    with pytest.raises(BundleError):
        load_bundle(folder)


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no saved head"):
        load_bundle(tmp_path)


def test_only_a_bundle_is_replaced(batch: FeatureBatch, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "dear.jpg").touch()
    with pytest.raises(BundleError, match="no saved head, so it is not replaced"):
        save_bundle(tmp_path / "photos", fitted("logistic", batch), metrics={})
    assert (tmp_path / "photos" / "dear.jpg").exists()
    for _ in range(2):
        save_bundle(tmp_path / "head", fitted("logistic", batch), metrics={})
    load_bundle(tmp_path / "head")


def test_another_version_of_scikit_learn_is_said(copy_of) -> None:
    folder = copy_of("logistic")
    facts = json.loads((folder / "bundle.json").read_text())
    facts["versions"]["scikit-learn"] = "0.1.0"
    (folder / "bundle.json").write_text(json.dumps(facts))
    with pytest.warns(UserWarning, match=r"fitted with scikit-learn 0\.1\.0"):
        load_bundle(folder)
