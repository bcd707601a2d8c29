"""What goes wrong in a run leaves the old cache as it was, and costs the next run nothing that was done."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fakes import FakeBackbone, FakeNetwork
from headstart.cache.reader import open_cache
from headstart.errors import CacheError, DataError
from headstart.extract import run as extraction
from headstart.extract.lock import beside, lock
from headstart.extract.run import extract_features
from headstart.types import FeatureBatch, Silence
from pictures import class_folders, picture

pytestmark = pytest.mark.slow

SHARD = 5  # images of a file: half of what a crash may cost


def run(data: Path, output: Path, *, batch_size: int = 4, **options: Any) -> int:
    """Extract, and return how many images went through the network."""
    network = FakeNetwork(batch_size)
    extract_features(data, output, network=network, shard_images=2 * SHARD, decode_threads=2, **options)
    return network.made.n_images


def contents(path: Path) -> list[tuple[Any, ...]]:
    with open_cache(path) as cache:
        batch = next(cache.batches(batch_rows=10_000))
        columns = zip(cache.refs(), cache.sha256, batch.features, batch.pooled, strict=True)
        return [(ref, sha256, features.tobytes(), pooled.tobytes()) for ref, sha256, features, pooled in columns]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of 22 images, of which the cache knows four."""
    root = class_folders(tmp_path / "data", n_per_class=2)
    run(root, tmp_path / "features" / "data.h5")
    for number in range(18):
        picture(root / ("ant", "bee")[number % 2] / f"new{number}.png", seed=number)
    return root


@pytest.fixture
def output(tmp_path: Path, data: Path) -> Path:
    return tmp_path / "features" / "data.h5"


@pytest.fixture
def undisturbed(data: Path, tmp_path: Path) -> list[tuple[Any, ...]]:
    run(data, tmp_path / "whole.h5")
    return contents(tmp_path / "whole.h5")


def left(output: Path) -> set[str]:
    """What lies beside a cache, shards by their suffix."""
    return {path.name if path.parent == output.parent else path.suffix for path in output.parent.rglob("*")}


def full_disk(monkeypatch: pytest.MonkeyPatch, is_full: Callable[[str], bool], room_bytes: int) -> None:
    """Let writes to the files that ``is_full`` tells by their names fail once so many bytes are written to one."""

    class FullDisk(io.FileIO):
        def write(self, data: Any) -> int:
            if is_full(str(self.name)) and self.tell() + len(memoryview(data).cast("B")) > room_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    monkeypatch.setattr("headstart.storage.publishing.io", SimpleNamespace(FileIO=FullDisk))


@pytest.mark.parametrize(("place", "n_left"), [("shard", 0), ("merge", 18)])
@pytest.mark.parametrize("room_bytes", [0, 20_000])
def test_a_full_disk(
    data: Path,
    output: Path,
    undisturbed: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    n_left: int,
    room_bytes: int,
) -> None:
    before = output.read_bytes()
    full_disk(monkeypatch, lambda name: (".parts" in name) == (place == "shard"), room_bytes)
    with pytest.raises(CacheError, match=r"\.h5 cannot be written: No space left on device\.$"):
        run(data, output)
    assert output.read_bytes() == before
    expected = {"data.h5", ".data.h5.lock", ".data.h5.parts"} | ({".h5"} if n_left else set())
    assert left(output) == expected
    monkeypatch.undo()
    assert run(data, output) == 18 - n_left
    assert contents(output) == undisturbed
    assert left(output) == {"data.h5", ".data.h5.lock"}


