"""Heads on the features of several caches of the same images, side by side."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundles import change_metadata
from caches import RECIPE
from fakes import FakeBackbone, FakeNetwork
from headstart import fit
from headstart.backbones.vgg16 import VGG16
from headstart.bundles.bundle import load_bundle, short_digests
from headstart.bundles.metadata import list_heads
from headstart.cache.reader import open_cache
from headstart.errors import BundleError, DataError, HeadstartError, ParameterError, RecipeMismatchError
from headstart.evaluation import evaluate_head
from headstart.exchange.keras_file import open_request
from headstart.extract import run
from headstart.fit import fit_head
from headstart.heads.catalogue import default_spec
from headstart.heads.transforms import design_matrix
from headstart.images import load as loading
from headstart.predict import Predictor, weights_of_each
from labelled import labelled_cache
from pictures import class_folders

LABELS = [row % 3 for row in range(60)]
LARGER = replace(RECIPE, input_size_px=16)


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("joined")
    return (
        labelled_cache(folder / "a.h5", LABELS, distance=0.6, seed=1),
        labelled_cache(folder / "b.h5", LABELS, distance=0.6, seed=2, recipe=LARGER),
    )


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory, caches: tuple[Path, Path]) -> Path:
    folder = tmp_path_factory.mktemp("heads") / "a+b"
    spec = default_spec("ridge", scaling="standard")
    fit_head(caches[0], spec, among=caches[1:], join=True, output=folder)
    return folder


def test_each_cache_is_scaled_on_its_own_and_all_are_searched(caches: tuple[Path, Path]) -> None:
    result = fit_head(caches[0], "logistic", among=caches[1:], join=True)
    assert (result.spec.features, result.spec.widths) == (("1:avg", "2:avg"), (64, 64))
    assert result.search is not None
    assert len(result.search.trials) == 8
    assert (result.joined, result.caches) == (True, caches)
    assert [block.n_features_in_ for block in result.head.named_steps["scale"].scalers_] == [64, 64]
    named = fit_head(caches[0], default_spec("ridge", features=["2:max", "avg"]), among=caches[1:], join=True)
    assert (named.spec.features, named.spec.widths) == (("1:avg", "2:max", "2:avg"), (64, 128))


def test_a_saved_head_predicts_by_the_blocks_it_was_fitted_on(head: Path, caches: tuple[Path, Path]) -> None:
    bundle = load_bundle(head)
    assert bundle.recipes == (replace(RECIPE, pooled_layers=()), replace(LARGER, pooled_layers=()))
    blocks = []
    for path, scaler in zip(caches, bundle.head.named_steps["scale"].scalers_, strict=True):
        with open_cache(path) as cache:
            X = design_matrix(cache.batches(), ("avg",))
            training = np.isin(short_digests(cache.sha256), bundle.training_digests)
        np.testing.assert_allclose(scaler.mean_, X[training].mean(axis=0), rtol=1e-5)
        blocks.append(X)
    expected = bundle.head.predict_proba(np.hstack(blocks))
    found = evaluate_head(head, caches, include_training=True)
    assert found.scored is not None
    np.testing.assert_allclose(found.scored.probabilities, expected, atol=1e-12)


def test_only_a_joined_head_has_several_recipes(head: Path, caches: tuple[Path, Path], tmp_path: Path) -> None:
    fit_head(caches[0], default_spec("ridge"), output=tmp_path / "single")
    metadata, single = (json.loads((folder / "bundle.json").read_text()) for folder in (head, tmp_path / "single"))
    assert len(metadata["joined_recipes"]) == 1
    assert "joined_recipes" not in single
    assert "widths" not in single["spec"]
    listed = list_heads(head)[0]
    assert listed.cache == " + ".join(map(str, caches))
    assert "8 px" in listed.to_dict()["recipe"]
    assert "16 px" in listed.to_dict()["recipe"]


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.pop("joined_recipes"),
        lambda f: f["spec"].pop("widths"),
        lambda f: f["spec"].update(widths=[64, 63]),
        lambda f: f["spec"].update(widths=[32, 32, 64]),
        lambda f: f["spec"].update(widths=[60, 68]),
        lambda f: f["spec"].update(widths=["64", 64]),
        lambda f: f["spec"].update(features=["1:avg", "3:avg"]),
        lambda f: f["joined_recipes"][0].update(recipe_fingerprint="0" * 64),
        lambda f: f.update(joined_recipes=["vgg16"]),
    ],
)
def test_metadata_that_do_not_fit_are_refused(change: Any, head: Path, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(head, tmp_path / "head"))
    change_metadata(folder, change)
    with pytest.raises(BundleError):
        load_bundle(folder)


def test_caches_are_given_in_any_order_and_all_of_them(head: Path, caches: tuple[Path, Path]) -> None:
    scores = [evaluate_head(head, given).score for given in (caches, caches[::-1])]
    assert scores[0] == scores[1]
    assert scores[0].n_samples == 15
    for given in ([caches[0]], [caches[0], caches[0]]):
        with pytest.raises(RecipeMismatchError, match=r"each of its 2 recipes.*None is of: foreign:test last, 16 px"):
            evaluate_head(head, given)


def test_a_head_on_one_cache_refuses_another_beside_it(caches: tuple[Path, Path], tmp_path: Path) -> None:
    fit_head(caches[0], default_spec("ridge"), output=tmp_path / "single")
    with pytest.raises(RecipeMismatchError, match=r"Of no recipe of the head: .*b.h5"):
        evaluate_head(tmp_path / "single", caches)


def test_a_join_that_does_not_fit_in_memory_is_streamed(
    caches: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = default_spec("logistic", scaling="standard", params={"C": 0.01})
    whole = fit_head(caches[0], spec, among=caches[1:], join=True)
    monkeypatch.setattr(fit, "matrix_fits", lambda *_: False)
    streamed = fit_head(caches[0], spec, among=caches[1:], join=True)
    assert streamed.streamed
    assert whole.scored is not None
    assert streamed.scored is not None
    np.testing.assert_allclose(streamed.scored.probabilities, whole.scored.probabilities, atol=1e-3)


def test_what_cannot_be_joined_is_refused(head: Path, caches: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no other cache can be scored"):
        fit_head(caches[0], "ridge", among=caches[1:], join=True, validation=caches[1])
    fewer = labelled_cache(tmp_path / "fewer.h5", LABELS[:50], recipe=LARGER)
    with pytest.raises(DataError, match=r"fewer.h5 lacks 10 of the 60 images of .*a.h5"):
        fit_head(caches[0], "ridge", among=[fewer], join=True)
    with pytest.raises(ParameterError, match="have none of cache 2"):
        fit_head(caches[0], default_spec("ridge", features=["1:avg"]), among=caches[1:], join=True)
    with pytest.raises(HeadstartError, match="features of 2 recipes side by side, and an exported model has one"):
        open_request(head, tmp_path / "model.onnx", ".onnx")


def test_images_are_predicted_as_their_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = class_folders(tmp_path / "photos", n_per_class=10)
    recipes = [
        VGG16.recipe(weights="custom", weights_sha256="0" * 64, input_size_px=size, storage="float32")
        for size in (35, 70)
    ]
    networks = []
    for recipe in recipes:
        network = FakeNetwork()
        network.made = FakeBackbone(recipe)
        networks.append(network)
        monkeypatch.setattr(run, "Network", lambda _options, network=network: network)
        run.extract_features(data, tmp_path / f"{recipe.input_size_px}.h5")
    caches = [tmp_path / "35.h5", tmp_path / "70.h5"]
    fit_head(caches[0], "logistic", among=caches[1:], join=True, output=tmp_path / "head")
    of_caches = evaluate_head(tmp_path / "head", caches, include_training=True).scored
    assert of_caches is not None

    reads: Counter[str] = Counter()
    read = loading.read_image_bytes

    def counted_read(root: Any, ref: Any) -> bytes:
        reads[ref.path] += 1
        return read(root, ref)

    monkeypatch.setattr(loading, "read_image_bytes", counted_read)
    predictor = Predictor(tmp_path / "head", backbone=[FakeBackbone(recipes[0], 4), FakeBackbone(recipes[1], 3)])
    found = {Path(one.path).relative_to(data).as_posix(): one.probabilities for one in predictor.predict(data)}
    np.testing.assert_allclose([found[path] for path in of_caches.paths], of_caches.probabilities, atol=1e-6)
    assert set(reads.values()) == {1}
    of_folder = evaluate_head(tmp_path / "head", data, backbone=[network.made for network in networks])
    assert of_folder.score == evaluate_head(tmp_path / "head", caches).score
    with pytest.raises(RecipeMismatchError, match="input_size_px: 35 ≠ 70"):
        Predictor(tmp_path / "head", backbone=[FakeBackbone(recipe) for recipe in recipes[::-1]])


def test_a_file_of_weights_is_that_of_the_backbone_that_needs_one() -> None:
    published, custom = replace(RECIPE, weights="imagenet"), RECIPE
    assert weights_of_each([published, custom], "my.h5") == [None, "my.h5"]
    assert weights_of_each([published, custom], "imagenet") == ["imagenet", None]
    assert weights_of_each([custom], "imagenet") == ["imagenet"]
    assert weights_of_each([custom, custom], ["a.h5", "b.h5"]) == ["a.h5", "b.h5"]
    with pytest.raises(ParameterError, match="2 backbones"):
        weights_of_each([custom, custom], "my.h5")
