"""Damaged image files, made from sound ones; the same numbers give the same files."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

#: Lengths, sizes and counts that readers get wrong.
INTERESTING = (0, 1, 2, 7, 8, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF)

#: Where most formats keep their sizes.
HEAD_BYTES = 256

#: No piece that is copied is longer, so that the files stay small.
MAX_PIECE_BYTES = 65536

#: Share of files that are changed once more, and of these again, and so on.
AGAIN = 0.4

PNG_START = b"\x89PNG\r\n\x1a\n"


def mutated(corpus: Mapping[str, bytes], seed: int, number: int) -> tuple[str, bytes]:
    """Return the name of a file of the corpus and what became of its bytes.

    Parameters
    ----------
    corpus : mapping of str to bytes
        Name → content.
    seed, number : int
        Decide about everything.
    """
    rng = np.random.default_rng((seed, number))
    names = sorted(corpus)
    name = names[int(rng.integers(len(names)))]
    data = corpus[name]
    for _ in range(int(rng.geometric(1 - AGAIN))):
        mutation = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
        data = mutation(rng, data, corpus[names[int(rng.integers(len(names)))]])
    if data.startswith(PNG_START) and rng.random() < 0.7:
        data = with_checksums(data)
    return name, data


def place(rng: np.random.Generator, data: bytes) -> int:
    """Return a position, every other time in the head of the file."""
    return int(rng.integers(max(1, min(len(data), HEAD_BYTES) if rng.random() < 0.5 else len(data))))


def piece(rng: np.random.Generator, data: bytes) -> slice:
    """Return a stretch of the file, short ones more often than long ones."""
    start = place(rng, data)
    return slice(start, start + int(2 ** rng.uniform(0, np.log2(MAX_PIECE_BYTES))))


def flip(rng: np.random.Generator, data: bytes, _other: bytes) -> bytes:
    """Change some bytes."""
    changed = bytearray(data)
    for _ in range(int(2 ** rng.uniform(0, 5)) if data else 0):
        changed[place(rng, data)] ^= int(rng.integers(1, 256))
    return bytes(changed)


def truncate(rng: np.random.Generator, data: bytes, _other: bytes) -> bytes:
    """Cut off the end."""
    return data[: place(rng, data)]


def splice(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """Go on with another file."""
    return data[: place(rng, data)] + other[place(rng, other) :]


def edit_length(rng: np.random.Generator, data: bytes, _other: bytes) -> bytes:
    """Write a number where there may be a length: an odd one, or one that is nearly right."""
    start, kind = place(rng, data), "BHI"[int(rng.integers(3))]
    order = "<>"[int(rng.integers(2))]
    width = struct.calcsize(kind)
    if rng.random() < 0.3 and start + width <= len(data):
        value = struct.unpack_from(order + kind, data, start)[0] + int(rng.integers(-2, 3))
    else:
        value = (*INTERESTING, len(data) - 1, len(data), len(data) + 1)[int(rng.integers(len(INTERESTING) + 3))]
    return data[:start] + struct.pack(order + kind, value % 256**width) + data[start + width :]


def duplicate(rng: np.random.Generator, data: bytes, _other: bytes) -> bytes:
    """Write a stretch again, behind itself or elsewhere, up to 16 times."""
    part = piece(rng, data)
    at = part.stop if rng.random() < 0.5 else place(rng, data)
    return data[:at] + data[part] * (int(rng.integers(1, 16)) if part.stop - part.start < 1024 else 1) + data[at:]


def remove(rng: np.random.Generator, data: bytes, _other: bytes) -> bytes:
    """Leave a stretch out."""
    part = piece(rng, data)
    return data[: part.start] + data[part.stop :]


def fill(rng: np.random.Generator, data: bytes, _other: bytes) -> bytes:
    """Overwrite a stretch with zeros or ones."""
    part = piece(rng, data)
    return (
        data[: part.start]
        + bytes([0, 255][int(rng.integers(2))] for _ in data[part][:1]) * len(data[part])
        + (data[part.stop :])
    )


MUTATIONS: Sequence[Callable[[np.random.Generator, bytes, bytes], bytes]] = (
    flip, flip, truncate, splice, edit_length, edit_length, duplicate, remove, fill,
)  # fmt: skip


def with_checksums(data: bytes) -> bytes:
    """Return a PNG whose chunks have the checksums of what they hold now; else the reader would look no further."""
    parts, start = [data[:8]], 8
    while start + 12 <= len(data):
        end = start + 8 + int.from_bytes(data[start : start + 4], "big")
        if end + 4 > len(data):
            break
        parts += [data[start:end], zlib.crc32(data[start + 4 : end]).to_bytes(4, "big")]
        start = end + 4
    return b"".join(parts) + data[start:]
