"""Imported files that are damaged, or made to harm: a sentence, or nothing changes."""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caches import write_cache
from foreign_arrays import WIDTH, N, arrays
from headstart.cache.reader import open_cache
from headstart.errors import DataError, HeadstartError
from headstart.exchange.export_features import convert
from headstart.exchange.import_features import import_features

pytestmark = pytest.mark.slow


def npy(shape: tuple[int, ...], dtype: str, data: bytes) -> bytes:
    """Return an array's file whose header may lie."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue() + data


def hostile(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", compression) as target:
        warnings.simplefilter("ignore")  # of a name that occurs twice
        for name, data in members.items():
            target.writestr(name.rstrip("!"), data)
    return path


PATHS = npy((2,), "<U1", np.array(["a", "b"]).tobytes())


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"X.npy": npy((2, 10**12), "<f4", b"1234"), "paths.npy": PATHS}, "do not hold"),
        ({"X.npy": npy((2, -1), "<f4", b"1234"), "paths.npy": PATHS}, "do not hold"),
        ({"X.npy": npy((2, 1), "<f4", b"12345678" * 2), "paths.npy": PATHS}, "do not hold"),
        ({"X.npy": npy((2, 1), "<f4", b"12345678"), "paths.npy": PATHS, "X.npy!": PATHS}, "two arrays"),
        ({"X.npy": b"nothing", "paths.npy": PATHS}, "cannot be read"),
        ({"X.npy": b"\x93NUMPY\x01\x00\x06\x00{'a':}", "paths.npy": PATHS}, "cannot be read"),
        ({"X.npy": npy((1, 2**27), "<f4", bytes(2**29)), "paths.npy": PATHS}, "more than 268,435,456 bytes"),
        ({"X.npy": npy((2, 1), "<f4", b"12345678"), "paths.npy": npy((2,), "<U40000", bytes(320000))}, "One row"),
        ({"X.npy": npy((2, 1), "<f4", b"12345678"), "paths.npy": npy((2,), "<U1", b"\xff" * 8)}, "invalid code points"),
    ],
)
def test_headers_that_lie_are_refused_before_memory_is_taken(
    tmp_path: Path, members: dict[str, bytes], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        import_features(hostile(tmp_path / "x.npz", members), tmp_path / "x.h5", name="dino")
    assert not (tmp_path / "x.h5").exists()


def test_a_directory_that_claims_more_than_is_stored_is_refused(tmp_path: Path) -> None:
    """A zip bomb lies upon itself, or about its sizes."""
    np.savez_compressed(tmp_path / "x.npz", **arrays())
    data = bytearray((tmp_path / "x.npz").read_bytes())
    place = data.index(b"PK\x01\x02") + 24  # uncompressed size in the central directory
    data[place : place + 4] = (2**31).to_bytes(4, "little")
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(DataError, match="more than what is stored can hold"):
        import_features(tmp_path / "x.npz", tmp_path / "x.h5", name="dino")


def test_an_encrypted_or_oddly_compressed_archive_is_refused(tmp_path: Path) -> None:
    hostile(tmp_path / "x.npz", {"X.npy": PATHS}, zipfile.ZIP_BZIP2)
    with pytest.raises(DataError, match="something else than deflate"):
        import_features(tmp_path / "x.npz", tmp_path / "x.h5", name="dino")


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255), compressed=st.booleans())
def test_a_changed_byte_is_a_sentence_or_changes_nothing(
    tmp_path: Path, place: float, value: int, compressed: bool
) -> None:
    path = tmp_path / "x.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays())
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] = value
    path.write_bytes(data)
    try:
        import_features(path, tmp_path / "x.h5", name="dino", overwrite=True)
    except HeadstartError:
        return
    with open_cache(tmp_path / "x.h5") as cache:
        (batch,) = cache.batches()
        np.testing.assert_array_equal(batch.features.reshape(N, WIDTH), arrays()["X"])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), flipped=st.integers(1, 255), kind=st.sampled_from(["h5", "parquet"]))
def test_a_changed_byte_of_a_converted_file_is_a_sentence_or_changes_nothing(
    tmp_path: Path, place: float, flipped: int, kind: str
) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"between.{kind}"
    if not path.exists():
        convert(write_cache(tmp_path / "a.h5", range(9)), path)
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= flipped
    path.write_bytes(data)
    try:
        import_features(path, tmp_path / "b.h5", name="again", overwrite=True)
        with open_cache(tmp_path / "a.h5") as old, open_cache(tmp_path / "b.h5") as new:
            expected = [b.features.mean(axis=(1, 2), dtype=np.float32) for b in old.batches()]
            np.testing.assert_array_equal(next(iter(new.batches())).features[:, 0, 0], np.concatenate(expected))
            assert (new.paths, new.labels.tolist()) == (old.paths, old.labels.tolist())
    except HeadstartError:
        pass
    data[int(place * len(data))] ^= flipped
    path.write_bytes(data)


def test_an_array_whose_name_is_damaged_is_not_taken_for_absent(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **arrays())
    data = (tmp_path / "x.npz").read_bytes()
    place = data.rindex(b"y.npy", 0, data.rindex(b"PK"))  # in the directory; the other is before the array
    (tmp_path / "x.npz").write_bytes(data[:place] + b"z" + data[place + 1 :])
    with pytest.raises(DataError, match="directory"):
        import_features(tmp_path / "x.npz", tmp_path / "x.h5", name="dino")
