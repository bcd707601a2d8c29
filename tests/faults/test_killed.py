"""Whatever kills a run, the old cache stays, and the next run ends with what an undisturbed one gives."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from faults.forks import Run, preload
from headstart.cache.reader import open_cache
from pictures import class_folders, picture

N_IMAGES, N_OLD, SHARD = 160, 20, 40

pytestmark = [pytest.mark.faults, pytest.mark.skipif(sys.platform == "win32", reason="signals")]

#: Starts a run of a folder of images into a cache, if need be of a certain layout.
Start = Callable[..., Run]

#: What a run that nothing disturbs ends with, and how many lines it prints on the way.
Undisturbed = tuple[dict[str, tuple[Any, ...]], int]


@pytest.fixture(scope="module")
def start() -> Start:
    preload()
    return lambda data, output, layout="auto": Run(data, output, SHARD, layout)


def said(process: Run) -> list[str]:
    """What a run still says until its end, for which it has two minutes."""
    end = Timer(120, process.kill)
    end.start()
    with process:
        lines = process.stdout.read().splitlines()
    end.cancel()
    assert process.returncode != -signal.SIGKILL, "it took longer than two minutes"
    return lines


def finish(process: Run) -> tuple[int, dict[str, Any]]:
    """Images that went through the network, and what the run said at its end."""
    lines = said(process)
    n_forward = sum(int(line.split()[1]) for line in lines if line.startswith("forward"))
    return n_forward, json.loads(lines[-1])


def killed(process: Run, n_lines: int) -> int:
    """Images that went through the network of a run that was killed after so many lines."""
    with process:
        lines = [process.stdout.readline() for _ in range(n_lines)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout
    return sum(int(line.split()[1]) for line in lines if line.startswith("forward"))


def contents(path: Path) -> dict[str, tuple[Any, ...]]:
    with open_cache(path) as cache:
        batch = next(cache.batches(batch_rows=10_000))
        rows = zip(cache.refs(), cache.sha256, batch.features, batch.pooled, strict=True)
        return {ref.path: (ref, sha, features.tobytes(), pooled.tobytes()) for ref, sha, features, pooled in rows}


@pytest.fixture(scope="module")
def old(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose cache knows twenty of its 180 images."""
    root = tmp_path_factory.mktemp("killed")
    class_folders(root / "data", n_per_class=N_OLD // 2)
    finish(start(root / "data", root / "features" / "data.h5"))
    for i in range(N_IMAGES):
        picture(root / "data" / ("ant", "bee")[i % 2] / f"new{i}.bmp", seed=i, size=(20, 20))
    return root


@pytest.fixture(scope="module")
def undisturbed(start: Start, old: Path) -> Undisturbed:
    """What a run that nothing disturbs ends with, and how many lines it prints on the way."""
    shutil.copytree(old / "features", old / "whole")
    process = start(old / "data", old / "whole" / "data.h5")
    n_lines = len(said(process)) - 1
    return contents(old / "whole" / "data.h5"), n_lines


def no_orphans(folder: Path) -> bool:
    return {path.name for path in folder.iterdir()} <= {"data.h5", ".data.h5.lock"}


@pytest.mark.parametrize("part", range(15))
def test_a_killed_run_costs_at_most_a_shard(
    start: Start, old: Path, undisturbed: Undisturbed, tmp_path: Path, part: int
) -> None:
    expected, n_lines = undisturbed
    shutil.copytree(old / "features", tmp_path / "features")
    output = tmp_path / "features" / "data.h5"
    before = contents(output)
    n_before = killed(start(old / "data", output), 1 + part * (n_lines - 1) // 14)
    assert contents(output) in (before, expected)  # the last line may come when the file has its name already
    n_after, _ = finish(start(old / "data", output))
    assert contents(output) == expected
    assert n_before + n_after <= N_IMAGES + SHARD
    assert no_orphans(output.parent)


@pytest.fixture(scope="module")
def old_shards(start: Start, old: Path) -> Path:
    """A folder of shards that knows the same twenty images."""
    root = old / "of shards"
    for kind in ("ant", "bee"):
        (root / "data" / kind).mkdir(parents=True)
        for path in (old / "data" / kind).glob("*.png"):
            shutil.copy2(path, root / "data" / kind)
    finish(start(root / "data", root / "features" / "data", "shards"))
    return root / "features"


@pytest.mark.parametrize("part", range(10))
def test_a_killed_run_into_a_folder_of_shards_costs_at_most_a_shard(
    start: Start, old: Path, old_shards: Path, undisturbed: Undisturbed, tmp_path: Path, part: int
) -> None:
    expected, n_lines = undisturbed
    shutil.copytree(old_shards, tmp_path / "features")
    output = tmp_path / "features" / "data"
    before = contents(output)
    n_before = killed(start(old / "data", output), 1 + part * (n_lines - 1) // 9)
    assert contents(output) in (before, expected)
    n_after, _ = finish(start(old / "data", output))
    assert contents(output) == expected
    assert n_before + n_after <= N_IMAGES + SHARD
    with open_cache(output) as cache:
        assert cache.places is not None
        assert {path.name for path in output.iterdir()} == {"cache.manifest", *cache.places.table.names}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_asked_to_stop_loses_nothing(
    start: Start, old: Path, undisturbed: Undisturbed, tmp_path: Path, number: signal.Signals
) -> None:
    shutil.copytree(old / "features", tmp_path / "features")
    output = tmp_path / "features" / "data.h5"
    process = start(old / "data", output)
    n_before = int(process.stdout.readline().split()[1])
    process.send_signal(number)
    rest, _ = finish(process)
    n_after, _ = finish(start(old / "data", output))
    assert n_before + rest + n_after == N_IMAGES
    assert contents(output) == undisturbed[0]


@pytest.mark.parametrize("attempt", range(6))
def test_two_runs_at_once_make_one_cache(
    start: Start, old: Path, undisturbed: Undisturbed, tmp_path: Path, attempt: int
) -> None:
    output = tmp_path / "features" / "data.h5"
    both = [start(old / "data", output) for _ in range(2)]
    results = [finish(process)[1] for process in both]
    refused = [result for result in results if "error" in result]
    assert len(refused) <= 1
    assert all(f"process {both[0].pid}" in r["error"] or f"process {both[1].pid}" in r["error"] for r in refused)
    assert {path: row[1:] for path, row in contents(output).items()} == {
        path: row[1:] for path, row in undisturbed[0].items()
    }
    assert no_orphans(output.parent)
