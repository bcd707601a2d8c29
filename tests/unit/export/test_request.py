"""What is refused before anything is exported."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from commands import exit_code
from headstart import exchange
from headstart.backbones.convnet import Weights
from headstart.backbones.spec import BackboneSpec
from headstart.bundles.bundle import load_bundle, save_bundle
from headstart.decisions.cutoffs import Cutoff
from headstart.decisions.rule import DecisionRule
from headstart.errors import HeadstartError
from headstart.exchange import keras_file

HEAD = Path(__file__).resolve().parents[2] / "data" / "bundles_v1" / "logistic"


@pytest.mark.filterwarnings("ignore:.* was fitted with scikit-learn")
def test_a_head_on_an_int8_network_is_not_exported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bundle = load_bundle(HEAD)
    changed = replace(
        bundle, recipe=replace(bundle.recipe, backbone="vgg16", precision="int8", resize="keras-bilinear")
    )
    monkeypatch.setattr(keras_file, "load_bundle", lambda _path: changed)
    monkeypatch.setattr(BackboneSpec, "loaded", lambda *_arguments: pytest.fail("weights were read"))
    with pytest.raises(HeadstartError, match="an exported model cannot carry"):
        keras_file.open_request(HEAD, tmp_path / "model.onnx", ".onnx")


@pytest.mark.filterwarnings("ignore:.* was fitted with scikit-learn")
def test_an_export_says_that_a_threshold_is_not_part_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bundle = load_bundle(HEAD)
    recipe = replace(bundle.recipe, backbone="vgg16", resize="keras-bilinear")
    rule = DecisionRule(Cutoff(bundle.class_names[0], 0.3, "recall=0.95"))
    monkeypatch.setattr(keras_file, "load_bundle", lambda _path: replace(bundle, recipe=recipe, decision=rule))
    monkeypatch.setattr(
        BackboneSpec, "loaded", lambda *_arguments: Weights("custom", {}, recipe.weights_sha256, "built in")
    )
    with pytest.warns(UserWarning, match=f"Decide for {bundle.class_names[0]} where its probability is at least 0.3"):
        keras_file.open_request(HEAD, tmp_path / "model.onnx", ".onnx")


@pytest.mark.filterwarnings("ignore:.* was fitted with scikit-learn")
def test_the_command_says_it_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = load_bundle(HEAD)
    rule = DecisionRule(Cutoff(bundle.class_names[0], 0.3, "recall=0.95"))
    save_bundle(tmp_path / "head", replace(bundle, decision=rule), metrics={})

    def exported(_head: Path, output: Path, **_options: object) -> Path:
        warnings.warn(f"{keras_file.WITHOUT_DECISION} {rule.in_words()}", stacklevel=1)
        output.write_bytes(b"model")
        return output

    monkeypatch.setattr(exchange, "export_model", exported)
    assert exit_code(monkeypatch, "export", tmp_path / "head", tmp_path / "model.onnx") == 0
    assert capsys.readouterr().err.split("\n")[0] == f"{keras_file.WITHOUT_DECISION} {rule.in_words()}"
