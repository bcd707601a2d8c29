"""A file that was not written or checked here is read by another process first."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import h5py
import numpy as np
import pytest

from caches import everything, write_cache
from headstart.cache import sandbox
from headstart.cache.integrity import verify_file
from headstart.cache.reader import open_cache
from headstart.cache.safe_reads import StoredRows
from headstart.cache.sandbox_worker import probe_rows
from headstart.errors import CacheError
from headstart.storage import limited_process

#: A process that takes a question and then does what is put in.
PROCESS = "import os, signal, sys; print('ready', flush=True); sys.stdin.readline(); ACTION"

needs_signals = pytest.mark.skipif(os.name == "nt", reason="signals")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The paths that the process is asked for, which is one of this test's own."""
    paths: list[str] = []
    made = sandbox.Sandbox()
    ask = made.ask

    def noted(question: dict[str, object], wait_seconds: float) -> int | None:
        paths.append(Path(str(question["path"])).name)
        return ask(question, wait_seconds)

    monkeypatch.setattr(made, "ask", noted)
    monkeypatch.setattr(sandbox, "SANDBOX", made)
    yield paths
    made.stop()


def copied(tmp_path: Path, name: str = "copy.h5") -> Path:
    """Return a cache that this machine has not seen."""
    return Path(shutil.copyfile(write_cache(tmp_path / "original.h5"), tmp_path / name))


def test_a_file_is_asked_for_once_unless_it_was_written_here(tmp_path: Path, asked: list[str]) -> None:
    with open_cache(write_cache(tmp_path / "written.h5")):
        assert asked == []
    copy = copied(tmp_path)
    assert everything(copy)["class_names"] == ("ants", "bees")
    assert list(verify_file(copy)) == []
    assert asked == ["copy.h5"]
    copy.write_bytes(copy.read_bytes())
    everything(copy)
    assert asked == ["copy.h5"] * 2


def test_the_record_outlives_the_process(tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    copy = copied(tmp_path)
    everything(copy)
    monkeypatch.setattr(sandbox, "_known", set())
    monkeypatch.setattr(sandbox, "_read", [(0, 0)])
    everything(copy)
    assert asked == ["copy.h5"]


def test_without_a_home_folder_files_are_read_as_well(
    tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HEADSTART_CACHE_DIR", str(tmp_path / "file" / "no folder"))
    everything(copied(tmp_path))
    assert asked == ["copy.h5"]


def test_the_record_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(sandbox, "MAX_RECORD_BYTES", 100)
    for number in range(20):
        sandbox.remember(f"{number:032x}")
    lines = (tmp_path / sandbox.RECORD).read_text().split()
    assert len(lines) <= 4
    assert lines[-1] == f"{19:032x}"
    assert [path.name for path in tmp_path.iterdir()] == [sandbox.RECORD]


@needs_signals
@pytest.mark.parametrize(
    ("action", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGXCPU)", "did not come to an end in 3 s"),
        ("sys.exit(4)", "failed with exit code 4"),
        ("print(-11)", "was ended by SIGSEGV"),
    ],
)
def test_a_file_over_which_a_process_ends_is_refused(
    tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch, action: str, words: str
) -> None:
    monkeypatch.setattr(limited_process, "START", PROCESS.replace("ACTION", action))
    copy = copied(tmp_path)
    with pytest.raises(CacheError, match=f"damaged or no feature cache.*{words}.*overwrite=True"):
        open_cache(copy)
    assert words in str(*verify_file(copy))
    assert asked == ["copy.h5"]
    monkeypatch.undo()
    assert not sandbox.is_known(sandbox.identity(copy))


@needs_signals
def test_a_process_that_does_not_answer_is_ended(
    tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limited_process, "START", PROCESS.replace("ACTION", "signal.pause()"))
    monkeypatch.setattr(sandbox, "WAIT_FACTOR", 0)
    with pytest.raises(CacheError, match="did not come to an end"):
        open_cache(copied(tmp_path))


def test_a_process_that_had_nothing_to_do_is_started_again(
    tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limited_process, "START", PROCESS.replace("ACTION", "print(0)"))  # it answers once, and ends
    everything(copied(tmp_path))
    everything(copied(tmp_path, "second.h5"))
    assert asked == ["copy.h5", "second.h5"]


def test_where_no_process_can_be_started_it_is_said_and_files_are_read(
    tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "")
    with caplog.at_level(logging.WARNING):
        everything(copied(tmp_path))
        everything(copied(tmp_path, "second.h5"))
    assert len(caplog.records) == 1


def test_damage_that_harms_nobody_is_described_by_who_reads_it(tmp_path: Path, asked: list[str]) -> None:
    copy = copied(tmp_path)
    with h5py.File(copy, "r+", libver=("v110", "v110")) as file:
        file.attrs["n_images"] = np.int64(8)
    with pytest.raises(CacheError, match="where 8 images were announced"):
        open_cache(copy)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
def test_a_forked_process_asks_one_of_its_own(tmp_path: Path) -> None:
    """Neither takes the other's answers, and none waits for a lock that a thread of the other holds."""
    copies = [str(copied(tmp_path, f"{number}.h5")) for number in range(4)]
    program = f"""
import os, sys
from headstart.cache.reader import open_cache
from headstart.cache import sandbox
open_cache({copies[0]!r}).close()
sandbox.SANDBOX._lock.acquire()
if not (child := os.fork()):
    open_cache({copies[1]!r}).close()
    sys.exit(7)
sandbox.SANDBOX._lock.release()
open_cache({copies[2]!r}).close()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
open_cache({copies[3]!r}).close()
"""
    subprocess.run([sys.executable, "-W", "error::ResourceWarning", "-c", program], check=True, timeout=120)


def test_rows_behind_a_chunk_outside_of_the_file_are_read_as_well(tmp_path: Path) -> None:
    """Who verifies a file reads them too: what happens there must happen in the process that reads it first."""
    path = write_cache(tmp_path / "a.h5", compression="none")
    with h5py.File(path) as file:
        rows = StoredRows(file["features"])
        n_chunks = -(-len(rows) // rows.chunk_rows)
        found = [str(error) for error in probe_rows(rows, 1)]
        assert found == [f"the chunk at row {rows.chunk_rows * i} lies outside of the file" for i in range(n_chunks)]
        rows.read = Mock(side_effect=OSError("cannot be read"))
        found = [str(error) for error in probe_rows(rows, 1)]
    assert found[n_chunks:] == ["cannot be read"] * len(rows)
