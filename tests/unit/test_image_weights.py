"""Weights of images: from the manifest into the cache, through what is made of caches, and into fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from caches import CLASS_NAMES, everything, write_cache
from commands import exit_code
from fakes import FakeBackbone, FakeNetwork
from headstart import fit
from headstart.cache.integrity import verify_file
from headstart.cache.merge import MergedRow, merge
from headstart.cache.reader import open_cache
from headstart.errors import CacheError, DataError
from headstart.exchange.export_features import convert
from headstart.exchange.import_features import import_features
from headstart.exchange.merge_caches import merge_caches
from headstart.extract.run import extract_features
from headstart.fit import fit_head
from headstart.heads.catalogue import HEAD_TYPES, default_spec, heads_for
from headstart.heads.grid_predictions import Table, outcomes
from headstart.images.discovery.scan import discover
from headstart.repair import repair_cache
from headstart.selection.compare import compare_heads
from headstart.selection.search import search_head
from labelled import labelled_cache
from pictures import picture


def weighted(source: Path, path: Path, weights: Sequence[float], rows: Sequence[int] | None = None) -> Path:
    """Write some rows of a cache, by default all, with other weights."""
    with open_cache(source) as cache:
        refs, numbers = cache.refs(), range(cache.n_images) if rows is None else rows
        merged = [MergedRow(0, row, replace(refs[row], weight=w)) for row, w in zip(numbers, weights, strict=True)]
        merge(path, sources=[cache], rows=merged, failures=(), class_names=cache.class_names, layout="")
    return path


def weights_of(path: Path) -> list[float] | None:
    with open_cache(path) as cache:
        return None if cache.weights is None else cache.weights.tolist()


def manifest(folder: Path, weights: Sequence[str], column: str = "weight") -> Path:
    lines = [f"path,label,{column}"]
    for number, weight in enumerate(weights):
        name = f"{number}.png"
        if not (folder / name).exists():
            picture(folder / name, number)
        lines.append(f"{name},{CLASS_NAMES[number % 2]},{weight}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder / "labels.csv"


@pytest.mark.parametrize("column", ["weight", "Sample Weight", "sample_weight"])
def test_a_manifest_gives_weights(tmp_path: Path, column: str) -> None:
    found = discover(manifest(tmp_path, ["0.5", "", " 2 ", "0", "1e-3"], column))
    assert [ref.weight for ref in found.refs] == [0.5, 1, 2, 0, 0.001]
    assert any("how much each image counts in a fit" in notice for notice in found.notices)


@pytest.mark.parametrize("weight", ["-1", "nan", "inf", "1e999", "often", '"0,5"'])
def test_other_weights_are_refused_in_a_sentence(tmp_path: Path, weight: str) -> None:
    with pytest.raises(DataError, match=r"line 3: the weight is .*Expected: a finite number, 0 or more"):
        discover(manifest(tmp_path, ["1", weight]))


def test_one_image_has_one_weight(tmp_path: Path) -> None:
    path = manifest(tmp_path, ["1", "1"])
    path.write_text(f"{path.read_text()}\n0.png,ants,0.5")
    with pytest.raises(DataError, match=r"named twice, as ants and as ants, weight 0\.5"):
        discover(path)


@pytest.mark.parametrize("layout", ["file", "shards"])
def test_a_changed_weight_changes_its_row_and_no_feature(tmp_path: Path, layout: str) -> None:
    def run(weights: Sequence[str]) -> int:
        given: Any = FakeNetwork()
        return extract_features(manifest(tmp_path, weights), output, network=given, cache_layout=layout).n_computed

    output = tmp_path / "cache"
    assert run(["1", "1", "", "1"]) == 4
    assert weights_of(output) is None
    assert run(["1", "0.5", "0", "1"]) == 0
    assert weights_of(output) == [1, 0.5, 0, 1]
    before = {file: file.stat().st_mtime_ns for file in [output, *output.rglob("*.h5")]}
    assert run(["1", "0.5", "0", "1"]) == 0
    assert before == {file: file.stat().st_mtime_ns for file in [output, *output.rglob("*.h5")]}
    assert run(["1", "0.5", "0", "1", "3"]) == 1
    assert weights_of(output) == [1, 0.5, 0, 1, 3]
    assert run(["", "", "", "", ""]) == 0
    assert weights_of(output) is None


def test_a_repaired_row_keeps_its_weight(tmp_path: Path) -> None:
    given: Any = FakeNetwork()
    output = tmp_path / "cache.h5"
    extract_features(manifest(tmp_path, ["1", "0.5", "0", "1"]), output, network=given)
    data = bytearray(output.read_bytes())
    with open_cache(output) as cache:
        chunk = cache.read_chunk("features", 1)[1]
    data[data.index(chunk) + len(chunk) // 2] ^= 8
    output.write_bytes(data)
    assert repair_cache(output, tmp_path, backbone=FakeBackbone()).images == ("1.png",)
    assert weights_of(output) == [1, 0.5, 0, 1]


def test_weights_of_one_are_not_written(tmp_path: Path) -> None:
    plain = write_cache(tmp_path / "a.h5", range(4))
    with h5py.File(weighted(plain, tmp_path / "b.h5", [1, 1, 2, 1])) as some, h5py.File(plain) as none:
        assert some["rows/weight"][:].tolist() == [1, 1, 2, 1]
        assert "weight" not in none["rows"]
    again = weighted(tmp_path / "b.h5", tmp_path / "c.h5", [1, 1, 1, 1])
    assert {k: v for k, v in everything(again).items() if k != "header"} == {
        k: v for k, v in everything(weighted(plain, tmp_path / "d.h5", [1] * 4)).items() if k != "header"
    }
    with open_cache(Path(__file__).parents[1] / "data" / "cache_v1.h5") as old:
        assert old.weights is None
        assert {ref.weight for ref in old.refs()} == {1.0}


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_a_damaged_weight_is_found(tmp_path: Path, weight: float) -> None:
    path = weighted(write_cache(tmp_path / "a.h5", range(4)), tmp_path / "b.h5", [1, 1, weight, 1])
    with open_cache(path) as cache, pytest.raises(CacheError, match="row 2 has the weight"):
        _ = cache.weights
    assert ["row 2 has the weight" in str(finding) for finding in verify_file(path)] == [True]


def test_merged_caches_have_the_weight_that_one_of_them_gives(tmp_path: Path) -> None:
    plain = write_cache(tmp_path / "plain.h5", range(4))
    one = weighted(plain, tmp_path / "one.h5", [0, 1, 0.5, 1])
    two = weighted(plain, tmp_path / "two.h5", [1, 2, 0.5, 1])
    merge_caches([one, two], tmp_path / "both.h5")
    assert weights_of(tmp_path / "both.h5") == [0, 2, 0.5, 1]
    three = weighted(plain, tmp_path / "three.h5", [3, 1, 1, 1])
    with pytest.raises(DataError, match=r"weight 3\.0 in .*three.h5, 0\.0 before"):
        merge_caches([one, three], tmp_path / "never.h5")
    merge_caches([one, three], tmp_path / "later.h5", on_conflict="later")
    assert weights_of(tmp_path / "later.h5") == [3, 1, 0.5, 1]


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".parquet"])
def test_weights_go_to_other_programs_and_come_back(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    plain = write_cache(tmp_path / "a.h5", range(4))
    for path, weights in (plain, None), (weighted(plain, tmp_path / "b.h5", [1, 0.3, 0, 1]), [1, 0.3, 0, 1]):
        file = path.with_name(f"{path.stem}-features{suffix}")
        convert(path, file)
        done = import_features(file, path.with_name(f"{path.stem}-again.h5"), name="again")
        assert weights_of(done.output) == weights
        assert ("how much each image counts" in " ".join(done.notices)) == (weights is not None)


def test_a_table_has_a_column_of_weights_only_where_there_are_some(tmp_path: Path) -> None:
    plain = write_cache(tmp_path / "a.h5", range(2))
    convert(plain, tmp_path / "a.csv")
    convert(weighted(plain, tmp_path / "b.h5", [0.3, 1]), tmp_path / "b.csv")
    assert "weight" not in (tmp_path / "a.csv").read_text()
    header, first, *_ = (tmp_path / "b.csv").read_text().splitlines()
    assert dict(zip(header.split(","), first.split(","), strict=True))["weight"] == "0.3"


def test_imported_weights_are_checked(tmp_path: Path) -> None:
    X = np.ones((2, 3), np.float32)
    np.savez(tmp_path / "a.npz", X=X, y=[0, 1], weight=[1.0, -1.0])
    with pytest.raises(DataError, match=r"finite number, 0 or more\. Received: -1\.0"):
        import_features(tmp_path / "a.npz", tmp_path / "a.h5", name="a")


LABELS = [row % 3 for row in range(48)]
SPLITS = ["test" if row >= 36 else "train" for row in range(48)]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "images.h5"
    return labelled_cache(path, LABELS, splits=SPLITS, distance=0.7)


def coefficients(path: Path, **options: Any) -> np.ndarray:
    spec = default_spec("logistic", scaling="standard", features=["avg"])
    return fit_head(path, spec, **options).head[-1].coef_


@pytest.mark.parametrize("streamed", [False, True])
def test_an_image_of_weight_two_is_fitted_on_as_two(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    monkeypatch.setattr(fit, "matrix_fits", lambda *_: not streamed)
    weights = [(0.0, 1.0, 2.0, 1.0)[row % 4] if row < 36 else 1.0 for row in range(48)]
    repeated = [row for row in range(48) for _ in range(int(weights[row]))]
    found = coefficients(weighted(images, tmp_path / "weighted.h5", weights))
    expected = coefficients(weighted(images, tmp_path / "repeated.h5", [1.0] * len(repeated), repeated))
    np.testing.assert_allclose(found, expected, atol=5e-3 if streamed else 1e-5)
    assert np.abs(coefficients(images) - found).max() > 1e-2


def test_what_is_weighted_is_said_and_scores_are_not(images: Path, tmp_path: Path) -> None:
    path = weighted(images, tmp_path / "w.h5", [0.0, 0.5, *[1.0] * 34, *[0.25] * 12])
    found = fit_head(path, default_spec("ridge"))
    assert found.notes[:2] == (
        "1 image of weight 0: not fitted on.",
        "Fits are weighted, by 0.5 to 1 for an image; scores are not.",
    )
    assert (found.n_train, found.score.n_samples) == (35, 12)
    assert "knn takes no weights" in fit_head(path, default_spec("knn")).notes[-1]
    assert not fit_head(images, default_spec("knn")).notes


def test_a_class_of_weight_zero_is_not_fitted_on(images: Path, tmp_path: Path) -> None:
    path = weighted(
        images, tmp_path / "w.h5", [0.0 if label == 1 and row < 36 else 1.0 for row, label in enumerate(LABELS)]
    )
    found = fit_head(path, default_spec("ridge"))
    assert found.score.class_names == ("ants", "wasps")
    nothing = weighted(images, tmp_path / "n.h5", [0.0 if row < 36 else 1.0 for row in range(48)])
    with pytest.raises(DataError, match="Too few images to divide: 0 of 0 classes"):
        fit_head(nothing, default_spec("ridge"))


@pytest.mark.parametrize("head_type", [name for name in heads_for("classification") if HEAD_TYPES[name].grid_solver])
@pytest.mark.parametrize("scaling", ["sqrt-l2", "standard"])
def test_a_grid_is_weighted_as_the_head_is(head_type: str, scaling: str) -> None:
    rng = np.random.default_rng(0)
    labels, weights = np.arange(60) % 3, rng.choice([0.0, 0.2, 1.0, 4.0], 60)
    X = (np.abs(rng.normal(size=(60, 10))) + 0.7 * np.eye(10)[labels]).astype(np.float32)
    train, test = np.arange(40), np.arange(40, 60)
    settings = [{name: value} for name, values in HEAD_TYPES[head_type].grid.items() for value in values]

    def predicted(weights: np.ndarray | None, rows: np.ndarray) -> dict[int, list[int]]:
        table = Table(X, ("avg",), scaling, weights=weights)
        return {
            one.setting: one.predicted.tolist() for one in outcomes(head_type, table, labels, rows, test, settings, 0)
        }

    whole = rng.integers(0, 3, 60)
    repeated = np.repeat(train, whole[train])
    assert predicted(whole.astype(float), train) == predicted(None, repeated)
    assert predicted(weights, train) != predicted(None, train)


@pytest.mark.slow
def test_a_search_and_a_comparison_fit_with_weights(images: Path, tmp_path: Path) -> None:
    wrong = [row for row in range(36) if row % 5 == 0]
    path = weighted(images, tmp_path / "w.h5", [30.0 if row in wrong else 0.1 for row in range(48)])
    with open_cache(images) as plain, open_cache(path) as heavy:
        rows = np.arange(36)
        scores = [[t.score for t in search_head(one, "logistic", rows).trials] for one in (plain, heavy)]
    assert scores[0] != scores[1]
    options: dict[str, Any] = {"heads": ("ridge", "knn", "majority"), "features": ("avg",), "n_splits": 3}
    compared = [compare_heads(one, **options) for one in (images, path)]
    before, after = ({head.name: head for head in one.heads} for one in compared)
    assert np.abs(before["ridge"].probabilities - after["ridge"].probabilities).max() > 0.01
    np.testing.assert_array_equal(before["knn"].probabilities, after["knn"].probabilities)
    assert "knn takes no weights" in after["knn"].notes[-1]
    assert any("scores are not" in sentence for sentence in compared[1].leaks)


def test_inspect_shows_that_there_are_weights(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = weighted(images, tmp_path / "w.h5", [0.0, 0.5, *[1.0] * 46])
    assert exit_code(monkeypatch, "inspect", path) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Weights in a fit: 0 to 1, 2 of them not 1; 1 of weight 0, which are not fitted on" in said
    assert exit_code(monkeypatch, "inspect", images) == 0
    assert "Weights" not in capsys.readouterr().out
