"""A folder takes the place of another in one step; what killed processes leave is cleared away."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

from headstart.storage import publishing
from headstart.storage.publishing import LOCK, NEW, OLD, WORKSPACE_SUFFIX, exchange, replacing, restore


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "head [1]", "old")


@pytest.fixture(params=[True, False], ids=["exchange", "two renames"])
def exchanging(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if not request.param:
        monkeypatch.setattr(publishing, "exchange", lambda *_: False)
    elif sys.platform != "linux":
        pytest.skip("needs renameat2")
    return bool(request.param)


def folder_of(path: Path, text: str) -> Path:
    path.mkdir(parents=True)
    (path / "file").write_text(text)
    return path


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def replace(target: Path, text: str = "new") -> None:
    with replacing(target) as new:
        (new / "file").write_text(text)


def dead_workspace(target: Path, *, old: bool = False) -> Path:
    """What a killed process leaves."""
    work = target.with_name(f".{target.name}.abcd{WORKSPACE_SUFFIX}")
    folder_of(work / NEW, "unfinished")
    (work / LOCK).touch()
    if old:
        target.rename(work / OLD)
    return work


def test_a_new_folder_appears(tmp_path: Path) -> None:
    replace(tmp_path / "heads" / "one")
    assert (tmp_path / "heads" / "one" / "file").read_text() == "new"
    assert names(tmp_path / "heads") == ["one"]


@pytest.mark.usefixtures("exchanging")
def test_a_folder_is_replaced(target: Path) -> None:
    replace(target)
    assert (target / "file").read_text() == "new"
    assert names(target.parent) == [target.name]


@pytest.mark.usefixtures("exchanging")
def test_an_exception_leaves_what_was_there(target: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"), replacing(target) as new:
        (new / "absent").rename(new / "file")
    assert (target / "file").read_text() == "old"
    assert names(target.parent) == [target.name]


@pytest.mark.skipif(sys.platform != "linux", reason="needs renameat2")
def test_two_folders_are_exchanged_without_either_being_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "rename", lambda *_: pytest.fail("renamed one after the other"))
    one, other = folder_of(tmp_path / "one", "1"), folder_of(tmp_path / "other", "2")
    assert exchange(one, other)
    assert (one / "file").read_text() + (other / "file").read_text() == "21"
    with pytest.raises(FileNotFoundError):
        exchange(one, tmp_path / "absent")


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS])
def test_a_file_system_without_exchange_is_told_from_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(publishing.sys, "platform", "linux")
    monkeypatch.setattr(
        publishing,
        "ctypes",
        SimpleNamespace(CDLL=lambda *_, **__: SimpleNamespace(renameat2=lambda *_: -1), get_errno=lambda: code),
    )
    assert not exchange(tmp_path, tmp_path)
    code = errno.EACCES
    with pytest.raises(PermissionError):
        exchange(tmp_path, tmp_path)


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_a_system_without_renameat2_has_no_exchange(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    monkeypatch.setattr(publishing, "ctypes", SimpleNamespace())  # CDLL(None) is an error on Windows
    monkeypatch.setattr(publishing.sys, "platform", platform)
    assert not exchange(Path("a"), Path("b"))


def test_windows_cannot_open_folders(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object) -> int:
        raise PermissionError(errno.EACCES, "a folder", str(path))

    monkeypatch.setattr(publishing, "os", SimpleNamespace(name="nt", open=refuse, fsync=os.fsync, strerror=os.strerror))
    monkeypatch.setattr(publishing, "exchange", lambda *_: False)
    replace(target)
    assert (target / "file").read_text() == "new"


def test_a_process_that_is_killed_while_it_saves_leaves_nothing_for_long(target: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from headstart.storage.publishing import replacing\n"
        "with replacing(Path(sys.argv[1])) as new: (new / 'file').write_text('x'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, target], check=False, timeout=60).returncode == 9
    (left,) = set(names(target.parent)) - {target.name}
    assert left.endswith(WORKSPACE_SUFFIX)
    assert (target / "file").read_text() == "old"
    replace(target)
    assert names(target.parent) == [target.name]


def test_a_living_process_is_left_alone(target: Path) -> None:
    with replacing(target) as new:
        (new / "file").write_text("slow")
        replace(target, "quick")
        assert (new / "file").exists()
        assert (target / "file").read_text() == "quick"
    assert (target / "file").read_text() == "slow"
    assert names(target.parent) == [target.name]


def test_other_hidden_folders_are_left_alone(target: Path) -> None:
    mine = folder_of(target.with_name(f".{target.name}.mine{WORKSPACE_SUFFIX}"), "dear")
    other = folder_of(target.with_name(f".{target.name}.backup"), "dear")
    replace(target)
    assert mine.is_dir()
    assert other.is_dir()


@pytest.mark.parametrize("put_back_by", [restore, replace])
def test_a_folder_that_was_moved_away_by_a_process_that_was_killed_comes_back(target: Path, put_back_by) -> None:
    work = dead_workspace(target, old=True)
    assert not target.exists()
    put_back_by(target)
    assert (target / "file").read_text() == ("old" if put_back_by is restore else "new")
    assert not work.exists()


def test_one_that_a_living_process_has_moved_away_is_waited_for(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "EXCHANGE_SECONDS", 0.0)
    work = dead_workspace(target, old=True)
    with FileLock(work / LOCK):
        restore(target)
        assert not target.exists()
    restore(target)
    assert (target / "file").read_text() == "old"


def test_an_old_folder_is_never_lost(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "exchange", lambda *_: False)
    rename, calls = Path.rename, []

    def fails(path: Path, to: Path) -> Path:
        calls.append(path.name)
        if len(calls) > 1:
            raise OSError(errno.EIO, "the disk is gone")
        return rename(path, to)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fails)
        with pytest.raises(OSError, match="the disk is gone"):
            replace(target)
    assert not target.exists()
    restore(target)
    assert (target / "file").read_text() == "old"
