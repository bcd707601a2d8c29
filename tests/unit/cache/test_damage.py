"""Whatever byte of a cache is flipped: an error in words, or the values that were written. Never others."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caches import CLASS_NAMES, everything, failure, write_cache
from headstart.cache.merge import MergedRow, merge
from headstart.cache.reader import open_cache
from headstart.errors import CacheError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_sandbox")]

#: Prime, so that the positions fall differently into every structure.
STRIDE = 113


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damage")


@pytest.fixture(scope="module", params=["zstd", "gzip", "none", "merged"])
def original(request: pytest.FixtureRequest, folder: Path) -> Path:
    """A cache of each compression, and a merged one, whose chunk index is of another kind."""
    if request.param != "merged":
        return write_cache(folder / f"{request.param}.h5", range(7), failures=[failure()], compression=request.param)
    source = write_cache(folder / "source.h5", range(7))
    with open_cache(source) as cache:
        rows = [MergedRow(0, row, ref) for row, ref in enumerate(cache.refs())]
    merge(folder / "merged.h5", sources=[source], rows=rows, failures=(), class_names=CLASS_NAMES, layout="flat")
    return folder / "merged.h5"


def outcome(path: Path, data: bytes) -> object:
    """Return everything that a damaged cache says, or that it is refused."""
    path.write_bytes(data)
    try:
        return everything(path)
    except CacheError as error:
        is_a_sentence = str(path) in str(error) and "\n" not in str(error)
        return "refused" if is_a_sentence else error


def flipped(data: bytes, positions: Iterable[int], bits: int) -> bytes:
    damaged = bytearray(data)
    for position in positions:
        damaged[position] ^= bits
    return bytes(damaged)


def test_a_flipped_byte_never_gives_other_values(original: Path) -> None:
    data, expected = original.read_bytes(), everything(original)
    outcomes = []
    for position in range(0, len(data), STRIDE):
        bits = 1 << position % 8 if position % 2 else 0xFF
        found = outcome(original.with_name("flipped.h5"), flipped(data, [position], bits))
        assert found in ("refused", expected), f"byte {position}"
        outcomes.append(found == "refused")
    assert sum(outcomes) > 0.8 * len(outcomes)


@settings(max_examples=100, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.floats(0, 1), length=st.integers(1, 700), value=st.sampled_from([0x00, 0xFF, 0xA5]))
def test_an_overwritten_stretch_never_gives_other_values(folder: Path, start: float, length: int, value: int) -> None:
    """As by a sector that was never written, or by another file's."""
    source = folder / "stretch.h5"
    if not source.exists():
        write_cache(source, range(7), failures=[failure()], compression="none")
    data, expected = source.read_bytes(), everything(source)
    first = int(start * (len(data) - 1))
    damaged = data[:first] + bytes([value]) * min(length, len(data) - first) + data[first + length :]
    assert outcome(folder / "overwritten.h5", damaged) in ("refused", expected)


def test_a_damaged_row_is_named_and_the_others_can_be_read(tmp_path: Path) -> None:
    path = write_cache(tmp_path / "a.h5", range(7), compression="none")
    data = path.read_bytes()
    with open_cache(path) as cache:
        stored = cache.read_chunk("features", 4)[1]
        before = [batch.features.tobytes() for batch in cache.batches(batch_rows=1)]
    path.write_bytes(flipped(data, [data.index(stored) + 5], 1))
    with open_cache(path) as cache:
        with pytest.raises(CacheError) as caught:
            list(cache.batches())
        assert "row 4 of /features, the image ants/4.jpg, cannot be read" in str(caught.value)
        assert "overwrite=True" in str(caught.value)
        rest = [0, 1, 2, 3, 5, 6]
        assert [batch.features.tobytes() for batch in cache.batches(rest, 1)] == [before[row] for row in rest]
        assert cache.pooled().shape == (7, 5)
