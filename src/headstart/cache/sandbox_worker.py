"""The sandbox process that reads untrusted files first.

The HDF5 library trusts data with a valid checksum, so a malicious file can crash or hang the process that reads it.
:mod:`headstart.cache.sandbox` starts this process and asks it about each file. Where fork is available, each file gets
its own child process.
"""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from headstart.cache.format import FEATURES, FORMAT, POOLED, SHARDS_FORMAT, form_of, read_header
from headstart.cache.integrity import columns_of, read_described
from headstart.cache.safe_reads import H5PY_ERRORS, StoredRows, read_rows
from headstart.cache.shards import ShardFolder, read_manifest
from headstart.storage.limited_process import limit_process

#: Exit codes: intact; damaged, which the reader reports; harmful (closing or memory allocation failed).
SOUND, DAMAGED, HARMFUL = 0, 3, 4

#: Idle timeout in seconds.
IDLE_SECONDS = 10.0

#: Features up to this size are read completely, larger ones at evenly spaced rows.
WHOLE_BYTES, SAMPLE_ROWS = 2**24, 16

#: Maximum number of objects read in a file of another layout.
MAX_OBJECTS = 1000

Reader = Callable[[Any, Path], Sequence[BaseException]]


def serve() -> None:
    """Read one JSON question per line from standard input, and answer with exit codes on standard output."""
    _say("ready")
    while _is_asked() and (line := sys.stdin.readline()):
        question = json.loads(line)
        if hasattr(os, "fork"):
            process = os.fork()
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) if process else _answer(question)
            if not process and code != SOUND:
                sys.exit(code)  # a regular exit closes HDF5, which can fail too
            if not process:
                os._exit(code)
        elif (code := _answer(question)) != SOUND:
            sys.exit(code)  # a process that has read a damaged file reads no other
        _say(code)


def _say(word: object) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def _is_asked() -> bool:
    return os.name == "nt" or bool(select.select([sys.stdin], [], [], IDLE_SECONDS)[0])


def _answer(question: dict[str, Any]) -> int:
    limit_process(question["memory_bytes"], question["cpu_seconds"])
    errors: list[BaseException] = []
    path = Path(question["path"])
    try:
        file = h5py.File(path, "r", locking=False)
    except H5PY_ERRORS:
        return DAMAGED
    try:
        errors += _reader(file)(file, path)
    except H5PY_ERRORS as error:
        errors.append(error)
    try:
        file.close()
    except H5PY_ERRORS:
        return HARMFUL
    if any(isinstance(error, MemoryError) or "alloc" in str(error) for error in errors):
        return HARMFUL
    return DAMAGED if errors else SOUND


def _reader(file: Any) -> Reader:
    try:
        form = form_of(file)
    except H5PY_ERRORS:
        form = ""
    return {FORMAT: _read_cache, SHARDS_FORMAT: _read_shards}.get(form, _read_objects)


def _read_cache(file: Any, path: Path) -> Sequence[BaseException]:
    header = read_header(file, path)
    datasets, _, found = read_described(file, header)
    errors: list[BaseException] = [ValueError(str(one)) for one in found]
    for name in (FEATURES, POOLED):
        if name in datasets:
            errors += probe_rows(datasets[name], path.stat().st_size)
    return errors


def _read_shards(file: Any, path: Path) -> Sequence[BaseException]:
    found = columns_of(file, ShardFolder(path.parent))[1]
    read_manifest(file, path)
    return [ValueError(str(one)) for one in found]


def probe_rows(rows: StoredRows, file_bytes: int) -> Iterator[BaseException]:
    """Look up every chunk, and read all rows or a sample; yield the errors and continue, like a verification."""
    rest = (0,) * (len(rows.shape) - 1)
    for first in range(0, len(rows), rows.chunk_rows):
        try:
            place = rows.id.get_chunk_info_by_coord((first, *rest))
        except H5PY_ERRORS as error:
            yield error
        else:
            if place.byte_offset is None or place.byte_offset + place.size > file_bytes:
                yield ValueError(f"the chunk at row {first} lies outside of the file")
    whole = rows.chunk_bytes * len(rows) <= WHOLE_BYTES
    wanted = range(len(rows)) if whole else np.linspace(0, len(rows) - 1, SAMPLE_ROWS).astype(np.int64).tolist()
    for row in wanted:
        try:
            read_rows(rows, np.array([row]))
        except H5PY_ERRORS as error:
            yield error


def _read_objects(file: Any, _path: Path) -> Sequence[BaseException]:
    """Read types, attributes and chunks of a file of another layout; return the errors."""
    errors: list[BaseException] = []
    count = 0

    def look(_name: str, found: Any) -> bool | None:
        nonlocal count
        count += 1
        try:
            dict(found.attrs)
            if isinstance(found, h5py.Dataset):
                _read_dataset(found)
        except H5PY_ERRORS as error:
            errors.append(error)
        return True if count >= MAX_OBJECTS else None

    dict(file.attrs)
    file.visititems(look)
    return errors


def _read_dataset(dataset: Any) -> None:
    """Look up the chunks of a dataset, and read it if it is small and all here: the reader refuses others."""
    if dataset.shape is None or dataset.is_virtual or dataset.external:
        return
    if dataset.chunks and dataset.size:
        dataset.id.chunk_iter(lambda _place: None)
    can_be_read = dataset.dtype.kind != "O" or h5py.check_string_dtype(dataset.dtype) is not None
    if can_be_read and dataset.size * dataset.dtype.itemsize <= WHOLE_BYTES:
        dataset[()]
