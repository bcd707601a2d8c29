"""What every command draws while it works."""

from __future__ import annotations

import io
import re
import subprocess
import sys

import pytest
from rich.console import Console

from headstart_cli import console


def test_each_that_computes_has_a_bar_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    monkeypatch.setattr(console, "err", terminal)
    with console.ProgressBar("Extracting") as bar:
        bar.start(40)
        bar.advance(3)
        bar.advance(8, "node [a]")
        bar.advance(4, "node b")
        bar.advance(5, "node [a]")
    assert isinstance(terminal.file, io.StringIO)
    last = terminal.file.getvalue().split("Extracting")[-1].splitlines()
    assert "20/40" in last[0]
    assert "13/40" in next(line for line in last if line.lstrip().startswith("node [a]"))
    parts = [line for line in last if line.lstrip().startswith("node")]
    assert ["4/40" in line for line in parts] == [False, True]
    assert [bool(re.search(r"[-\d]:[-\d]{2}:", line)) for line in (last[0], *parts)] == [True, False, False]


NATIVE = """
import os
from headstart_cli.console import quiet_native_messages
with quiet_native_messages():
    os.write(2, {lines!r})
    print("python", file=__import__("sys").stderr)
"""


def test_only_harmless_native_messages_are_hidden() -> None:
    harmless = [
        b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n",
        b"I0000 00:00:1795980833.541470   14951 cudart_stub.cc:31] Could not find cuda drivers on your machine.\n",
        b"W0000 00:00:1795980833.541470   14951 cpu_feature_guard.cc:1] rebuild TensorFlow\n",
        b"E0000 00:00:1795980855.452885   14951 cuda_platform.cc:52] failed call to cuInit: UNKNOWN ERROR (303)\n",
        b"TIFFReadDirectory: Warning, Unknown field with tag 51023 encountered.\n",
    ]
    errors = [
        b"E0000 00:00:1795980855.452885   14951 cuda_dnn.cc:466] Loaded runtime CuDNN library: 9.1 but needed 9.3\n",
        b"F0000 00:00:1795980855.452885   14951 thread.cc:1] Check failed: ret == 0\n",
        b"find_layer convolution_x86 failed\n",
        b"Illegal instruction\n",
        b"libgomp: Thread creation failed: Resource temporarily unavailable\n",
    ]
    command = [sys.executable, "-c", NATIVE.format(lines=b"".join([*harmless, *errors]))]
    printed = subprocess.run(command, capture_output=True, check=True).stderr.splitlines(keepends=True)
    assert sorted(printed) == sorted([*errors, b"python\n"])
