"""A head on disk comes back as it was, in place of an older one or not at all."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bundles import change_metadata, fitted, refresh_digest, resave
from headstart.bundles import bundle
from headstart.bundles.bundle import load_bundle, save_bundle, short_digests
from headstart.errors import BundleError, RecipeMismatchError
from headstart.heads.catalogue import heads_for
from headstart.storage import publishing
from headstart.types import FeatureBatch

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", heads_for("classification"))
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
def test_no_file_of_a_bundle_is_a_pickle(name: str, saved: Callable[[str], Path]) -> None:
    def members(data: bytes) -> list[bytes]:
        if not zipfile.is_zipfile(io.BytesIO(data)):
            return [data]
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return [part for info in archive.infolist() for part in members(archive.read(info))]

    for path in saved(name).iterdir():
        for data in members(path.read_bytes()):
            assert not data.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")), path
            if data.startswith(b"\x93NUMPY"):
                np.load(io.BytesIO(data), allow_pickle=False)


def test_another_recipe_is_refused_with_its_field(saved: Callable[[str], Path], batch: FeatureBatch) -> None:
    head = load_bundle(saved("logistic"))
    with pytest.raises(RecipeMismatchError, match="input_size_px: 35 ≠ 224"):
        head.predict_proba([batch], replace(head.recipe, input_size_px=224))


def test_a_logistic_head_is_loaded_without_tensorflow(saved: Callable[[str], Path]) -> None:
    code = (
        "import sys; from pathlib import Path; from headstart.bundles.bundle import load_bundle; "
        f"load_bundle(Path({str(saved('logistic'))!r})); assert not {{'tensorflow', 'keras'}}.intersection(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no saved head"):
        load_bundle(tmp_path)


def test_only_a_bundle_is_replaced(batch: FeatureBatch, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "dear.jpg").touch()
    with pytest.raises(BundleError, match="no saved head, so it is not replaced"):
        save_bundle(tmp_path / "photos", fitted("logistic", batch), metrics={})
    assert (tmp_path / "photos" / "dear.jpg").exists()
    save_bundle(tmp_path / "head", fitted("logistic", batch), metrics={"accuracy": 0.5})
    with pytest.raises(BundleError, match=r"head is a saved head already\. Replace it with `overwrite=True`"):
        save_bundle(tmp_path / "head", fitted("logistic", batch), metrics={})
    assert load_bundle(tmp_path / "head").metrics == {"accuracy": 0.5}
    save_bundle(tmp_path / "head", fitted("logistic", batch), metrics={}, overwrite=True)
    assert load_bundle(tmp_path / "head").metrics == {}


def test_another_version_of_scikit_learn_is_said(copy_of) -> None:
    folder = copy_of("logistic")
    metadata = json.loads((folder / "bundle.json").read_text())
    metadata["versions"]["scikit-learn"] = "0.1.0"
    (folder / "bundle.json").write_text(json.dumps(metadata))
    with pytest.warns(UserWarning, match=r"fitted with scikit-learn 0\.1\.0") as caught:
        load_bundle(folder)
    assert len(caught) == 1


def test_parameters_that_have_come_since_have_their_defaults(copy_of, batch: FeatureBatch) -> None:
    folder = copy_of("logistic")
    before = load_bundle(folder)
    resave(folder, lambda classifier: delattr(classifier, "tol"))
    after = load_bundle(folder)
    assert after.head.steps[-1][1].get_params() == before.head.steps[-1][1].get_params()
    np.testing.assert_array_equal(
        after.predict_proba([batch], after.recipe), before.predict_proba([batch], before.recipe)
    )


def test_a_head_that_does_not_work_with_this_scikit_learn_is_refused(copy_of) -> None:
    folder = copy_of("logistic")
    resave(folder, lambda classifier: delattr(classifier, "coef_"))
    change_metadata(folder, lambda metadata: metadata["versions"].update({"scikit-learn": "0.1.0"}))
    with pytest.raises(BundleError, match=r"does not work here .*\. Fit the head again\. It was fitted with .*0\.1\.0"):
        load_bundle(folder)


def test_an_unknown_type_of_another_scikit_learn_is_refused_with_both_versions(copy_of) -> None:
    import skops.io
    from sklearn.preprocessing import FunctionTransformer

    folder = copy_of("logistic")
    skops.io.dump(FunctionTransformer(os.system), folder / "head.skops")
    refresh_digest(folder, "head.skops")
    change_metadata(folder, lambda metadata: metadata["versions"].update({"scikit-learn": "9.9.0"}))
    with pytest.raises(
        BundleError, match=r"types that no head needs.* It was fitted with scikit-learn 9\.9\.0, and is used"
    ):
        load_bundle(folder)


def test_a_folder_of_other_people_is_not_replaced(batch: FeatureBatch, tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "bundle.json").write_text('{"entry": "main.js"}')
    with pytest.raises(BundleError, match="no saved head, so it is not replaced"):
        save_bundle(tmp_path / "web", fitted("logistic", batch), metrics={})
    assert (tmp_path / "web" / "bundle.json").read_text() == '{"entry": "main.js"}'


def test_a_file_that_someone_laid_beside_a_head_is_kept(copy_of, batch: FeatureBatch) -> None:
    folder = copy_of("logistic")
    (folder / "notes.txt").write_text("dear")
    with pytest.raises(BundleError, match=r"notes\.txt"):
        save_bundle(folder, fitted("logistic", batch), metrics={}, overwrite=True)
    assert (folder / "notes.txt").read_text() == "dear"


def test_an_empty_folder_is_filled(batch: FeatureBatch, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    load_bundle(save_bundle(tmp_path / "new", fitted("logistic", batch), metrics={}))


def test_a_head_that_cannot_be_put_in_place_leaves_the_old_one(
    copy_of, batch: FeatureBatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_of("logistic")

    def fails(*_: Path) -> bool:
        raise OSError("no space left on device")

    monkeypatch.setattr(publishing, "exchange", fails)
    with pytest.raises(BundleError, match="no space left"):
        save_bundle(folder, fitted("logistic", batch), metrics={"accuracy": 1.0}, overwrite=True)
    assert load_bundle(folder).metrics == {"accuracy": 0.5}
    assert [path.name for path in tmp_path.iterdir()] == ["logistic"]


def test_a_head_that_a_killed_save_has_moved_away_is_found(copy_of, batch: FeatureBatch, tmp_path: Path) -> None:
    folder = copy_of("logistic")

    def move_away() -> None:
        (tmp_path / ".logistic.abcd.saving").mkdir()
        folder.rename(tmp_path / ".logistic.abcd.saving" / "old")

    move_away()
    assert load_bundle(folder).metrics == {"accuracy": 0.5}
    assert [path.name for path in tmp_path.iterdir()] == ["logistic"]
    move_away()
    with pytest.raises(BundleError, match="is a saved head already"):
        save_bundle(folder, fitted("logistic", batch), metrics={})


def test_a_head_that_is_replaced_while_it_is_read_is_read_again(
    copy_of, batch: FeatureBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, check, asked = copy_of("logistic"), bundle.check_files, []

    def replace_first(path: Path, files: dict[str, str]) -> None:
        if not asked:
            save_bundle(folder, fitted("knn", batch), metrics={}, overwrite=True)
        asked.append(path)
        check(path, files)

    monkeypatch.setattr(bundle, "check_files", replace_first)
    assert load_bundle(folder).spec.type == "knn"
    assert len(asked) == 2


def test_the_digests_of_the_training_images_come_back_sorted(batch: FeatureBatch, tmp_path: Path) -> None:
    sha256 = ["f" * 64, "0" * 15 + "1" + "a" * 48, "f" * 64]
    before = replace(fitted("logistic", batch), training_digests=short_digests(sha256))
    folder = save_bundle(tmp_path / "head", before, metrics={})
    assert load_bundle(folder).training_digests.tolist() == [1, 2**64 - 1]
    assert (folder / "training.digests").stat().st_size == 16


@pytest.mark.parametrize("data", [b"", b"1234567", b"\1" * 16, bytes(range(255, 239, -1))])
def test_digests_that_are_none_are_refused(copy_of, batch: FeatureBatch, tmp_path: Path, data: bytes) -> None:
    digests = short_digests(["a" * 64])
    folder = save_bundle(tmp_path / "head", replace(fitted("logistic", batch), training_digests=digests), metrics={})
    (folder / "training.digests").write_bytes(data)
    with pytest.raises(BundleError, match=r"training\.digests is missing or not the file that was saved"):
        load_bundle(folder)
    refresh_digest(folder, "training.digests")
    with pytest.raises(BundleError, match="does not hold sorted digests"):
        load_bundle(folder)


def test_probabilities_come_batch_by_batch(batch: FeatureBatch) -> None:
    bundle = fitted("logistic", batch)
    names = batch.pooled_column_layer
    halves = [FeatureBatch(batch.features[part], batch.pooled[part], names) for part in (slice(0, 9), slice(9, 24))]
    whole = bundle.predict_proba([batch], bundle.recipe)
    np.testing.assert_allclose(bundle.predict_proba(iter(halves), bundle.recipe), whole, rtol=1e-6)
