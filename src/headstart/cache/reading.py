"""Reading that ends in values or in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from h5py import h5s
from numpy.typing import NDArray

from headstart.errors import CacheError

#: What h5py raises where a file is not what it should be.
H5PY_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError)

#: What helps against damage.
REMEDY = "Make it anew with extract-features --overwrite."


@contextmanager
def damage(path: Path, what: str = "") -> Iterator[None]:
    """Turn the errors of a file that is not what it should be into a CacheError that says so."""
    try:
        yield
    except CacheError:
        raise
    except PermissionError as error:
        raise CacheError(f"{path} cannot be read: {error.strerror}.") from error
    except H5PY_ERRORS as error:
        raise CacheError(f"{path} is damaged or no feature cache: {what}{first_line(error)}. {REMEDY}") from error


def first_line(error: BaseException) -> str:
    """Return what an error says, without what HDF5 adds for its developers."""
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    return text.splitlines()[0] if text else type(error).__name__


def read_run(dataset: Any, first: int, values: NDArray[Any]) -> None:
    """Read consecutive rows into ``values``, below h5py's own indexing, whose selections take longer than short runs."""
    space = dataset.id.get_space()
    space.select_hyperslab((first, *(0 for _ in values.shape[1:])), values.shape)
    dataset.id.read(h5s.create_simple(values.shape), space, values)
