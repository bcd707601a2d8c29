"""Several devices of one machine, a process for each: here processes on the CPU with the fake network."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deadly import Deadly, Lethal
from fakes import FakeNetwork
from headstart.backbones import precision as devices
from headstart.backbones.precision import pick_device
from headstart.cache.reader import open_cache
from headstart.errors import HeadstartError, ImageError
from headstart.extract import devices_engine, engine
from headstart.extract.devices_engine import environment, write_message
from headstart.extract.engine import devices_of
from headstart.extract.network import Network
from headstart.extract.options import ExtractOptions
from headstart.extract.run import extract_features
from headstart.extract.shard_jobs import ShardJob
from headstart.extract.summary import ExtractionSummary
from headstart.runtime import THREAD_VARIABLES
from pictures import class_folders, picture

pytestmark = pytest.mark.slow


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "data", n_per_class=20)


def run(data: Path, output: Path, network: FakeNetwork | None = None, **options: Any) -> ExtractionSummary:
    options = {"shard_images": 8, "device": "cpu,cpu", "decode_threads": 2} | options
    return extract_features(data, output, network=network or FakeNetwork(), **options)  # type: ignore[arg-type]


def contents(path: Path) -> list[tuple[Any, ...]]:
    with open_cache(path) as cache:
        batch = next(cache.batches(batch_rows=10_000))
        rows = zip(cache.paths, cache.sha256, cache.labels.tolist(), batch.features, batch.pooled, strict=True)
        return [(path, sha, label, f.tobytes(), p.tobytes()) for path, sha, label, f, p in rows]


def expected(data: Path, tmp_path: Path) -> list[tuple[Any, ...]]:
    """What one process gives."""
    run(data, tmp_path / "one.h5", device="cpu")
    return contents(tmp_path / "one.h5")


def test_the_rows_are_those_of_one_process(data: Path, tmp_path: Path) -> None:
    (data / "ant" / "broken.png").write_bytes(b"no picture")
    network = FakeNetwork()
    summary = run(data, tmp_path / "two.h5", network)
    assert network.made.n_images == 0  # nothing was computed in this process
    assert contents(tmp_path / "two.h5") == expected(data, tmp_path)
    assert (summary.n_images, summary.n_computed, len(summary.failures)) == (40, 40, 1)
    assert (summary.device, [(one.place, one.n_workers, one.n_images) for one in summary.worker_statistics]) == (
        "cpu,cpu",
        [("cpu", 2, 41)],
    )
    assert summary.times.forward.threads == summary.times.decode.threads == 2
    assert 0 < summary.times.share(summary.times.forward) <= 1


def test_what_exists_is_not_computed_again(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "two.h5")
    for number in range(9):
        picture(data / "ant" / f"new{number}.png", seed=number)
    summary = run(data, tmp_path / "two.h5")
    assert (summary.n_images, summary.n_computed) == (49, 9)
    assert contents(tmp_path / "two.h5") == expected(data, tmp_path)


def test_a_process_that_dies_costs_no_row(data: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    summary = run(data, tmp_path / "two.h5", Deadly(mark))
    assert mark.exists()
    assert (summary.n_images, summary.failures) == (40, ())
    assert contents(tmp_path / "two.h5") == expected(data, tmp_path)


def test_a_process_that_is_killed_in_the_middle_costs_no_row(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first that reports a shard is killed at once: it has been given more by then."""
    reported, killed = devices_engine.DevicesEngine._reported, []

    def kill(self: Any, process: Any, report: Any) -> Any:
        if not killed:
            os.kill(process.pid, signal.SIGKILL)
            killed.append(process.pid)
        return reported(self, process, report)

    monkeypatch.setattr(devices_engine.DevicesEngine, "_reported", kill)
    summary = run(data, tmp_path / "two.h5")
    assert killed
    assert (summary.n_images, summary.failures) == (40, ())
    assert contents(tmp_path / "two.h5") == expected(data, tmp_path)


@pytest.mark.parametrize("shard_images", [16, 80])
def test_an_image_that_ends_every_process_is_found_and_listed(data: Path, tmp_path: Path, shard_images: int) -> None:
    picture(data / "ant" / "a-poison.png", seed=99)
    summary = run(data, tmp_path / "two.h5", Lethal(), shard_images=shard_images)
    assert [failure.ref.path for failure in summary.failures] == ["ant/a-poison.png"]
    assert "exited" in summary.failures[0].reason
    (data / "ant" / "a-poison.png").unlink()
    assert contents(tmp_path / "two.h5") == expected(data, tmp_path)


def test_processes_that_all_die_are_given_up(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices_engine, "MAX_EXITS_IN_A_ROW", 1)
    for path in data.glob("*/*.png"):
        path.rename(path.with_stem(f"poison{path.stem}"))
    with pytest.raises(HeadstartError, match="processes of cpu have ended one after the other"):
        run(data, tmp_path / "two.h5", Lethal())
    assert not (tmp_path / "two.h5").exists()


