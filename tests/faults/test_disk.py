"""A disk that is full, a folder that may not be written or read: one sentence, the old cache stays, the next run goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headstart.cache.reader import open_cache
from pictures import class_folders, picture

TESTS = Path(__file__).resolve().parents[1]
N_OLD, N_NEW = 20, 320

#: A user who owns nothing.
NOBODY = 65534

pytestmark = [pytest.mark.faults, pytest.mark.skipif(sys.platform != "linux", reason="mount and users of Linux")]
needs_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")


def extract(data: Path, output: Path, *before: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(TESTS / "faults" / "command.py"), *before, str(data), "-o", str(output)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)


def is_one_sentence(result: subprocess.CompletedProcess[str], *parts: str) -> bool:
    """Whether a run ended as an expected failure that says these things."""
    assert result.returncode == 1, result
    assert result.stdout == ""
    *before, last = result.stderr.strip().splitlines()
    assert all(line.startswith(("Going on where", "Extracting ")) for line in before if line), result.stderr
    return last.startswith("Error: ") and all(part in last for part in parts)


def contents(path: Path) -> dict[str, tuple[Any, ...]]:
    with open_cache(path) as cache:
        batch = next(cache.batches(batch_rows=10_000))
        rows = zip(cache.refs(), cache.sha256, batch.features, batch.pooled, strict=True)
        return {ref.path: (ref, sha, features.tobytes(), pooled.tobytes()) for ref, sha, features, pooled in rows}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 340 images, a cache that knows twenty of them, and what an undisturbed run makes of it."""
    root = tmp_path_factory.mktemp("disk")
    class_folders(root / "data", n_per_class=N_OLD // 2)
    assert extract(root / "data", root / "old.h5").returncode == 0
    for number in range(N_NEW):
        picture(root / "data" / ("ant", "bee")[number % 2] / f"new{number}.bmp", seed=number, size=(20, 20))
    shutil.copy(root / "old.h5", root / "whole.h5")
    assert extract(root / "data", root / "whole.h5").returncode == 0
    return root


@pytest.fixture
def small(tmp_path: Path, root: Path) -> Iterator[Path]:
    """A disk in memory of three megabytes with the old cache on it."""
    disk = tmp_path / "small"
    disk.mkdir()
    if mount("-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)):
        pytest.skip("this process may not mount a disk in memory")
    try:
        shutil.copy(root / "old.h5", disk / "data.h5")
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def mount(*arguments: str) -> int:
    """The exit code of mount."""
    try:
        return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode
    except OSError:
        return 1


def fill(disk: Path, room_bytes: int) -> Path:
    """Leave no more than this room on a disk."""
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(max(0, free - room_bytes)))
    return ballast


@needs_root
@pytest.mark.parametrize("room_bytes", [0, 8_192, 100_000, 900_000])
def test_a_disk_that_is_full_while_shards_are_written(root: Path, small: Path, room_bytes: int) -> None:
    before = (small / "data.h5").read_bytes()
    ballast = fill(small, room_bytes)
    assert is_one_sentence(extract(root / "data", small / "data.h5"), ".h5 cannot be written: No space left on device.")
    assert (small / "data.h5").read_bytes() == before
    assert {path.suffix for path in small.rglob("*")} <= {".h5", ".lock", ".parts", ""}
    ballast.unlink()
    mount("-o", "remount,size=20m", str(small))
    assert extract(root / "data", small / "data.h5").returncode == 0
    assert contents(small / "data.h5") == contents(root / "whole.h5")
    assert {path.name for path in small.iterdir()} == {"data.h5", ".data.h5.lock"}


@needs_root
def test_a_disk_that_holds_the_shards_but_not_the_cache(root: Path, small: Path) -> None:
    before = (small / "data.h5").read_bytes()
    mount("-o", "remount,size=4m", str(small))
    for _ in range(2):  # the second run has nothing but the merge to do
        result = extract(root / "data", small / "data.h5")
        assert is_one_sentence(result, "/data.h5 cannot be written: No space left on device.")
        assert (small / "data.h5").read_bytes() == before
        assert {path.suffix for path in small.rglob("*")} == {".h5", ".lock", ".parts"}
    mount("-o", "remount,size=20m", str(small))
    result = extract(root / "data", small / "data.h5")
    assert "0 images computed" in result.stdout
    assert contents(small / "data.h5") == contents(root / "whole.h5")
    assert {path.name for path in small.iterdir()} == {"data.h5", ".data.h5.lock"}


@pytest.fixture
def public(root: Path) -> Iterator[Path]:
    """A folder that every user can reach, with the images of ``data`` in it and no cache."""
    with tempfile.TemporaryDirectory() as name:
        public = Path(name)
        public.chmod(0o755)
        shutil.copytree(root / "data", public / "data")
        (public / "features").mkdir()
        yield public


def extract_as_nobody(data: Path, output: Path) -> subprocess.CompletedProcess[str]:
    result = extract(data, output, "--as", str(NOBODY))
    if "Error: " not in result.stderr and result.stderr.rstrip().rpartition("\n")[2].startswith("ModuleNotFoundError"):
        pytest.skip(f"another user cannot run Python here: {result.stderr.splitlines()[-1]}")
    return result


@needs_root
def test_a_folder_that_may_not_be_written(root: Path, public: Path) -> None:
    shutil.copy(root / "old.h5", public / "features" / "data.h5")
    before = (public / "features" / "data.h5").read_bytes()
    result = extract_as_nobody(public / "data", public / "features" / "data.h5")
    assert is_one_sentence(result, "features/data.h5 cannot be written: Permission denied.")
    assert (public / "features" / "data.h5").read_bytes() == before
    assert is_one_sentence(extract_as_nobody(public / "data", public / "new" / "data.h5"), "Permission denied.")
    assert [path.name for path in (public / "features").iterdir()] == ["data.h5"]


@needs_root
def test_a_disk_that_is_mounted_for_reading_only(root: Path, small: Path) -> None:
    if mount("-o", "remount,ro", str(small)):
        pytest.skip("this process may not mount again what is mounted")
    result = extract(root / "data", small / "data.h5")
    assert is_one_sentence(result, "/data.h5 cannot be written: Read-only file system.")


@needs_root
def test_images_and_folders_that_may_not_be_read(public: Path) -> None:
    (public / "features").chmod(0o777)
    for path in ("ant/000.png", "bee/new1.bmp"):
        (public / "data" / path).chmod(0o000)
    result = extract_as_nobody(public / "data", public / "features" / "data.h5")
    assert result.returncode == 0, result
    with open_cache(public / "features" / "data.h5") as cache:
        assert [(f.ref.path, f.reason) for f in cache.failures] == [
            ("ant/000.png", "permission denied"),
            ("bee/new1.bmp", "permission denied"),
        ]
    (public / "data" / "bee").chmod(0o000)
    result = extract_as_nobody(public / "data", public / "features" / "data.h5")
    assert is_one_sentence(result, "1 folder that may not be read: bee/ (Permission denied)")
