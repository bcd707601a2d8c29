from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from headstart.extract.options import ExtractOptions
from headstart.extract.summary import ExtractionSummary
from headstart.images.load import RunTimes, StageTime
from headstart_cli.cache_commands.extract_command import print_bottleneck, print_gone, print_summary


def summary(seconds: float) -> ExtractionSummary:
    times = RunTimes(StageTime(2, 4.0, 0.5), StageTime(1, 9.7, 9.0), StageTime(1, 1.0, 0.0), seconds)
    return ExtractionSummary(Path("x.h5"), None, "flat", (), n_computed=1000, times=times, device="cpu")


def test_the_end_of_a_run_says_what_bounded_it(capsys: pytest.CaptureFixture[str]) -> None:
    print_bottleneck(summary(10.0), ExtractOptions())
    expected = (
        "Bounded by the network, at work 97% of the time (reading and decoding 20%, compressing and writing 10%). "
    )
    assert capsys.readouterr().out.startswith(f"{expected}A GPU (--device gpu:0) would help")


def test_a_short_or_interrupted_run_says_nothing_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    stopped = summary(10.0)
    stopped.stop_signal = 15
    print_bottleneck(stopped, ExtractOptions())
    print_bottleneck(summary(1.0), ExtractOptions())
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("n_gone", "keeps_gone", "sentence"),
    [
        (0, False, ""),
        (
            1,
            False,
            "1 image of the cache is gone from the folder; its features are dropped (--keep-missing keeps them)",
        ),
        (8, True, "8 images of the cache are gone from the folder; their features are kept (--keep-missing)"),
    ],
)
def test_images_that_are_gone_are_counted(
    capsys: pytest.CaptureFixture[str], n_gone: int, keeps_gone: bool, sentence: str
) -> None:
    found = summary(1.0)
    found.n_gone, found.keeps_gone = n_gone, keeps_gone
    print_gone(found)
    assert capsys.readouterr().err.strip() == sentence


def test_what_images_lost_while_they_were_decoded_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    found = summary(1.0)
    found.notes = Counter({"first-page": 6, "low-range": 1, "from-L": 9})
    print_summary(found)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Decoded: ")]
    assert [line.partition(" (")[0] for line in said] == [
        "Decoded: in 6 images only the first page was taken",
        "Decoded: in 1 image few of the 256 levels are used: the values span little of the range of their type",
    ]
