"""``make bench``: its parts take their arguments, and the page says what the results say. Nothing long is run here."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from fakes import FakeBackbone
from headstart.backbones.vgg16 import VGG16
from headstart.extract.shard_jobs import ShardJob
from headstart.images.discovery.scan import discover

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a module of benchmarks/ as its own scripts do."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


RESULT: dict[str, Any] = {
    "images": "64 images of somewhere",
    "rounds": 3,
    "multiply_adds": {f"block{i}_conv1": 10**9 for i in range(1, 6)},
    "gmac_per_image": 5.0,
    "peaks": {"float32": {"A": 100.0, "B": 50.0}, "bfloat16": {"A": 500.0}},
    "ways": {
        "bare-float32": {"precision": "float32", "images_per_second": [10.0, 12.0, 11.0], "whole_seconds": [1.0]},
        "bare-auto": {"precision": "bfloat16", "images_per_second": [50.0], "whole_seconds": [1.0]},
        "worker-auto": {
            "precision": "bfloat16", "images_per_second": [49.0], "whole_seconds": [12.3],
            "relative_error": 0.004, "cosine_mean": 0.99999, "cosine_min": 0.9999,
        },
        "tutorial-predict": {"precision": "float32", "images_per_second": [7.0], "whole_seconds": [20.0]},
        "openvino-int8": {"precision": "int8", "images_per_second": [140.0], "whole_seconds": [20.0]},
    },
    "by_turns": {
        "images_a_turn": 64, "precision": "bfloat16", "worker": 48.76, "bare": 50.02,
        "worker_of_bare": {"rounds": 21, "median": 0.9749, "mean": 0.9712, "error": 0.0049},
    },
    "heads": {
        "images": "256 images of somewhere",
        "search": {
            "shape": [256, 25088],
            "ways": {
                "ours": {"median_seconds": 0.5, "times_ours": 1.0, "accuracy_at_C": {"1": 0.75, "10": 0.875}},
                "GridSearchCV(n_jobs=2)": {"median_seconds": 5.0, "times_ours": 10.0, "accuracy_at_C": {"1": 0.75}},
            },
        },
        "dense": {
            "caches": {
                "features": {
                    "n_train": 192, "n_test": 64,
                    "default": {"seconds": [1.0, 2.0, 4.0], "accuracy_mean": 0.9, "accuracy_spread": 0.01},
                    "same_settings": {"seconds": [3.0], "accuracy_mean": 0.88, "accuracy_spread": 0.01},
                    "baseline": {"seconds": [6.0], "accuracy_mean": 0.89, "accuracy_spread": 0.02},
                }
            }
        },
        "storage": {
            "rows": 256,
            "headstart": {"kb_per_row": 11.0, "write": 2500, "read": 10000, "read_scattered": 9000},
            "plain": {"h5py float32": {"kb_per_row": 100.4, "write": 9000, "read": 8000, "read_scattered": 7000}},
        },
    },
    "machine": {"processor": "P", "cores": 2, "memory_gib": 8.0, "python": "3.11", "versions": {"torch": "2.6"}},
}  # fmt: skip


def test_the_multiply_adds_are_those_of_the_network_that_runs(script: Any) -> None:
    counts = script("peak").multiply_adds()
    assert sum(counts.values()) == 15_346_630_656
    for name, side, n_inputs in (("block1_conv2", 224, 64), ("block5_conv3", 14, 512)):
        assert counts[name] == side * side * 9 * n_inputs * VGG16.layers[name].channels
    assert len(counts) == 13


def test_ratios_are_to_the_bare_function_of_the_same_type_and_to_the_tutorial(script: Any) -> None:
    lines = list(script("performance_page").extraction_rows(RESULT))
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines[2:]}
    assert cells["**headstart**, `auto`"] == [
        "bfloat16", "49.0", "0.98", "7.00", "0.49", "12.3", "4.0e-03", "0.99999, 0.99990",
    ]  # fmt: skip
    assert cells["bare forward function, float32"][1:5] == ["11.0", "1.00", "1.57", "0.55"]
    assert cells["OpenVINO, int8 (NNCF)"] == ["int8", "140.0", "–", "20.00", "–", "20.0", "–", "–"]


def test_the_worker_beside_its_bare_network_is_in_words(script: Any) -> None:
    page = script("performance_page")
    assert page.turns_sentence(RESULT) == (
        "By turns of 64 images in one process, **headstart** and its bare function in bfloat16, 21 rounds: 48.8 and 50.0 "
        "images/s. The ratio in a round has the median 0.975 and the mean 0.971, of standard error 0.005."
    )
    assert page.turns_sentence(RESULT) in page.tables(RESULT)
    assert "By turns" not in page.tables(RESULT | {"by_turns": None})


def test_of_the_turns_the_worker_and_its_bare_network_are_kept(
    script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    def run(arguments: list[str]) -> dict[str, Any]:
        asked.extend(arguments)
        rates = {"bare float32": {"median": 16.0}, "float32 worker": {"median": 15.5}}
        return {"images_a_turn": 64, "images_per_second": rates, "worker_of_bare": {"float32": {"median": 0.97}}}

    monkeypatch.setattr(script("bench"), "run", run)
    assert script("bench").by_turns(tmp_path, 0.5) == {
        "images_a_turn": 64, "precision": "float32", "worker": 15.5, "bare": 16.0, "worker_of_bare": {"median": 0.97},
    }  # fmt: skip
    options = script("int8").parse(asked[1:])
    assert (options.what, options.paths, options.minutes) == ("rates", [tmp_path], 0.5)
    assert (options.precisions, options.loop_images, options.brief) == (["auto"], 0, True)


def test_heads_and_storage_stand_beside_the_plain_ways(script: Any) -> None:
    page = script("performance_page")
    heads = "\n".join(page.head_rows(RESULT["heads"]))
    assert "| **headstart** | 0.50 | 1.0 | 0.8750 |" in heads
    assert "| scikit-learn, `GridSearchCV(n_jobs=2)` | 5.00 | 10.0 | 0.7500 |" in heads
    assert "| Keras, `model.fit` as the tutorials do | 6.00 | 3.0 | 0.8900 ± 0.0200 |" in heads
    storage = "\n".join(page.storage_rows(RESULT["heads"]["storage"]))
    assert "| **headstart** cache | 11.0 | 2,500 | 10,000 | 9,000 |" in storage
    assert "| h5py float32 | 100.4 | 9,000 | 8,000 | 7,000 |" in storage


def test_only_what_stands_between_the_markers_is_made_anew(script: Any) -> None:
    page = script("performance_page")
    text = f"# Before\n\n{page.START}\nstale figures\n{page.END}\n\n## After\n"
    made = page.with_tables(text, RESULT)
    assert made.startswith("# Before\n")
    assert made.endswith(f"{page.END}\n\n## After\n")
    assert "stale figures" not in made
    assert page.with_tables(made, RESULT) == made
    with pytest.raises(SystemExit, match="no lines"):
        page.with_tables("# Nothing", RESULT)


def test_the_plot_says_its_numbers_and_has_colours_for_the_dark(script: Any) -> None:
    svg = script("performance_page").plot(RESULT)
    assert "<desc" in svg
    assert "headstart, auto: 49.0" in svg
    assert "prefers-color-scheme:dark" in svg
    used = set(re.findall(r'class="([^"]+)"', svg))
    roles = {role for found in used for role in found.split() if role.startswith(("f-", "s-"))}
    assert all(f".{role}{{" in svg for role in roles)


def test_images_are_laid_out_in_whole_batches_in_the_same_order_for_all(script: Any, tmp_path: Path) -> None:
    for name in ("a", "a b", "B"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(14):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "data" / name / f"{number}.png")
    (tmp_path / "data" / "a" / "no.bmp").write_bytes(b"BM")
    said = script("bench").lay_out(tmp_path / "data", 1000, tmp_path)
    assert said == "32 images of data"
    paths = [ref.path for ref in discover(tmp_path / "images").refs]
    assert len(paths) == 32
    assert paths == sorted(paths, key=lambda path: path.split("/"))
    with pytest.raises(SystemExit, match="At least 32"):
        script("bench").lay_out(tmp_path / "data", 31, tmp_path)


def test_the_difference_of_features_is_relative_and_by_row(script: Any, tmp_path: Path) -> None:
    expected = np.eye(4, dtype=np.float32)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["features"] = (expected * 1.1).astype(np.float16)
    found = script("bench").difference(script("bench").features(tmp_path / "x.h5"), expected)
    assert found["relative_error"] == pytest.approx(0.1, abs=1e-3)
    assert found["cosine_min"] == pytest.approx(1)


def test_the_parts_parse_their_arguments(script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    bench, ways = script("bench"), script("ways")
    options = bench.parse(["--data", "x", "--images", "96", "--rounds", "5", "--ways", "worker-auto,bare-auto"])
    assert (options.images, options.rounds, options.ways) == (96, 5, ["worker-auto", "bare-auto"])
    assert bench.parse([]).ways == list(ways.WAYS)
    assert bench.parse(["--parts", "heads"]).parts == ["heads"]
    assert set(ways.WAYS) == set(script("performance_page").TITLES)
    assert ways.parse(["bare-auto", "folder", "file.h5", "--started", "1.5"]).started == 1.5
    with pytest.raises(SystemExit):
        bench.parse(["--ways", "nothing-like-it"])
    assert "there is no way nothing-like-it" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["head_search", "dense_head", "storage"])
def test_what_make_bench_runs_knows_to_be_brief(script: Any, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        script(name).main(["--help"])
    assert not end.value.code
    assert "--brief" in capsys.readouterr().out.partition("options:")[2]


def test_make_bench_hands_its_variables_on() -> None:
    command = [
        "make",
        "-n",
        "bench",
        "BENCH_DATA=my images",
        "BENCH_IMAGES=96",
        "BENCH_ROUNDS=5",
        "TORCH=torch==2.13.0",
    ]
    command.append("VENV=not-made-yet")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    said = subprocess.run(
        [*command, f"PYTHON={sys.executable}"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert 'bench.py --data "my images" --images 96 --rounds 5' in said
    assert "performance_page.py" in said
    assert '".[bench,demo,efficientnet,weights]" "torch==2.13.0"' in said


def test_the_page_says_what_the_committed_results_say(script: Any) -> None:
    page = script("performance_page")
    result = json.loads((ROOT / "benchmarks" / "results" / "bench.json").read_text(encoding="utf-8"))
    text = page.PAGE.read_text(encoding="utf-8")
    assert text == page.with_tables(text, result), "python benchmarks/performance_page.py writes the tables anew"
    svg = (page.PAGE.parent / "engines.svg").read_text(encoding="utf-8")
    assert page.plot_description(result) in svg
    assert "](engines.svg)" in text


def test_each_turn_of_a_worker_has_the_whole_work_of_its_images(tmp_path: Path, script: Any) -> None:
    for number in range(12):
        Image.new("RGB", (35, 35), (20 * number, 0, 0)).save(tmp_path / f"{number:02}.png")
    images, decoded = discover(tmp_path), []
    backbone, turns = FakeBackbone(batch_size=4), script("turns")
    with turns.HeldWorker(list(images.refs) * 30, ShardJob(tmp_path, ()), backbone) as worker:
        before = backbone.n_images
        for turn in range(1, 41):  # more than once through all of them, and through several files
            assert worker.turn(4) > 0
            assert backbone.n_images == before + 16 * turn
            decoded.append(worker._pipeline.times.decode.busy_seconds)
    assert np.all(np.diff(decoded) > 0)
    assert turns.bare_turns(backbone, np.zeros((5, 35, 35, 3), np.uint8), 3)() > 0


def test_however_few_minutes_there_are_rounds_enough_to_know_an_error(tmp_path: Path, script: Any) -> None:
    for number in range(8):
        Image.new("RGB", (35, 35), (20 * number, 0, 0)).save(tmp_path / f"{number}.png")
    images, int8 = discover(tmp_path), script("int8")
    pixels, job = np.zeros((8, 35, 35, 3), np.uint8), ShardJob(tmp_path, ())
    measured = int8.turns(list(images.refs), job, pixels, {"float32": FakeBackbone(batch_size=4)}, 0.0, 0)
    assert {name: len(values) for name, values in measured.items()} == {"bare float32": 2, "float32 worker": 2}
    found = int8.ratios(measured["float32 worker"], measured["bare float32"])
    assert found["rounds"] == 2
    assert found["error"] >= 0
