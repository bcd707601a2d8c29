"""Tensors of a PyTorch ``.pth`` file of the form before version 1.6, read as data: nothing in it is called or imported.

Such a file is five pickles (a magic number, a version, sizes of types, the named tensors, the keys of the storages) and
then the storages, each with its length before it (``_legacy_save`` in torch/serialization.py). The pickles are read by a
small interpreter of our own that knows the few instructions PyTorch writes; another one, or another name, is refused.
"""

from __future__ import annotations

import math
import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from headstart.errors import WeightsError

#: First value of a file, and version of its form (torch/serialization.py).
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001

#: Storages with their types, little-endian.
STORAGES = {
    "torch FloatStorage": "<f4",
    "torch DoubleStorage": "<f8",
    "torch HalfStorage": "<f2",
    "torch LongStorage": "<i8",
    "torch IntStorage": "<i4",
}
ORDERED_DICT, REBUILD_TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"

#: Dimensions of a tensor, at most; NumPy's limit is 64.
MAX_DIMENSIONS = 8

#: Bytes of a file's pickles together, at most: those of EfficientNet-Lite2 have 62,000.
MAX_PICKLED_BYTES = 2**24


@dataclass(frozen=True, slots=True)
class Name:
    """The name of a type or function, which is never looked up."""

    text: str


@dataclass(frozen=True, slots=True)
class Storage:
    """A reference to stored values."""

    dtype: str
    key: str
    n_values: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class RefusedError(Exception):
    """The content is not that of a file of tensors."""


