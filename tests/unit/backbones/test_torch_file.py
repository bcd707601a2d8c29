"""PyTorch files are read as data: they give their tensors, or one sentence."""

from __future__ import annotations

import io
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headstart.backbones.torch_file import MAGIC, PROTOCOL, read_torch_file
from headstart.errors import WeightsError


class _Global:
    """Pickled as the name of a type or function."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Reduced:
    """Pickled as a call of a named function."""

    def __init__(self, name: str, *arguments: Any) -> None:
        self.name, self.arguments = name, arguments


class _Storage:
    def __init__(self, key: str, values: np.ndarray) -> None:
        self.key, self.values = key, values


def pickled(value: Any) -> bytes:
    """Write a value as PyTorch's pickles are written: names without the modules, storages as persistent identifiers."""
    if isinstance(value, _Global):
        module, name = value.name.rsplit(".", 1)
        return b"c" + module.encode() + b"\n" + name.encode() + b"\n"
    if isinstance(value, _Reduced):
        return pickled(_Global(value.name)) + pickled(value.arguments) + b"R"
    if isinstance(value, _Storage):
        kind = {"f": "torch.FloatStorage", "i": "torch.LongStorage"}[value.values.dtype.kind]
        return pickled(("storage", _Global(kind), value.key, "cpu", value.values.size, None)) + b"Q"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(pickled, value)) + b"t"
    if isinstance(value, OrderedDict):
        items = b"".join(pickled(key) + pickled(item) for key, item in value.items())
        return pickled(_Reduced("collections.OrderedDict")) + b"(" + items + b"u"
    return pickle.dumps(value, 2)[2:-1]


def tensor(storage: _Storage, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> _Reduced:
    hooks = _Reduced("collections.OrderedDict")
    return _Reduced("torch._utils._rebuild_tensor_v2", storage, offset, shape, strides, False, hooks)


def torch_bytes(named: Any, storages: list[_Storage]) -> bytes:
    sizes = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"int": 4}}
    parts = [MAGIC, PROTOCOL, sizes, named, sorted(s.key for s in storages)]
    stream = io.BytesIO()
    for part in parts:
        stream.write(b"\x80\x02" + pickled(part) + b".")
    for storage in sorted(storages, key=lambda s: s.key):
        stream.write(struct.pack("<q", storage.values.size) + storage.values.tobytes())
    return stream.getvalue()


FLOATS = _Storage("1", np.arange(12, dtype="<f4"))
COUNT = _Storage("2", np.array([7], "<i8"))


def sound() -> bytes:
    named = OrderedDict(a=tensor(FLOATS, (3, 4), (4, 1)), b=tensor(FLOATS, (4, 3), (1, 4)), n=tensor(COUNT, (), ()))
    return torch_bytes(named, [FLOATS, COUNT])


def read(folder: Path, data: bytes) -> dict[str, Any]:
    path = folder / "x.pth"
    path.write_bytes(data)
    return read_torch_file(path)


def test_tensors_are_views_of_their_storages(tmp_path: Path) -> None:
    tensors = read(tmp_path, sound())
    np.testing.assert_array_equal(tensors["a"], FLOATS.values.reshape(3, 4))
    np.testing.assert_array_equal(tensors["b"], FLOATS.values.reshape(3, 4).T)
    assert tensors["n"] == 7


@pytest.mark.parametrize(
    ("named", "words"),
    [
        (OrderedDict(a=_Reduced("os.system", "true")), "it calls 'os system'"),
        (OrderedDict(a=_Reduced("builtins.eval", "1")), "it calls 'builtins eval'"),
        (OrderedDict(a=_Global("os.system")), "does not hold a dict of tensors"),
        (OrderedDict(a=3), "does not hold a dict of tensors"),
        (OrderedDict(a=tensor(FLOATS, (3, 5), (5, 1))), "larger than its storage"),
        (OrderedDict(a=tensor(FLOATS, (2, 2), (100, 1))), "does not lie within its storage"),
        (OrderedDict(a=tensor(FLOATS, (2, 2), (2, 1), offset=11)), "does not lie within its storage"),
        (OrderedDict(a=tensor(FLOATS, (10**12, 1), (0, 0))), "larger than its storage"),
        (OrderedDict(a=tensor(FLOATS, (-1,), (1,))), "no valid storage, offset or shape"),
        (OrderedDict(a=tensor(FLOATS, (1,) * 9, (1,) * 9)), "no valid storage, offset or shape"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, named: Any, words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        read(tmp_path, torch_bytes(named, [FLOATS]))


def test_a_pickle_of_python_objects_is_never_loaded(tmp_path: Path) -> None:
    target = tmp_path / "touched"

    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (target,)

    for data in (pickle.dumps(Harmful()), sound().replace(pickle.dumps(MAGIC, 2), pickle.dumps(Harmful(), 2), 1)):
        with pytest.raises(WeightsError, match="not a PyTorch file"):
            read(tmp_path, data)
    assert not target.exists()


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("place", ["key", "function", "storage"])
def test_a_million_nested_tuples_are_refused(tmp_path: Path, place: str) -> None:
    """Their hash or their text would overflow the stack of the process."""
    nested = b")" + b"\x85" * 1_000_000
    with_tuples, words = {
        "key": (sound().replace(pickled(["1", "2"]), b"}" + nested + b"Ns"), "no dict of names"),
        "function": (sound().replace(pickled(["1", "2"]), nested + b")R"), "no function"),
        "storage": (sound().replace(pickled(["1", "2"]), b"]" + nested + b"a"), "are not those of its tensors"),
    }[place]
    assert len(with_tuples) > 1_000_000
    with pytest.raises(WeightsError, match=words):
        read(tmp_path, with_tuples)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="No such file"):
        read_torch_file(tmp_path / "none.pth")


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_file_is_a_sentence_or_gives_tensors(tmp_path: Path, place: float, value: int, cut: bool) -> None:
    data = bytearray(sound())
    index = int(place * len(data))
    data = data[:index] if cut else data[:index] + bytes([value]) + data[index + 1 :]
    try:
        tensors = read(tmp_path, bytes(data))
    except WeightsError:
        return
    assert all(isinstance(tensor, np.ndarray) for tensor in tensors.values())
