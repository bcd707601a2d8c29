"""Imports what a run of ``extraction.py`` imports, also when it is needed: by a first run, and one that goes on with it."""

import tempfile
from pathlib import Path

import faults.extraction  # noqa: F401
from fakes import FakeNetwork
from headstart.extract.run import extract_features
from pictures import picture

with tempfile.TemporaryDirectory() as folder:
    for number in range(2):
        picture(Path(folder) / "data" / f"{number}.bmp", number)
        extract_features(f"{folder}/data", f"{folder}/data.h5", network=FakeNetwork())
