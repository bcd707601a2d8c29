"""What is advised follows from what was found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from headstart.backbones.precision import Device
from headstart.doctor.examine import advise
from headstart.doctor.machine import Machine, Rates

CPU = Device("cpu", "/CPU:0", 32, "bfloat16")
ZEN4 = replace(CPU, winograd=True)
GPU = Device("gpu:0", "/GPU:0", 128, "float16")
MACHINE = Machine(
    "a processor", "Linux", ("avx2",), 2, 8 * 2**30, 2**40, Path("/data"), (CPU,), ("ncnn", "openvino"), False, {}, ()
)
RATES = Rates({0.1: 300.0, 1.0: 80.0, 12.0: 8.0}, {12.0: 24.0}, {"float32": 16.0, "bfloat16": 32.0}, 3000.0)
WITH_INT8 = replace(RATES, forward={**RATES.forward, "int8": 64.0}, int8_seconds=5.0)


def test_the_network_bounds_until_photographs_are_large() -> None:
    first, draft, second = advise(MACHINE, RATES)
    assert "network limits a run here (32.0 images/s); from 12 megapixels on, decoding does" in first
    assert (
        "Expected on 2 cores, images/s: 30.4 at 0.1 megapixels, 26.7 at 1 megapixels, 10.7 at 12 megapixels." in first
    )
    assert draft.startswith(
        "Decoding JPEGs of 12 megapixels takes 2.0 times as long as the network: `resize='jpeg-draft'`"
    )
    assert "3.0 times as fast" in draft
    assert second.startswith("bfloat16 is 2.0 times as fast as float32")


def test_a_gpu_computes_while_the_processor_decodes() -> None:
    rates = replace(RATES, forward={"float32": 300.0, "float16": 1000.0})
    first = advise(replace(MACHINE, devices=(CPU, GPU)), rates)[0]
    assert "Decoding limits a run here" in first
    assert "600.0 at 0.1 megapixels, 160.0 at 1 megapixels, 16.0 at 12 megapixels" in first


def test_a_slow_network_bounds_whatever_the_size() -> None:
    rates = replace(RATES, forward={"float32": 4.0})
    assert "whatever the size of the images (4.0 images/s)" in advise(MACHINE, rates)[0]
    assert any("jpeg-draft" in sentence for sentence in advise(MACHINE, rates))  # a quarter of the cores decodes
    rates = replace(rates, forward={"float32": 3.9})
    assert not any("jpeg-draft" in sentence for sentence in advise(MACHINE, rates))


@pytest.mark.parametrize(
    ("machine", "rates", "said"),
    [
        (MACHINE, replace(RATES, write=20.0), "write to a faster, local disk (`output`)"),
        (MACHINE, replace(RATES, forward={"float32": 16.0, "bfloat16": 16.8}), "`precision='float32'` loses nothing"),
        (replace(MACHINE, devices=(replace(CPU, reduced_precision=None),)), None, "no native bfloat16"),
        (
            replace(MACHINE, engines=("ncnn",)),
            RATES,
            "OpenVINO, which is not installed, computes bfloat16 and int8 faster",
        ),
        (
            replace(MACHINE, engines=("openvino",), devices=(replace(CPU, reduced_precision=None),)),
            None,
            "pip install 'headstart[ncnn]', then run headstart doctor again",
        ),
        (
            replace(MACHINE, devices=(ZEN4,)),
            RATES,
            "but `precision='auto'` uses float32 on this processor: try `precision='bfloat16'`",
        ),
        (
            replace(MACHINE, engines=("openvino",), devices=(ZEN4,)),
            None,
            "ncnn, which is not installed, computes float32 faster",
        ),
        (MACHINE, WITH_INT8, "int8 is another 2.0 times as fast (64 images/s) and pays from about 320 images on"),
        (replace(MACHINE, hidden_gpu=True), None, "tensorflow[and-cuda]"),
        (replace(MACHINE, free_memory_bytes=2**30), None, "Only 1.0 GiB of memory are free"),
        (replace(MACHINE, free_disk_bytes=2**29), None, "Only 512 MiB of disk are free in /data"),
    ],
)
def test_what_would_help_is_said_where_it_would(machine: Machine, rates: Rates | None, said: str) -> None:
    assert any(said in sentence for sentence in advise(machine, rates))
    assert not any(said in sentence for sentence in advise(MACHINE, RATES))


def test_a_sound_machine_needs_no_advice_unmeasured() -> None:
    assert advise(MACHINE, None) == []


def test_a_slower_type_that_auto_does_not_take_needs_no_word() -> None:
    rates = replace(RATES, forward={"float32": 16.6, "bfloat16": 14.7})
    said = advise(replace(MACHINE, devices=(ZEN4,)), rates)
    assert not any("bfloat16" in sentence for sentence in said)


def test_features_that_are_only_near_bound_nothing() -> None:
    assert "network limits a run here (32.0 images/s)" in advise(MACHINE, WITH_INT8)[0]
