"""Run ``extract-features`` with the fake backbone, as the user would, in a process of its own.

    python command.py [--as UID] DATA -o OUTPUT

With ``--as`` the process becomes that user, once a first run and one that brings its cache up to date have imported all that
there is to import: Python itself may lie where only its owner reads it.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import partial
from pathlib import Path

from fakes import FakeNetwork
from headstart.extract import run as local
from headstart_cli.app import make_app, run
from pictures import picture

SHARD_IMAGES = 40


def become(uid: int) -> None:
    """Import everything, and become another user."""
    silence = io.StringIO()
    with (
        tempfile.TemporaryDirectory() as folder,
        redirect_stdout(silence),
        redirect_stderr(silence),
    ):
        for number in range(2):
            picture(Path(folder) / "data" / f"{number}.bmp", number)
            with suppress(SystemExit):
                make_app("extract-features")([f"{folder}/data", "-o", f"{folder}/data.h5"])
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)


if __name__ == "__main__":
    local.extract_features = partial(local.extract_features, network=FakeNetwork(), shard_images=SHARD_IMAGES)
    if sys.argv[1] == "--as":
        become(int(sys.argv[2]))
        del sys.argv[1:3]
    run(make_app("extract-features"))
