"""Caches whose HDF5 structures were changed and their checksums made right again; the same numbers give the same files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from caches import CLASS_NAMES, failure, make_row, write_cache
from headstart.cache.merge import MergedRow, merge

#: Structures that end in a checksum (HDF5 File Format 3.0): superblock, object headers and their continuations, indexes of
#: chunks (fixed and extensible arrays, B-trees of version 2), heaps.
SIGNATURES = (
    b"\x89HDF\r\n\x1a\n", b"OHDR", b"OCHK", b"FAHD", b"FADB", b"EAHD", b"EAIB", b"EASB", b"EADB", b"BTHD", b"BTIN", b"BTLF",
    b"FRHP", b"FHDB", b"FHIB", b"FSHD", b"FSSE", b"SMTB", b"SMLI",
)  # fmt: skip

#: No structure of a small cache is longer.
MAX_STRUCTURE_BYTES = 2048

#: Lengths, counts and addresses that readers get wrong.
INTERESTING = (
    0,
    1,
    2,
    3,
    7,
    8,
    127,
    128,
    255,
    256,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**64 - 1,
)

MASK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Original:
    """A sound cache: its bytes; start and end of its structures and of its chunks, the last four bytes of each a checksum."""

    data: bytes
    structures: tuple[tuple[int, int], ...]
    chunks: tuple[tuple[int, int], ...]


def originals(folder: Path) -> list[Original]:
    """Return small caches whose chunks are indexed in every way: one that grew, one that was merged, of each compression."""
    paths = [
        write_cache(folder / f"{one}.h5", range(8), failures=[failure()], compression=one)
        for one in ("zstd", "gzip", "none")
    ]
    rows = [MergedRow(0, number, make_row(number).ref) for number in range(8)]
    merge(folder / "merged.h5", sources=paths[:1], rows=rows, failures=(), class_names=CLASS_NAMES, layout="flat")
    return [original(path) for path in [*paths, folder / "merged.h5"]]


def original(path: Path) -> Original:
    """Return a sound cache with the places of its structures and chunks."""
    data = path.read_bytes()
    starts = sorted({at for signature in SIGNATURES for at in found_at(data, signature)})
    structures = [(start, end) for start in starts if (end := end_of(data, start))]
    chunks: list[tuple[int, int]] = []

    def look(_name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            item.id.chunk_iter(lambda place: chunks.append((place.byte_offset, place.byte_offset + place.size)))

    with h5py.File(path, "r") as file:
        file.visititems(look)
    return Original(data, tuple(structures), tuple(chunks))


def found_at(data: bytes, signature: bytes) -> list[int]:
    """Return where a signature stands."""
    places, start = [], data.find(signature)
    while start >= 0:
        places.append(start)
        start = data.find(signature, start + 1)
    return places


def end_of(data: bytes, start: int) -> int:
    """Return where a structure ends: behind the first four bytes that are the checksum of those before; 0 if nowhere."""
    for at in range(start + 8, min(start + MAX_STRUCTURE_BYTES, len(data) - 3)):
        if int.from_bytes(data[at : at + 4], "little") == lookup3(data[start:at]):
            return at + 4
    return 0


def harmful(sources: Sequence[Original], seed: int, number: int) -> bytes:
    """Return a cache, one to three of whose structures or chunks are changed, with right checksums."""
    rng = np.random.default_rng((seed, number))
    source = sources[int(rng.integers(len(sources)))]
    data = bytearray(source.data)
    addresses = [start for start, _ in (*source.structures, *source.chunks)]
    for _ in range(int(rng.integers(1, 4))):
        is_chunk = rng.random() < 0.1
        places = source.chunks if is_chunk else source.structures
        start, end = places[int(rng.integers(len(places)))]
        body = data[start : end - 4]
        for _ in range(int(rng.integers(1, 4))):
            CHANGES[int(rng.integers(len(CHANGES)))](rng, body, addresses)
        data[start : end - 4] = body
        checksum = fletcher32(bytes(body)) if is_chunk else lookup3(bytes(body))
        data[end - 4 : end] = checksum.to_bytes(4, "little")
    return bytes(data)


def place(rng: np.random.Generator, body: bytearray) -> int:
    """Return a position behind the signature."""
    return int(rng.integers(min(4, len(body) - 1), len(body)))


def flip(rng: np.random.Generator, body: bytearray, _addresses: Sequence[int]) -> None:
    """Change a byte."""
    body[place(rng, body)] ^= int(rng.integers(1, 256))


def write_number(rng: np.random.Generator, body: bytearray, _addresses: Sequence[int]) -> None:
    """Write a number where there may be a length or a count, or add to the one that is there."""
    at, width = place(rng, body), int(rng.choice([1, 2, 4, 8]))
    old = int.from_bytes(body[at : at + width], "little")
    value = old + int(rng.integers(-3, 4)) if rng.random() < 0.3 else INTERESTING[int(rng.integers(len(INTERESTING)))]
    put(body, at, (value % 256**width).to_bytes(width, "little"))


def write_address(rng: np.random.Generator, body: bytearray, addresses: Sequence[int]) -> None:
    """Write the address of a structure where there may be that of another: circles, and one thing taken for another."""
    put(body, place(rng, body), addresses[int(rng.integers(len(addresses)))].to_bytes(8, "little"))


def replace_address(rng: np.random.Generator, body: bytearray, addresses: Sequence[int]) -> None:
    """Write the address of a structure in place of an address that is there."""
    known = {address.to_bytes(8, "little") for address in addresses if address}
    at = [start for start in range(4, len(body) - 7) if bytes(body[start : start + 8]) in known]
    if at:
        put(body, at[int(rng.integers(len(at)))], addresses[int(rng.integers(len(addresses)))].to_bytes(8, "little"))


def fill(rng: np.random.Generator, body: bytearray, _addresses: Sequence[int]) -> None:
    """Overwrite a stretch with zeros or ones."""
    put(body, place(rng, body), bytes([int(rng.choice([0, 255]))]) * int(rng.integers(1, 17)))


def copy(rng: np.random.Generator, body: bytearray, _addresses: Sequence[int]) -> None:
    """Write a stretch again elsewhere."""
    start = place(rng, body)
    put(body, place(rng, body), bytes(body[start : start + int(rng.integers(1, 33))]))


def put(body: bytearray, at: int, part: bytes) -> None:
    """Overwrite, without making longer."""
    part = part[: len(body) - at]
    body[at : at + len(part)] = part


CHANGES: Sequence[Callable[[np.random.Generator, bytearray, Sequence[int]], None]] = (
    flip, flip, write_number, write_number, write_address, replace_address, fill, copy,
)  # fmt: skip


def lookup3(data: bytes) -> int:
    """Return the checksum of HDF5's structures: hashlittle of Bob Jenkins' lookup3.c, from 0 (public domain)."""
    a = b = c = 0xDEADBEEF + len(data) & MASK
    whole = max(0, (len(data) - 1) // 12) * 12
    for start in range(0, whole, 12):
        x, y, z = (int.from_bytes(data[start + k : start + k + 4], "little") for k in (0, 4, 8))
        a, b, c = mix(a + x & MASK, b + y & MASK, c + z & MASK)
    if not data:
        return c
    tail = data[whole:].ljust(12, b"\0")
    x, y, z = (int.from_bytes(tail[k : k + 4], "little") for k in (0, 4, 8))
    return final(a + x & MASK, b + y & MASK, c + z & MASK)


def rotate(value: int, bits: int) -> int:
    """Return 32 bits, turned to the left."""
    return (value << bits | value >> 32 - bits) & MASK


def mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    """Return three numbers, mixed reversibly."""
    for bits in (4, 6, 8, 16, 19, 4):
        a, b, c = b, c + b & MASK, (a - c & MASK) ^ rotate(c, bits)
    return a, b, c


def final(a: int, b: int, c: int) -> int:
    """Return three numbers as one."""
    c = (c ^ b) - rotate(b, 14) & MASK
    a = (a ^ c) - rotate(c, 11) & MASK
    b = (b ^ a) - rotate(a, 25) & MASK
    c = (c ^ b) - rotate(b, 16) & MASK
    a = (a ^ c) - rotate(c, 4) & MASK
    b = (b ^ a) - rotate(a, 14) & MASK
    return (c ^ b) - rotate(b, 24) & MASK


def fletcher32(data: bytes) -> int:
    """Return the checksum of HDF5's chunks: Fletcher's of 16-bit words, the first byte the higher one."""
    words = np.frombuffer(data.ljust(len(data) + len(data) % 2, b"\0"), ">u2").astype(object)
    first = int(words.sum())
    second = int((words * np.arange(len(words), 0, -1).astype(object)).sum())
    return (reduced(second) << 16) | reduced(first)


def reduced(total: int) -> int:
    """Return a sum in 16 bits, as adding the carry gives it: 65,535 stands for 0, unless nothing was added."""
    return total % 65535 or (65535 if total else 0)
