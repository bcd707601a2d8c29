"""Bundles that were damaged or made by somebody who means harm are refused, and nothing of them runs."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundles import change_metadata, refresh_digest, resave, rewrite
from headstart.bundles.bundle import load_bundle
from headstart.errors import BundleError
from headstart.heads.catalogue import default_spec, make_head
from headstart.heads.fitting.dense_training import build_network
from headstart.runtime import import_keras


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


@pytest.mark.slow  # a network needs TensorFlow
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


@pytest.mark.parametrize(
    "change",
    {
        "files is a list": lambda f: f.update(files=["head.skops"]),
        "no digest of metrics": lambda f: f["files"].pop("metrics.json"),
        "no head": lambda f: f["files"].pop("head.skops"),
        "a file elsewhere": lambda f: f["files"].update({"../other/head.skops": "0"}),
        "a file of another kind": lambda f: f["files"].update({"setup.py": "0"}),
        "a digest that is a number": lambda f: f["files"].update({"head.skops": 3}),
        "no features": lambda f: f["spec"].pop("features"),
        "features are a word": lambda f: f["spec"].update(features="avg"),
        "spec is a list": lambda f: f.update(spec=[]),
        "spec of another head": lambda f: f["spec"].update(type="rbf-svm"),
        "spec of an unknown head": lambda f: f["spec"].update(type="forest"),
        "spec of an unknown scaling": lambda f: f["spec"].update(scaling="log"),
        "spec of another scaling": lambda f: f["spec"].update(scaling="standard"),
        "spec of an unknown parameter": lambda f: f["spec"].update(params={"depth": 3}),
        "a seed that is a word": lambda f: f["spec"].update(random_state="x"),
        "recipe without weights": lambda f: f["recipe"].pop("weights"),
        "recipe is a word": lambda f: f.update(recipe="vgg16"),
        "another fingerprint": lambda f: f.update(recipe_fingerprint="0" * 64),
        "fewer class names": lambda f: f.update(class_names=["ant", "bee"]),
        "class names twice": lambda f: f.update(class_names=["ant", "bee", "ant"]),
        "class names are numbers": lambda f: f.update(class_names=[1, 2, 3]),
        "versions is a word": lambda f: f.update(versions="new"),
        "a version that is a number": lambda f: f["versions"].update({"scikit-learn": 1.9}),
        "the format version is a word": lambda f: f.update(format_version="x"),
    }.items(),
    ids=lambda item: item[0],
)
def test_metadata_that_do_not_fit_are_refused(change: tuple[str, Callable[[dict[str, Any]], object]], copy_of) -> None:
    folder = copy_of("logistic")
    change_metadata(folder, change[1])
    with pytest.raises(BundleError, match=str(folder)):
        load_bundle(folder)


def test_deeply_nested_json_is_refused(copy_of) -> None:
    folder = copy_of("logistic")
    (folder / "bundle.json").write_text("[" * 100_000)
    with pytest.raises(BundleError):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["bundle.json", "metrics.json", "head.skops"])
def test_a_link_out_of_the_folder_is_not_followed(name: str, copy_of, tmp_path: Path) -> None:
    folder = copy_of("logistic")
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="not a regular file"):
        load_bundle(folder)


def test_a_pipe_in_place_of_a_file_does_not_hang(copy_of) -> None:
    folder = copy_of("logistic")
    (folder / "bundle.json").unlink()
    os.mkfifo(folder / "bundle.json")
    with pytest.raises(BundleError, match="not a regular file"):
        load_bundle(folder)


def test_metrics_that_are_no_json_are_refused(copy_of) -> None:
    folder = copy_of("logistic")
    (folder / "metrics.json").write_text("accuracy: 1")
    refresh_digest(folder, "metrics.json")
    with pytest.raises(BundleError, match=r"metrics\.json"):
        load_bundle(folder)


@pytest.mark.parametrize("scale", [True, False])
def test_a_head_of_another_form_is_refused(scale: bool, copy_of) -> None:
    import skops.io
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB
    from sklearn.pipeline import make_pipeline

    folder = copy_of("logistic")
    other = make_pipeline(GaussianNB()) if scale else LogisticRegression()
    skops.io.dump(other.fit(np.eye(4), [0, 0, 1, 1]), folder / "head.skops")
    refresh_digest(folder, "head.skops")
    with pytest.raises(BundleError, match=r"head\.skops holds no head of this kind"):
        load_bundle(folder)


@pytest.mark.parametrize("labels", [[0, 1, 7], [-1, 0, 1], ["a", "b", "c"]])
def test_labels_that_are_no_classes_are_refused(labels: list[object], copy_of) -> None:
    import skops.io

    folder = copy_of("logistic")
    head = make_head(default_spec("logistic")).fit(np.eye(6), np.repeat(labels, 2))
    skops.io.dump(head, folder / "head.skops")
    refresh_digest(folder, "head.skops")
    with pytest.raises(BundleError, match="labels"):
        load_bundle(folder)


@pytest.mark.slow  # a network needs TensorFlow
def test_a_dense_head_without_its_network_is_refused(copy_of) -> None:
    folder = copy_of("dense")
    change_metadata(folder, lambda metadata: metadata["files"].pop("network.keras"))
    with pytest.raises(BundleError, match="network"):
        load_bundle(folder)


@pytest.mark.slow  # a network needs TensorFlow
def test_a_network_for_a_head_without_one_is_refused(saved: Callable[[str], Path], copy_of) -> None:
    folder = copy_of("logistic")
    (folder / "network.keras").write_bytes((saved("dense") / "network.keras").read_bytes())
    change_metadata(folder, lambda metadata: metadata["files"].update({"network.keras": ""}))
    refresh_digest(folder, "network.keras")
    with pytest.raises(BundleError, match="network"):
        load_bundle(folder)


@pytest.mark.slow  # a network needs TensorFlow
def test_a_network_of_other_shape_is_refused(copy_of) -> None:
    folder = copy_of("dense")
    build_network(3, (5, 2), activation="relu", dropout=0.0, l2=0.0, seed=0).save(folder / "network.keras")
    refresh_digest(folder, "network.keras")
    with pytest.raises(BundleError, match=r"\[5, 2\] units. Expected: \[256, 2\]"):
        load_bundle(folder)


@pytest.mark.slow
@pytest.mark.parametrize(("head_type", "name"), [("logistic", "head.skops"), ("dense", "network.keras")])
def test_an_archive_that_grows_when_it_is_unpacked_is_refused(head_type: str, name: str, copy_of) -> None:
    folder = copy_of(head_type)
    rewrite(folder / name, member="more.npy", data=bytes(50_000_000), compress=True)
    refresh_digest(folder, name)
    with pytest.raises(BundleError, match="compressed"):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["../evil.npy", "/tmp/evil.npy", "a/../../evil.npy", "..\\evil.npy"])
def test_a_member_that_leads_out_of_the_archive_is_refused(name: str, copy_of) -> None:
    folder = copy_of("logistic")
    rewrite(folder / "head.skops", member=name, data=b"")
    refresh_digest(folder, "head.skops")
    with pytest.raises(BundleError, match="unexpected member"):
        load_bundle(folder)


@pytest.mark.slow  # a network needs TensorFlow
def test_a_network_larger_than_its_weights_is_not_built(copy_of) -> None:
    folder = copy_of("dense")
    with zipfile.ZipFile(folder / "network.keras") as archive:
        weights = archive.read("model.weights.h5")
    rewrite(folder / "network.keras", member="model.weights.h5", data=weights[:10_000])
    refresh_digest(folder, "network.keras")
    with pytest.raises(BundleError, match="10,000 bytes of weights, too few"):
        load_bundle(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        lambda head: head.weights_.pop(),
        lambda head: setattr(head, "weights_", [one.T for one in head.weights_]),
        lambda head: head.weights_.__setitem__(1, np.full_like(head.weights_[1], np.nan)),
        lambda head: setattr(head, "weights_", "abc"),
    ],
)
def test_weights_that_are_not_those_of_the_layers_are_refused(copy_of, change) -> None:
    folder = copy_of("dense")
    resave(folder, change)
    with pytest.raises(BundleError, match="weights that are none of a dense head"):
        load_bundle(folder)


@pytest.mark.slow
def test_a_saved_dense_head_predicts_without_tensorflow(copy_of) -> None:
    script = (
        "import sys; import numpy as np; from pathlib import Path; from headstart.bundles.bundle import load_bundle\n"
        "head = load_bundle(Path(sys.argv[1])).head\n"
        "assert np.isfinite(head.predict_proba(np.ones((2, head.n_features_in_), np.float32))).all()\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(copy_of("dense"))], check=True)
