"""A terminal that is closed ends a run as Ctrl-C does; ``nohup`` lets it go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fakes import FakeNetwork
from headstart.cache.reader import open_cache
from headstart.extract.run import extract_features
from pictures import picture

TESTS = Path(__file__).resolve().parents[1]
N_IMAGES = 200

pytestmark = [pytest.mark.faults, pytest.mark.skipif(sys.platform == "win32", reason="terminals")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hangup") / "data"
    for number in range(N_IMAGES):
        picture(root / ("ant", "bee")[number % 2] / f"{number}.bmp", seed=number, size=(20, 20))
    return root


def run_in_a_terminal(data: Path, output: Path, *before: str, number: signal.Signals | None) -> int:
    """Close the terminal of a run after its first batch, or send a signal instead, and return its exit code."""
    terminal, inside = os.openpty()
    said, say = os.pipe()
    go, let_go = os.pipe()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *(path for path in sys.path if path)])}
    files = (inside, say, go)
    command = [
        *before,
        sys.executable,
        str(TESTS / "faults" / "terminal.py"),
        *map(str, files),
        str(data),
        "-o",
        str(output),
    ]
    handler = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests that run under nohup begin with SIGHUP ignored
    try:
        process = subprocess.Popen(
            command, stdin=inside, stdout=inside, stderr=inside, env=environment, cwd=output.parent,
            start_new_session=True, pass_fds=files,
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGHUP, handler)
    for descriptor in files:
        os.close(descriptor)
    assert os.read(said, 1) == b"."
    if number is None:
        os.close(terminal)
    else:
        process.send_signal(number)
    os.close(let_go)
    code = process.wait(120)
    os.close(said)
    if number is not None:
        os.close(terminal)
    return code


@pytest.mark.parametrize(
    ("number", "code"), [(None, 129), (signal.SIGHUP, 129), (signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_what_was_computed_is_kept(data: Path, tmp_path: Path, number: signal.Signals | None, code: int) -> None:
    output = tmp_path / "data.h5"
    assert run_in_a_terminal(data, output, number=number) == code
    assert not output.exists()
    rest = extract_features(data, output, network=FakeNetwork())  # type: ignore[arg-type]
    assert 0 < rest.n_computed < N_IMAGES
    assert (rest.reused["unchanged"], rest.n_images) == (N_IMAGES - rest.n_computed, N_IMAGES)


def test_nohup_goes_on(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "data.h5"
    assert run_in_a_terminal(data, output, "nohup", number=None) == 0
    with open_cache(output) as cache:
        assert cache.n_images == N_IMAGES
