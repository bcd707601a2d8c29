"""Which engine computes what."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headstart.backbones import registry
from headstart.backbones.precision import Device
from headstart.backbones.registry import installed_engines, pick_engine, type_to_prove
from headstart.errors import HeadstartError

NATIVE = Device("cpu", "/CPU:0", 32, "bfloat16")
PLAIN = Device("cpu", "/CPU:0", 32, None)
GPU = Device("gpu:0", "/GPU:0", 64, "float16")
ALL = {"ncnn", "openvino", "tensorflow"}


@pytest.mark.parametrize(
    ("precision", "device", "installed", "expected"),
    [
        ("float32", NATIVE, ALL, "ncnn"),
        ("float32", PLAIN, ALL, "ncnn"),
        ("float32", PLAIN, ALL - {"ncnn"}, "openvino"),
        ("float32", PLAIN, {"tensorflow"}, "tensorflow"),
        ("float32", GPU, ALL, "tensorflow"),
        ("bfloat16", NATIVE, ALL, "openvino"),
        ("bfloat16", NATIVE, ALL - {"openvino"}, "tensorflow"),
        ("bfloat16", PLAIN, ALL, "tensorflow"),  # OpenVINO would compute it in float32 there
        ("float16", GPU, ALL, "tensorflow"),
        ("float16", PLAIN, ALL, "tensorflow"),
        ("int8", PLAIN, set(), "openvino"),  # and say that it is missing
    ],
)
def test_the_fastest_that_is_installed_and_computes_the_type(
    precision: str, device: Device, installed: set[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "pick_device", lambda _name: device)
    monkeypatch.setattr(registry, "is_installed", lambda engine: engine in installed)
    assert pick_engine(precision, "auto") == expected


@pytest.mark.parametrize(
    ("device", "installed", "expected"),
    [
        (NATIVE, ALL, "bfloat16"),
        (PLAIN, ALL, None),
        (GPU, ALL, "float16"),
        (replace(NATIVE, winograd=True), ALL, None),
        (replace(NATIVE, winograd=True), ALL - {"ncnn"}, "bfloat16"),
    ],
)
def test_auto_tries_a_type_where_it_is_faster(device: Device, installed: set[str], expected: str | None) -> None:
    assert type_to_prove(device, installed) == expected


def test_the_engines_that_are_installed_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "is_installed", lambda engine: engine != "openvino")
    assert installed_engines() == ("ncnn", "onnxruntime", "tensorflow")


def test_int8_on_a_gpu_is_refused() -> None:
    with pytest.raises(HeadstartError, match=r"runs on the CPU\. Received: device gpu:0"):
        pick_engine("int8", "gpu:0")
