"""A run on several devices that is killed leaves no process behind, and the next one goes on from what was done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from fakes import FakeNetwork
from headstart.cache.reader import open_cache
from headstart.extract.run import extract_features
from pictures import picture

TESTS = Path(__file__).resolve().parents[1]
N_IMAGES, SHARD = 320, 40

pytestmark = [pytest.mark.faults, pytest.mark.skipif(sys.platform == "win32", reason="signals")]


def start(data: Path, output: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *(path for path in sys.path if path)])}
    command = [sys.executable, str(TESTS / "faults" / "devices.py"), str(data), str(output), str(SHARD)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def ended(process: subprocess.Popen[str]) -> tuple[list[str], str]:
    """What a run, and the processes that it has started, still say; standard error ends when the last of them does.

    Not by ``communicate``, which passes over what ``readline`` has read ahead.
    """
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        return process.stdout.read().splitlines(), process.stderr.read()


def n_done(lines: list[str]) -> int:
    return sum(int(line.split()[1]) for line in lines if line.startswith("done"))


def contents(path: Path) -> list[tuple[Any, ...]]:
    with open_cache(path) as cache:
        batch = next(cache.batches(batch_rows=10_000))
        return [
            (path, sha, features.tobytes(), pooled.tobytes())
            for path, sha, features, pooled in zip(cache.paths, cache.sha256, batch.features, batch.pooled, strict=True)
        ]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("devices") / "data"
    for number in range(N_IMAGES):
        picture(root / ("ant", "bee")[number % 2] / f"{number}.bmp", seed=number, size=(20, 20))
    return root


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    output = tmp_path_factory.mktemp("one") / "data.h5"
    extract_features(data, output, network=FakeNetwork(), device="cpu")  # type: ignore[arg-type]
    return contents(output)


@pytest.mark.parametrize(
    ("number", "n_lines"),
    [*product([signal.SIGKILL], [1, 3, 9]), (signal.SIGTERM, 1), (signal.SIGINT, 9), (signal.SIGHUP, 3)],
)
def test_the_next_run_goes_on(
    data: Path, undisturbed: list[tuple[Any, ...]], tmp_path: Path, number: signal.Signals, n_lines: int
) -> None:
    output = tmp_path / "data.h5"
    process = start(data, output)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(n_lines)]
    process.send_signal(number)
    rest, complaints = ended(process)
    before = n_done([*lines, *rest])
    assert before >= n_lines * SHARD // 4
    assert not complaints
    lines, _ = ended(start(data, output))
    last = json.loads(lines[-1])
    assert last["n_images"] == N_IMAGES
    assert last["n_computed"] <= N_IMAGES - before
    if number != signal.SIGKILL:
        assert last["n_computed"] == N_IMAGES - before
    assert contents(output) == undisturbed
    assert {path.name for path in tmp_path.iterdir()} <= {"data.h5", ".data.h5.lock"}
