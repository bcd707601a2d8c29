from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headstart.backbones import precision as device
from headstart.backbones import registry
from headstart.backbones.vgg16 import VGG16
from headstart.extract import summary as module
from headstart.extract.options import ExtractOptions
from headstart.extract.summary import ExtractionSummary, bottleneck
from headstart.images.load import RunTimes, StageTime


def summary(
    decode: float = 1, forward: float = 1, write: float = 1, seconds: float = 10, n_computed: int = 1000
) -> ExtractionSummary:
    """A run in which each stage was waited for so long."""
    times = RunTimes(StageTime(2, 15.0, decode), StageTime(1, 9.0, forward), StageTime(1, 2.0, write), seconds)
    recipe = VGG16.recipe(weights_sha256="0" * 64)
    return ExtractionSummary(Path("x.h5"), recipe, "flat", (), n_computed=n_computed, times=times, device="cpu")


def on_processor(monkeypatch: pytest.MonkeyPatch, flags: str, *, installed: bool = True, family: int = 6) -> None:
    found = frozenset(flags.split())
    monkeypatch.setattr(device, "cpu_flags", lambda: found)
    monkeypatch.setattr(device, "cpu_family", lambda: ("AuthenticAMD", family))
    monkeypatch.setattr(module, "cpu_flags", lambda: found)
    monkeypatch.setattr(registry, "is_installed", lambda _engine: installed)


@pytest.mark.parametrize(
    ("waits", "options", "expected"),
    [
        ({"decode": 8}, {"decode_threads": 2}, "`decode_threads=16` would help: there are 16 cores."),
        ({"decode": 8}, {"decode_threads": 16}, "More cores would help; where the files come over a network, more"),
        ({"decode": 8}, {"decode_threads": 16}, "; for large JPEGs `resize='jpeg-draft'`, in a cache of its own."),
        ({"decode": 8}, {"decode_threads": 16, "resize": "jpeg-draft"}, "more `decode_threads` than cores."),
        ({"forward": 8}, {}, "A GPU (`device='gpu:0'`) would help."),
        ({"write": 8}, {"compression": "gzip"}, "`compression='zstd'` would help."),
        ({"write": 8}, {"compression": "zstd"}, "`compression='none'`"),
        ({"write": 8}, {"compression": "none"}, "A faster disk (`output`) would help."),
    ],
)
def test_the_stage_that_was_waited_for_and_what_would_help(
    waits: dict[str, float], options: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_processor(monkeypatch, "avx2")
    sentence = bottleneck(summary(**waits), ExtractOptions(**options), n_cores=16)
    assert expected in sentence
    words = {"decode": "reading and decoding, at work 75%", "forward": "the network, at work 90%"}
    assert sentence.startswith(
        f"Bounded by {words.get(next(iter(waits)), 'compressing and writing, at work 20%')} of the time ("
    )


@pytest.mark.parametrize(
    ("flags", "installed", "precision", "expected"),
    [
        ("avx2", True, "auto", "would help."),
        ("avx2", True, "float32", "would help."),
        ("avx2", False, "auto", "would help; so may ncnn, with the same features: pip install 'headstart[ncnn]'."),
        ("avx2 avx_vnni", True, "auto", "would help; or `precision='int8'`, whose features are near these"),
        (
            "avx512_vnni avx512_bf16",
            True,
            "float32",
            "would help; so may `precision='auto'`: it takes a faster type where",
        ),
        ("avx512_vnni", True, "int8", "would help."),
    ],
)
def test_what_would_make_the_network_faster_depends_on_the_processor(
    flags: str, installed: bool, precision: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_processor(monkeypatch, flags, installed=installed)
    said = bottleneck(summary(forward=8), ExtractOptions(precision=precision))
    assert f"A GPU (`device='gpu:0'`) {expected}" in said


def test_where_auto_is_float32_it_is_not_advised(monkeypatch: pytest.MonkeyPatch) -> None:
    on_processor(monkeypatch, "avx512_vnni avx512_bf16", family=25)
    assert "auto" not in bottleneck(summary(forward=8), ExtractOptions(precision="float32"))


def test_a_gpu_is_not_told_to_use_a_gpu() -> None:
    on_gpu = summary(forward=8)
    on_gpu.device = "gpu:1"
    assert "larger `batch_size`" in bottleneck(on_gpu, ExtractOptions(precision="float32"))


@pytest.mark.parametrize("short", [{"n_computed": 127}, {"seconds": 4.9}])
def test_a_short_run_says_nothing(short: dict[str, Any]) -> None:
    assert bottleneck(summary(**short), ExtractOptions()) == ""