def test_what_a_process_raises_on_purpose_is_raised_here(data: Path, tmp_path: Path) -> None:
    (data / "ant" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"ant/broken\.png"):
        run(data, tmp_path / "two.h5", stop_on_failure=True)


def test_asked_to_stop_the_processes_finish_their_batches(data: Path, tmp_path: Path) -> None:
    class Impatient:
        """Asks to stop when the first images are done."""

        def message(self, text: str) -> None: ...

        def start(self, n_images: int) -> None: ...

        def advance(self, n_images: int, place: str = "") -> None:
            signal.raise_signal(signal.SIGINT)

    first = run(data, tmp_path / "two.h5", progress=_Once(Impatient()))
    assert first.interrupted
    assert not (tmp_path / "two.h5").exists()
    second = run(data, tmp_path / "two.h5")
    assert first.n_computed + second.n_computed == 40
    assert contents(tmp_path / "two.h5") == expected(data, tmp_path)


class _Once:
    """Passes on what happens first alone: the second SIGINT would end the program."""

    def __init__(self, progress: Any) -> None:
        self.progress, self.n_calls = progress, 0

    def message(self, text: str) -> None: ...

    def start(self, n_images: int) -> None: ...

    def advance(self, n_images: int, place: str = "") -> None:
        self.n_calls += 1
        if self.n_calls == 1:
            self.progress.advance(n_images, place)


@pytest.mark.parametrize("works", [True, False])
def test_a_process_whose_answers_nobody_reads_ends_without_a_word(tmp_path: Path, works: bool) -> None:
    """As where the one that has started it is being killed, and its messages to this one have not ended yet."""
    network, job = FakeNetwork(), ShardJob(tmp_path, ("ant", "bee"))
    program = [sys.executable, "-m", "headstart.extract.devices_engine"]
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *(path for path in sys.path if path)])
    with subprocess.Popen(
        program,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": paths},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        write_message(process.stdin, ("cpu", network, job, 1, 8) if works else ("cpu",))
        if works:
            write_message(process.stdin, ("extract", network.made.recipe, {}))
        try:
            assert process.wait(timeout=120) == 1
        finally:
            process.kill()
        assert process.stderr.read() == b""


def test_no_more_processes_than_shards(data: Path, tmp_path: Path) -> None:
    assert run(data, tmp_path / "two.h5", shard_images=80).device == "cpu"


def test_auto_is_every_gpu_and_int8_asks_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "count_gpus", lambda: 3)
    assert devices_of(ExtractOptions(), None) == ["gpu:0", "gpu:1", "gpu:2"]
    assert devices_of(ExtractOptions(precision="int8"), None) == ["auto"]
    assert devices_of(ExtractOptions(device="gpu:1"), None) == ["gpu:1"]
    for few in (0, 1):
        monkeypatch.setattr(engine, "count_gpus", lambda few=few: few)
        assert devices_of(ExtractOptions(), None) == ["auto"]


def test_where_no_gpu_can_be_tensorflow_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(devices, "GPU_DRIVERS", ())
    monkeypatch.setattr(devices, "import_tensorflow", lambda: pytest.fail("asked"))
    assert devices_of(ExtractOptions(), None) == ["auto"]
    assert pick_device("auto").name == "cpu"


def test_devices_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "count_gpus", lambda: 2)
    assert devices_of(ExtractOptions(device="gpu:1, gpu:0"), None) == ["gpu:1", "gpu:0"]
    with pytest.raises(HeadstartError, match="There is no gpu:2"):
        devices_of(ExtractOptions(device="gpu:0,gpu:2"), None)
    with pytest.raises(HeadstartError, match="Unknown device 'tpu'"):
        devices_of(ExtractOptions(device="gpu:0,tpu"), None)


def test_a_process_sees_its_own_device_alone() -> None:
    assert environment("gpu:1", 4, {})["CUDA_VISIBLE_DEVICES"] == "1"
    assert environment("gpu:1", 4, {"CUDA_VISIBLE_DEVICES": "5, GPU-7"})["CUDA_VISIBLE_DEVICES"] == "GPU-7"
    on_cpu = environment("cpu", 4, {"CUDA_VISIBLE_DEVICES": "5", "HOME": "/home/me"})
    assert (on_cpu["CUDA_VISIBLE_DEVICES"], on_cpu["HOME"]) == ("-1", "/home/me")
    assert {on_cpu[name] for name in THREAD_VARIABLES} == {"4"}


def test_a_network_goes_to_a_process_for_the_device_that_it_sees() -> None:
    for device, there in (("gpu:0,gpu:1", "auto"), ("auto", "auto"), ("cpu", "cpu")):
        network = Network(ExtractOptions(device=device))
        network.__dict__["weights"] = "weights"
        assert network.__getstate__()["options"].device == there
        assert network.options.device == device
