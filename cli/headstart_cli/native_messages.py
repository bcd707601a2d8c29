"""Keep the chatter of native libraries (TensorFlow, libtiff) off the screen.

They write to file descriptor 2, past Python. It is led through a pipe, from which only lines that tell of the end of the
process go on to the screen; Python's own standard error keeps a descriptor of its own.
"""

from __future__ import annotations

import io
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: Set this in the environment to see everything.
SHOW_ALL = "HEADSTART_NATIVE_MESSAGES"

#: Lines that explain why a process died: absl's and glibc's.
FATAL = re.compile(
    rb"^F\d{4} |check failed|fatal|abort|terminate called|free\(\)|malloc|segmentation|out of memory", re.I
)


@contextmanager
def quiet_native_messages() -> Iterator[None]:
    """Hide what native code writes to standard error while the block runs; do nothing where that is not possible."""
    try:
        standard_error = sys.stderr.fileno()
    except (AttributeError, OSError, io.UnsupportedOperation):
        yield
        return
    if os.environ.get(SHOW_ALL) or standard_error != 2:
        yield
        return
    screen = os.dup(2)
    python_stderr, sys.stderr = sys.stderr, os.fdopen(os.dup(screen), "w", buffering=1, errors="backslashreplace")
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)
    forwarder = threading.Thread(target=forward_fatal, args=(reading, screen), daemon=True)
    forwarder.start()
    try:
        yield
    finally:
        sys.stderr.flush()
        python_stderr, sys.stderr = sys.stderr, python_stderr
        os.dup2(screen, 2)
        forwarder.join(timeout=1)
        python_stderr.close()


def forward_fatal(reading: int, screen: int) -> None:
    """Copy the lines that matter from the pipe to the screen, until the pipe ends."""
    with os.fdopen(reading, "rb") as lines:
        for line in lines:
            if FATAL.search(line):
                os.write(screen, line)
