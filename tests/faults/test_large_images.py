"""Photographs of 100 megapixels need the memory of one of them, however many there are and however many threads decode."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
WIDTH_PX, HEIGHT_PX, N_IMAGES = 12_000, 8_500, 2

#: Of one image: four bytes per pixel in Pillow, three in the array; and 300 MB for Python and all other things.
MAX_MB = 7 * WIDTH_PX * HEIGHT_PX // 1_000_000 + 300

pytestmark = [pytest.mark.faults, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def compressed_rows() -> bytes:
    """Compress the rows of a large image without ever holding it."""
    compressor, row = zlib.compressobj(1), b"\0" + bytes([50, 100, 200]) * WIDTH_PX
    return b"".join(compressor.compress(row) for _ in range(HEIGHT_PX)) + compressor.flush()


def write_png(path: Path, rows: bytes, title: str) -> None:
    """Write an image; another title makes it another file."""
    header = struct.pack(">IIBBBBB", WIDTH_PX, HEIGHT_PX, 8, 2, 0, 0, 0)
    chunks = [
        chunk(b"IHDR", header),
        chunk(b"tEXt", b"Title\0" + title.encode()),
        chunk(b"IDAT", rows),
        chunk(b"IEND", b""),
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def test_memory_is_that_of_one_image(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    rows = compressed_rows()
    for number in range(N_IMAGES):
        write_png(tmp_path / "data" / f"{number}.png", rows, title=str(number))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    command = [
        sys.executable,
        str(TESTS / "faults" / "large_images.py"),
        str(tmp_path / "data"),
        str(tmp_path / "a.h5"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=300)
    n_images, held_mb = map(int, result.stdout.split())
    assert n_images == N_IMAGES
    assert 500 < held_mb < MAX_MB