def test_a_disk_on_which_not_even_the_owner_fits_serves_a_run_that_has_nothing_to_write(
    data: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(data, output)

    def full(*_args: Any, **_options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("headstart.extract.lock.Path.write_text", full)
    assert run(data, output) == 0


def after(n_images: int, action: Callable[[], None]) -> Callable[[FakeBackbone, np.ndarray], FeatureBatch]:
    """A forward pass that does something once so many images have gone through."""
    forward = FakeBackbone.forward

    def forward_and_act(self: FakeBackbone, images: np.ndarray) -> FeatureBatch:
        if self.n_images < n_images <= self.n_images + len(images):
            action()
        return forward(self, images)

    return forward_and_act


def test_a_folder_that_vanishes_is_not_a_folder_of_bad_images(
    data: Path, output: Path, undisturbed: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = output.read_bytes()
    monkeypatch.setattr(FakeBackbone, "forward", after(6, lambda: data.rename(data.with_name("away"))))
    with pytest.raises(DataError, match=r"data has vanished in the middle of the run.*stays as it was"):
        run(data, output, batch_size=1)
    assert output.read_bytes() == before
    monkeypatch.undo()
    data.with_name("away").rename(data)
    assert run(data, output) <= 18 - SHARD
    assert contents(output) == undisturbed
    assert left(output) == {"data.h5", ".data.h5.lock"}


def test_a_folder_that_vanishes_before_the_first_image(
    data: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = output.read_bytes()
    plan = extraction.make_plan

    def plan_and_delete(*args: Any, **options: Any) -> Any:
        made = plan(*args, **options)
        shutil.rmtree(data)
        return made

    monkeypatch.setattr(extraction, "make_plan", plan_and_delete)
    with pytest.raises(DataError, match="has vanished"):
        run(data, output)
    assert output.read_bytes() == before


def test_another_disk_at_the_place_of_the_folder_counts_as_vanished(
    data: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unmount() -> None:
        shutil.rmtree(data)
        data.mkdir()
        monkeypatch.setattr(extraction, "device_of", lambda _folder: -1)

    monkeypatch.setattr(FakeBackbone, "forward", after(6, unmount))
    with pytest.raises(DataError, match="has vanished"):
        run(data, output, batch_size=1)


def test_one_image_that_vanishes_is_one_failure(data: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = data / "bee" / "new9.png"
    monkeypatch.setattr(FakeBackbone, "forward", after(1, gone.unlink))
    run(data, output, batch_size=1)  # so that it is not decoded before
    with open_cache(output) as cache:
        assert [(f.ref.path, f.reason.split(":")[0]) for f in cache.failures] == [("bee/new9.png", "gone")]


class Listening(Silence):
    """Remembers what a run tells."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def truncate(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:-700])


def flip_a_feature(shard: Path) -> None:
    """Flip one bit of the features of a row, which opening a file does not read."""
    with open_cache(shard) as cache:
        _, chunk = cache.read_chunk("features", 2)
    whole = bytearray(shard.read_bytes())
    whole[whole.index(chunk) + len(chunk) // 2] ^= 4
    shard.write_bytes(whole)


@pytest.mark.parametrize("damage", [truncate, flip_a_feature, Path.unlink, lambda shard: shard.write_bytes(b"")])
def test_a_shard_that_is_damaged_between_two_runs_is_healed_and_said(
    data: Path,
    output: Path,
    undisturbed: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], None],
) -> None:
    full_disk(monkeypatch, lambda name: ".parts" not in name, 0)
    with pytest.raises(CacheError):
        run(data, output)
    monkeypatch.undo()
    damage(sorted(beside(output, "parts").iterdir())[1])
    listening = Listening()
    assert run(data, output, progress=listening) == SHARD
    assert contents(output) == undisturbed
    said = any("not whole and is computed again" in message for message in listening.messages)
    assert said == (damage is not Path.unlink)


def test_any_error_of_the_network_keeps_the_shards_that_are_done(
    data: Path, output: Path, undisturbed: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = output.read_bytes()

    def fail() -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(FakeBackbone, "forward", after(12, fail))
    with pytest.raises(RuntimeError, match="out of memory"):
        run(data, output)
    assert output.read_bytes() == before
    assert left(output) == {"data.h5", ".data.h5.lock", ".data.h5.parts", ".h5"}
    monkeypatch.undo()
    assert run(data, output) == 18 - 2 * SHARD
    assert contents(output) == undisturbed


def test_a_second_writer_is_told_host_and_process(output: Path) -> None:
    with (
        lock(output),
        pytest.raises(CacheError, match=f"by process {os.getpid()} on {socket.gethostname()}"),
        lock(output),
    ):
        pass


def test_what_a_dead_writer_left_is_taken_over(data: Path, output: Path) -> None:
    beside(output, "lock").touch()
    beside(output, "owner").write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    beside(output, "1-abc.partial").write_bytes(b"half")
    (output.parent / ".other.h5.1-abc.partial").write_bytes(b"of another cache")
    run(data, output)
    assert left(output) == {"data.h5", ".data.h5.lock", ".other.h5.1-abc.partial"}
