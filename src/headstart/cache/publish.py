"""A file appears whole or not at all: a temporary name beside it, flushed to the disk, then renamed."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
from h5py import h5f, h5p

from headstart.errors import CacheError, HeadstartError

#: End of the name of a file that is being written. One that nobody writes any more may be deleted.
PARTIAL_SUFFIX = ".partial"

#: Object headers keep this many attributes inside, where HDF5 checksums them; beyond it they move to a heap.
MAX_COMPACT_ATTRIBUTES = 64


@contextmanager
def published(path: Path) -> Iterator[Any]:
    """Yield a new HDF5 file, open for writing, that becomes ``path`` when the block ends without an exception.

    Whatever was at ``path`` stays as it was until then, and for those who have it open afterwards too. The temporary is
    removed on any exception, Ctrl-C included.

    Raises
    ------
    CacheError
        If the file cannot be written: no such folder, no permission, no space …
    """
    if path.is_dir():
        raise CacheError(f"{path} is a folder; a cache is a file. Give another name.")
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
    try:
        file = create(partial)
        try:
            yield file
        finally:
            file.close()
        sync(partial)
        partial.replace(path)
        sync_folder(path.parent)
    except HeadstartError:
        raise
    except (OSError, RuntimeError) as error:
        raise CacheError(f"{path} cannot be written: {reason(error)}") from error
    finally:
        with suppress(OSError):
            partial.unlink()


def create(path: Path) -> Any:
    """Return a new HDF5 file whose every structure carries a checksum: the format of HDF5 1.10, no more, no less."""
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_libver_bounds(h5f.LIBVER_V110, h5f.LIBVER_V110)
    access.set_fclose_degree(h5f.CLOSE_STRONG)
    access.set_file_locking(False, True)  # the name is ours alone; NFS and Lustre often cannot lock
    creation = h5p.create(h5p.FILE_CREATE)
    creation.set_attr_phase_change(MAX_COMPACT_ATTRIBUTES, 0)
    creation.set_obj_track_times(False)
    return h5py.File(h5f.create(os.fsencode(path), h5f.ACC_EXCL, creation, access))


def sync(path: Path) -> None:
    """Return when the file's bytes are on the disk."""
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Return when the names in the folder are on the disk; Windows does it by itself and cannot open folders."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reason(error: BaseException) -> str:
    """Return what the operating system said, which HDF5 buries in its message, else the first line of the message."""
    number = re.search(r"errno = (\d+)", str(error))
    if number:
        return f"{os.strerror(int(number[1]))}."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}."
    return str(error).splitlines()[0] if str(error) else type(error).__name__