def read_torch_file(path: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors of a file by name, read-only.

    Raises
    ------
    WeightsError
        If the file cannot be read, or holds anything but named tensors.
    """
    try:
        with path.open("rb") as file:
            return _tensors(file, path.stat().st_size)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    except RefusedError as error:
        raise WeightsError(
            f"{path} is not a PyTorch file of named tensors in the form before version 1.6: {error}."
        ) from error


def _tensors(file: BinaryIO, n_bytes: int) -> dict[str, NDArray[Any]]:
    pickles = Pickles(file)
    if load(pickles) != MAGIC or load(pickles) != PROTOCOL:
        raise RefusedError("it does not begin like one")
    sizes, named, keys = load(pickles), load(pickles), load(pickles)
    if not isinstance(sizes, dict) or sizes.get("little_endian") is not True:
        raise RefusedError("its numbers are not little-endian")
    if (
        not isinstance(named, dict)
        or not named
        or not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in named.items())
    ):
        raise RefusedError("it does not hold a dict of tensors")
    storages = {tensor.storage.key: tensor.storage for tensor in named.values()}
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(storages):
        raise RefusedError("its storages are not those of its tensors")
    values = {key: _values(file, storages[key], n_bytes) for key in keys}
    return {name: _view(tensor, values[tensor.storage.key], name) for name, tensor in named.items()}


def _values(file: BinaryIO, storage: Storage, n_bytes: int) -> NDArray[Any]:
    """Return the next storage of the file."""
    head, dtype = file.read(8), np.dtype(storage.dtype)
    if len(head) < 8 or struct.unpack("<q", head)[0] != storage.n_values:
        raise RefusedError("a storage has another length than its tensor says")
    if storage.n_values * dtype.itemsize > n_bytes - file.tell():
        raise RefusedError("it is cut off")
    return np.frombuffer(file.read(storage.n_values * dtype.itemsize), dtype)


def _view(tensor: Tensor, values: NDArray[Any], name: str) -> NDArray[Any]:
    """Return a tensor as a view of its storage's values; NumPy checks that it lies within."""
    if math.prod(tensor.shape) > len(values):
        raise RefusedError(f"{name[:80]!r} is larger than its storage")
    width = values.itemsize
    strides = tuple(stride * width for stride in tensor.strides)
    try:
        return np.ndarray(tensor.shape, values.dtype, values, tensor.offset * width, strides)
    except (TypeError, ValueError, OverflowError) as error:
        raise RefusedError(f"{name[:80]!r} does not lie within its storage ({error})") from error


class Pickles:
    """A file from which pickles are read, no more than :data:`MAX_PICKLED_BYTES` of them."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left = file, MAX_PICKLED_BYTES
        self.tell = file.tell

    def read(self, n_bytes: int) -> bytes:
        """Return the next bytes."""
        if n_bytes > self._left:
            raise RefusedError(f"it claims an argument of {n_bytes:,} bytes")
        self._left -= n_bytes
        return self._file.read(n_bytes)

    def readline(self) -> bytes:
        """Return the next line."""
        line = self._file.readline(self._left)
        self._left -= len(line)
        return line


def load(file: Pickles) -> Any:
    """Return the value of the next pickle; raise :class:`RefusedError` at anything that a file of tensors does not need."""
    machine = Machine()
    try:
        for operation, argument, _place in pickletools.genops(file):  # type: ignore[arg-type]  # read and readline are enough
            if operation.name == "STOP":
                return machine.pop()
            action = ACTIONS.get(operation.name)
            if action is None:
                raise RefusedError(f"it contains the instruction {operation.name}")
            action(machine, argument)
    except RefusedError:
        raise
    except (IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise RefusedError(f"its content is damaged ({error})") from error
    raise RefusedError("it is cut off")


class Machine:
    """The state of a pickle that is read: a stack with marks, and remembered values."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def pop(self) -> Any:
        """Take the last value from the stack."""
        return self.stack.pop()

    def since_mark(self) -> list[Any]:
        """Take all values since the last mark."""
        mark = self.marks.pop()
        values = self.stack[mark:]
        del self.stack[mark:]
        return values

    def reduce(self) -> None:
        """Make what the two calls that occur would make."""
        arguments, function = self.pop(), self.pop()
        if function == Name(ORDERED_DICT) and arguments == ():
            self.push({})
        elif function == Name(REBUILD_TENSOR) and isinstance(arguments, tuple) and len(arguments) >= 4:
            self.push(checked_tensor(*arguments[:4]))
        else:
            called = repr(function.text[:80]) if isinstance(function, Name) else "something that is no function"
            raise RefusedError(f"it calls {called}")

    def set_items(self, items: list[Any]) -> None:
        """Add keys and values to the dict on the stack.

        Keys are texts. The hash of a tuple in which a million others are nested would overflow the stack of the process.
        """
        target = self.stack[-1]
        if not isinstance(target, dict) or not all(isinstance(key, str) for key in items[::2]):
            raise RefusedError("it sets items of something that is no dict of names")
        target.update(zip(items[::2], items[1::2], strict=True))

    def build(self) -> None:
        """Drop the state that follows a dict: PyTorch's metadata of modules."""
        self.pop()
        if not isinstance(self.stack[-1], dict):
            raise RefusedError("it sets the state of something that is no dict")

    def extend(self, values: list[Any]) -> None:
        """Add values to the list on the stack."""
        target = self.stack[-1]
        if not isinstance(target, list):
            raise RefusedError("it extends something that is no list")
        target.extend(values)


def checked_tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
    """Return a description of a tensor; raise :class:`RefusedError` unless all numbers can be ones of a tensor."""
    sizes_fit = all(
        isinstance(sizes, tuple) and len(sizes) <= MAX_DIMENSIONS and all(type(n) is int and n >= 0 for n in sizes)
        for sizes in (shape, strides)
    )
    if not isinstance(storage, Storage) or type(offset) is not int or not sizes_fit or len(shape) != len(strides):
        raise RefusedError("a tensor has no valid storage, offset or shape")
    return Tensor(storage, offset, shape, strides)


def checked_storage(reference: Any) -> Storage:
    """Return the storage that a persistent identifier names: ``("storage", type, key, device, length, None)``."""
    kind, storage_type, key, _device, n_values, view = reference
    known = isinstance(storage_type, Name) and storage_type.text in STORAGES
    if kind != "storage" or not known or not isinstance(key, str) or type(n_values) is not int or view is not None:
        raise RefusedError("it refers to something that is no plain storage")
    return Storage(STORAGES[storage_type.text], key, n_values)


def _constant(value: Any) -> Callable[[Machine, Any], None]:
    return lambda machine, _argument: machine.push(value)


def _argument(machine: Machine, argument: Any) -> None:
    machine.push(argument)


def _remember(machine: Machine, argument: int) -> None:
    machine.memo[argument] = machine.stack[-1]


def _recall(machine: Machine, argument: int) -> None:
    machine.push(machine.memo[argument])


#: What the instructions do that PyTorch's files contain (pickletools.opcodes says what each means).
ACTIONS: Mapping[str, Callable[[Machine, Any], None]] = {
    "PROTO": lambda _machine, _argument: None,
    "NONE": _constant(None),
    "NEWTRUE": _constant(True),
    "NEWFALSE": _constant(False),
    "EMPTY_TUPLE": _constant(()),
    "EMPTY_DICT": lambda machine, _argument: machine.push({}),
    "EMPTY_LIST": lambda machine, _argument: machine.push([]),
    "BININT": _argument,
    "BININT1": _argument,
    "BININT2": _argument,
    "LONG1": _argument,
    "BINUNICODE": _argument,
    "GLOBAL": lambda machine, argument: machine.push(Name(argument)),
    "BINPUT": _remember,
    "LONG_BINPUT": _remember,
    "BINGET": _recall,
    "LONG_BINGET": _recall,
    "MARK": lambda machine, _argument: machine.marks.append(len(machine.stack)),
    "TUPLE": lambda machine, _argument: machine.push(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _argument: machine.push((machine.pop(),)),
    "TUPLE2": lambda machine, _argument: machine.push((machine.pop(), machine.pop())[::-1]),
    "APPEND": lambda machine, _argument: machine.extend([machine.pop()]),
    "APPENDS": lambda machine, _argument: machine.extend(machine.since_mark()),
    "SETITEM": lambda machine, _argument: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _argument: machine.set_items(machine.since_mark()),
    "BINPERSID": lambda machine, _argument: machine.push(checked_storage(machine.pop())),
    "REDUCE": lambda machine, _argument: machine.reduce(),
    "BUILD": lambda machine, _argument: machine.build(),
}
