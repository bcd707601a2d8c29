from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from headstart.errors import ImageError
from headstart.images.discovery.scan import discover
from headstart.images.load import LoadedImage, load_image, open_error, read_image_bytes
from headstart.types import ImageRef
from pictures import picture


@pytest.fixture
def ref(tmp_path: Path) -> ImageRef:
    picture(tmp_path / "1.png", 1)
    return discover(tmp_path).refs[0]


def load(root: Path, ref: ImageRef) -> LoadedImage:
    return load_image(root, ref, size_px=32, resize_preset="keras-bilinear")


def test_the_row_says_what_was_decoded(tmp_path: Path, ref: ImageRef) -> None:
    loaded = load(tmp_path, ref)
    assert loaded.pixels.shape == (32, 32, 3)
    assert loaded.row.sha256 == hashlib.sha256((tmp_path / "1.png").read_bytes()).hexdigest()
    assert (loaded.row.width_px, loaded.row.height_px, loaded.row.ref) == (40, 30, ref)


def test_a_file_that_is_gone(tmp_path: Path, ref: ImageRef) -> None:
    (tmp_path / "1.png").unlink()
    with pytest.raises(ImageError, match="gone"):
        load(tmp_path, ref)


def test_a_file_that_changed_since_the_scan(tmp_path: Path, ref: ImageRef) -> None:
    with pytest.raises(ImageError, match="changed since"):
        load(tmp_path, replace(ref, size_bytes=ref.size_bytes + 1))


def test_a_file_that_was_touched_since_the_scan(tmp_path: Path, ref: ImageRef) -> None:
    os.utime(tmp_path / "1.png", (5, 5))
    assert load(tmp_path, ref).row.sha256 == hashlib.sha256((tmp_path / "1.png").read_bytes()).hexdigest()


def changing_stat(monkeypatch: pytest.MonkeyPatch, change: Callable[[int], object]) -> None:
    """Let ``change(n)`` happen after the n-th look at an open file."""
    stat, looks = os.fstat, count(1)

    def look(descriptor: int) -> os.stat_result:
        found = stat(descriptor)
        change(next(looks))
        return found

    monkeypatch.setattr("headstart.images.load.os.fstat", look)


def test_a_file_that_is_touched_at_every_look(tmp_path: Path, ref: ImageRef, monkeypatch: pytest.MonkeyPatch) -> None:
    changing_stat(monkeypatch, lambda n: os.utime(tmp_path / "1.png", (n, n)))
    assert load(tmp_path, ref).row.sha256 == hashlib.sha256((tmp_path / "1.png").read_bytes()).hexdigest()


def test_a_file_that_is_written_once_while_it_is_read(
    tmp_path: Path, ref: ImageRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = picture(tmp_path / "2.png", seed=2).read_bytes().ljust(ref.size_bytes, b" ")[: ref.size_bytes]

    def write_after_the_first_look(n: int) -> None:
        if n == 1:
            (tmp_path / "1.png").write_bytes(other)
            os.utime(tmp_path / "1.png", ns=(1, 1))

    changing_stat(monkeypatch, write_after_the_first_look)
    assert read_image_bytes(tmp_path, ref) == other


def test_a_file_that_is_other_bytes_at_every_look(
    tmp_path: Path, ref: ImageRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(n: int) -> None:
        (tmp_path / "1.png").write_bytes(bytes([n]) * ref.size_bytes)
        os.utime(tmp_path / "1.png", (n, n))

    changing_stat(monkeypatch, write)
    with pytest.raises(ImageError, match="changed while it was read"):
        load(tmp_path, ref)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes")
def test_a_pipe_that_took_its_place_does_not_hang(tmp_path: Path, ref: ImageRef) -> None:
    (tmp_path / "1.png").unlink()
    os.mkfifo(tmp_path / "1.png")
    with pytest.raises(ImageError, match="not a regular file"):
        load(tmp_path, ref)


def test_a_file_that_grows_while_it_is_read(tmp_path: Path, ref: ImageRef, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = os.fstat

    def grow_after(descriptor: int) -> os.stat_result:
        before = stat(descriptor)
        with (tmp_path / "1.png").open("ab") as file:
            file.write(b"more")
        return before

    monkeypatch.setattr("headstart.images.load.os.fstat", grow_after)
    with pytest.raises(ImageError, match="changed while it was read"):
        load(tmp_path, ref)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="a file that holds more than its size says")
def test_a_file_whose_size_is_not_true() -> None:
    info = Path("/proc/self/status").stat()
    ref = ImageRef("status", None, None, None, info.st_size, info.st_mtime_ns)
    with pytest.raises(ImageError, match="changed while it was read"):
        load(Path("/proc/self"), ref)


def test_a_link_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "1.png").symlink_to("absent")
    with pytest.raises(ImageError, match="a broken link"):
        load(tmp_path, discover(tmp_path).refs[0])


def test_a_folder_that_took_its_place(tmp_path: Path, ref: ImageRef) -> None:
    (tmp_path / "1.png").unlink()
    (tmp_path / "1.png").mkdir()
    with pytest.raises(ImageError, match="not a regular file but a folder"):
        load(tmp_path, ref)


def test_a_file_of_too_many_bytes(tmp_path: Path, ref: ImageRef, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.images.load.MAX_FILE_BYTES", 10)
    with pytest.raises(ImageError, match="at most 10 are read"):
        load(tmp_path, ref)


def test_errors_of_opening_in_words(tmp_path: Path) -> None:
    assert open_error(PermissionError(13, "Permission denied"), tmp_path) == "permission denied"
    assert open_error(OSError(5, "Input/output error"), tmp_path) == "cannot be opened: Input/output error"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path, ref: ImageRef) -> None:
    (tmp_path / "1.png").chmod(0)
    with pytest.raises(ImageError, match="permission denied"):
        load(tmp_path, ref)
