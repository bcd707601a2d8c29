"""The target ``number``, from a cache to a fitted head, a comparison, an evaluation and predictions."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import root_mean_squared_error

from commands import exit_code
from fakes import FakeBackbone, FakeNetwork
from headstart.bundles.bundle import load_bundle
from headstart.cache.reader import open_cache
from headstart.errors import DataError, ParameterError
from headstart.evaluation import evaluate_head
from headstart.exchange.prediction_table import write_predictions
from headstart.extract.run import extract_features
from headstart.fit import fit_head
from headstart.heads.catalogue import default_spec
from headstart.predict import Predictor
from headstart.report.comparison_text import comparison_csv, comparison_json, comparison_markdown, comparison_tables
from headstart.report.html_pages import benchmark_page
from headstart.selection.compare import compare_heads
from numbered import numbered_cache
from pictures import picture

pytestmark = pytest.mark.slow

RIDGE = default_spec("ridge-regression", features=["avg"], scaling="none", params={"alpha": 0.1})


def matrix(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with open_cache(path) as cache:
        X = np.concatenate([batch.features.mean(axis=(1, 2)) for batch in cache.batches()]).astype(np.float64)
        assert cache.targets is not None
        return X, cache.targets


def test_a_head_is_plain_ridge_on_the_same_images(tmp_path: Path) -> None:
    splits = ["test" if row % 4 == 0 else "train" for row in range(120)]
    path = numbered_cache(tmp_path / "c.h5", splits=splits, without=[1, 4])
    found = fit_head(path, RIDGE, target="number", output=tmp_path / "head")
    X, y = matrix(path)
    known = ~np.isnan(y)
    train, test = (known & np.array([split == name for split in splits]) for name in ("train", "test"))
    assert (found.n_train, found.score.n_samples) == (89, 29)
    expected = Ridge(alpha=0.1).fit(X[train], y[train]).predict(X[test])
    assert found.scored is not None
    np.testing.assert_allclose(found.scored.probabilities[:, 0], expected, rtol=1e-6)
    assert found.score.rmse == pytest.approx(root_mean_squared_error(y[test], expected), rel=1e-5)
    assert found.score.r2 > 0.9
    assert load_bundle(tmp_path / "head").target == "number"
    assert json.loads((tmp_path / "head" / "metrics.json").read_text())["rmse"] == pytest.approx(found.score.rmse)


def test_weights_and_groups_count(tmp_path: Path) -> None:
    weights = [0.0 if row < 40 else 2.0 for row in range(120)]
    path = numbered_cache(tmp_path / "c.h5", weights=weights, groups=[f"g{row % 30}" for row in range(120)])
    found = fit_head(path, RIDGE, target="number", validation=0.2)
    assert found.n_train + found.score.n_samples < 120
    assert any("of weight 0: not fitted on." in note for note in found.notes)
    assert found.scored is not None
    scored = {int(one.removesuffix(".jpg")) % 30 for one in found.scored.paths}
    assert len(found.scored.paths) == 4 * len(scored), "groups are scored as a whole"


def test_a_setting_is_searched_by_the_metric_that_is_asked_for(tmp_path: Path) -> None:
    path = numbered_cache(tmp_path / "c.h5")
    found = fit_head(path, target="number", metric="mae", output=tmp_path / "head")
    assert found.search is not None
    assert (found.spec.type, found.search.trials[0].metric) == ("ridge-regression", "mae")
    assert "stratified, seed" in found.search.folds
    best = min(found.search.trials, key=lambda trial: trial.score)
    assert found.search.spec == best.spec, "a smaller error is better"


def test_a_saved_head_is_scored_on_other_images_alone(tmp_path: Path) -> None:
    path = numbered_cache(tmp_path / "c.h5")
    fit_head(path, RIDGE, target="number", output=tmp_path / "head")
    found = evaluate_head(tmp_path / "head", path)
    assert found.score.n_samples == 30
    others = numbered_cache(tmp_path / "others.h5", 50, seed=1, of="other", without=[0])
    score, _ = evaluate_head(tmp_path / "head", others)
    assert score.n_samples == 49
    X, y = matrix(others)
    predicted = load_bundle(tmp_path / "head").head.predict(X.astype(np.float32))
    assert score.rmse == pytest.approx(root_mean_squared_error(y[1:], predicted[1:]), rel=1e-6)
    assert evaluate_head(tmp_path / "head", path, include_training=True).to_dict()["r2"] > 0.9


def test_heads_are_compared_by_their_errors(tmp_path: Path) -> None:
    splits = ["test" if row >= 100 else "train" for row in range(120)]
    path = numbered_cache(tmp_path / "c.h5", splits=splits)
    heads = ("ridge-regression", "knn-regression", "mean")
    found = compare_heads(path, target="number", heads=heads, n_splits=3)
    assert [head.name for head in found.heads] == ["ridge-regression", "knn-regression", "mean"]
    assert [metric.name for metric in found.metrics] == ["rmse", "mae", "r2", "spearman"]
    for head in found.heads:
        rmse = root_mean_squared_error(found.y_true, head.probabilities[:, 0])
        assert head.metrics["rmse"].value == pytest.approx(rmse, rel=1e-5)
        assert head.held_out is not None
        assert head.held_out.n_samples == 20
    assert found["mean"].metrics["r2"].value < 0.05
    difference = found["knn-regression"].difference
    assert difference is not None
    assert difference.value > 0
    assert found["knn-regression"].p_value < 0.05
    assert found.expected is not None
    assert "root mean squared error" in found.recommendation
    assert "stratified, seed" in found.folds
    assert "RMSE" in str([column.header for column in comparison_tables(found)[0].columns])
    assert "held-out root mean squared error" in comparison_markdown(found)
    (row, *_) = csv.DictReader(comparison_csv(found).splitlines())
    assert float(row["held_out_rmse"]) == pytest.approx(found.heads[0].held_out.rmse)
    assert json.loads(comparison_json(found))["heads"][0]["metrics"]["rmse"]["value"] > 0
    page = benchmark_page(found)
    assert "Residuals of" in page
    assert "Largest errors" in page
    assert "Confusion" not in page
    assert page.count("<svg") == 5


def test_all_heads_for_numbers_are_compared_unless_some_are_named(tmp_path: Path) -> None:
    path = numbered_cache(tmp_path / "c.h5", 60)
    found = compare_heads(path, target="number", n_splits=2, features=("avg",), near_duplicates=False)
    assert {head.name for head in found.heads} == {
        "ridge-regression", "kernel-ridge", "svr", "knn-regression", "dense-regression", "mean",
    }  # fmt: skip
    assert not found.left_out


def test_copies_and_groups_are_on_one_side(tmp_path: Path) -> None:
    path = numbered_cache(tmp_path / "c.h5", copies={row: row - 60 for row in range(60, 120)})
    found = compare_heads(path, target="number", heads=("ridge-regression", "mean"), n_splits=3)
    assert found.fold_names[:60] == found.fold_names[60:]


def test_predictions_are_written_with_true_numbers(tmp_path: Path) -> None:
    found = fit_head(numbered_cache(tmp_path / "c.h5"), RIDGE, target="number", output=tmp_path / "head")
    assert found.scored is not None
    lines = (tmp_path / "head" / "predictions.csv").read_text().splitlines()
    assert lines[0] == "path,split,truth,prediction"
    assert float(lines[1].split(",")[2]) == found.scored.y_true[0]
    write_predictions(tmp_path / "p.json", [found.scored])
    (first, *_) = json.loads((tmp_path / "p.json").read_text())
    assert set(first) == {"path", "split", "truth", "prediction"}
    write_predictions(tmp_path / "p.parquet", [found.scored])


@pytest.fixture
def head(tmp_path: Path) -> Path:
    rows = "".join(f"{number}.png,{number / 2}\n" for number in range(12))
    for number in range(12):
        picture(tmp_path / "data" / f"{number}.png", number)
    (tmp_path / "data" / "numbers.csv").write_text(f"path,target\n{rows}")
    extract_features(tmp_path / "data" / "numbers.csv", tmp_path / "c.h5", network=FakeNetwork())  # type: ignore[arg-type]
    fit_head(tmp_path / "c.h5", RIDGE, target="number", output=tmp_path / "head")
    return tmp_path / "head"


def test_images_are_predicted_and_scored(head: Path, tmp_path: Path) -> None:
    predictor = Predictor(head, backbone=FakeBackbone())
    (one,) = predictor.predict(tmp_path / "data" / "3.png")
    assert one.probabilities is not None
    assert one.probabilities.shape == (1,)
    found = evaluate_head(head, tmp_path / "data" / "numbers.csv", include_training=True, backbone=FakeBackbone())
    with open_cache(tmp_path / "c.h5") as cache:
        (from_cache,) = load_bundle(head).outputs(cache.batches([cache.paths.index("3.png")]), cache.recipe)
    np.testing.assert_allclose(one.probabilities, from_cache, rtol=1e-3)
    assert found.score.n_samples == 12
    assert found.scored is not None
    truth = dict(zip(found.scored.paths, found.scored.y_true.tolist(), strict=True))
    assert truth["3.png"] == 1.5


def test_what_cannot_be_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = numbered_cache(tmp_path / "c.h5", 40)
    with pytest.raises(ParameterError, match=r"which these heads cannot do: ridge\. Expected one of: ridge-regression"):
        fit_head(path, "ridge", target="number")
    with pytest.raises(ParameterError, match="classification task, which these heads cannot do: svr"):
        fit_head(path, "svr")
    with pytest.raises(ParameterError, match="cannot do: ensemble"):
        fit_head(path, "ensemble", target="number")
    with pytest.raises(ParameterError, match=r"Expected a metric among rmse, mae, r2, spearman\. Received: 'accuracy'"):
        fit_head(path, RIDGE, target="number", metric="accuracy")
    with pytest.raises(ParameterError, match="Expected a metric among accuracy"):
        compare_heads(path, metric="rmse")
    with pytest.raises(ParameterError, match="no positive class"):
        fit_head(path, RIDGE, target="number", positive="ants")
    with pytest.raises(ParameterError, match="learning curve is of accuracy"):
        compare_heads(path, target="number", learning_curve=True)
    with pytest.raises(ParameterError, match=r"baseline of the target number is mean\. Received: majority"):
        compare_heads(path, target="number", heads=("svr", "majority"))
    none = numbered_cache(tmp_path / "none.h5", 4, without=range(4))
    with pytest.raises(DataError, match="no image has one"):
        fit_head(none, RIDGE, target="number")
    with pytest.raises(DataError, match="labelled images of at least two classes"):
        fit_head(path)


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path, head = numbered_cache(tmp_path / "c.h5"), tmp_path / "heads" / "one"
    assert exit_code(monkeypatch, "fit-head", path, "--target", "number", "-o", head) == 0
    assert "root mean squared error" in capsys.readouterr().out
    assert exit_code(monkeypatch, "evaluate", head, path) == 0
    assert "rank correlation" in capsys.readouterr().out
    assert exit_code(monkeypatch, "heads", tmp_path / "heads") == 0
    assert "RMSE" in capsys.readouterr().out
    assert exit_code(monkeypatch, "inspect", path) == 0
    assert "Numbers to predict" in capsys.readouterr().out
