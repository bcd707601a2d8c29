"""Commands that a shell finds by name and that begin at once: forks of a process that has imported what takes seconds."""

from __future__ import annotations

import gc
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

#: Those of other projects alone: a command imports all that is headstart's, as it does in a process of its own.
MODULES = ("keras", "scipy.stats", "skops.io", "sklearn.linear_model")

#: Where pip has written the commands.
INSTALLED = Path(sys.executable).parent

#: Stands for a command: sends its folder, its words and its streams, and ends as the fork ends.
CALLER = """#!{python} -SE
import os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, ["\\0".join([os.getcwd(), {installed!r}, *sys.argv[1:]]).encode()], [0, 1, 2])
    sys.exit(int(server.recv(8)))
"""


@contextmanager
def preloaded(*names: str) -> Iterator[Path]:
    """Make installed commands begin sooner within the block; the folder is to be the first one of ``PATH``.

    The commands themselves where processes cannot safely be forked once TensorFlow is imported.
    """
    if sys.platform != "linux":
        yield INSTALLED
        return
    with tempfile.TemporaryDirectory() as folder:
        address = f"{folder}/socket"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen()
            environment = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}
            server = subprocess.Popen([sys.executable, __file__], stdin=listener, env=environment)
        for name in names:
            command = Path(folder, name)
            command.write_text(CALLER.format(python=sys.executable, address=address, installed=str(INSTALLED / name)))
            command.chmod(0o755)
        try:
            yield Path(folder)
        finally:
            server.kill()
            server.wait()


def serve() -> None:
    """Run the commands that callers send, one at a time."""
    for module in MODULES:
        import_module(module)
    gc.freeze()  # a collection would touch, and so copy, all that forks share
    listener = socket.socket(fileno=os.dup(0))
    while True:
        caller = listener.accept()[0]
        sent, streams, *_ = socket.recv_fds(caller, 2**16, 3)
        child = os.fork()
        if not child:
            run(streams, *sent.decode().split("\0"))
        for stream in streams:
            os.close(stream)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        caller.sendall(str(code).encode())
        caller.close()


def run(streams: list[int], folder: str, *words: str) -> None:
    """Run a command and end this process, without the second that Python takes to forget TensorFlow."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115  # for good
    sys.stderr = open(2, "w", 1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(folder)
    sys.argv = list(words)
    code = 0
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    serve()
