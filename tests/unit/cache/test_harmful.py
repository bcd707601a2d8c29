"""Caches whose structures were changed and whose checksums are right: values or a sentence, from a process that lives on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from caches import everything, write_cache
from harmful_caches import Original, fletcher32, harmful, lookup3, original
from headstart.cache.integrity import verify_file
from headstart.cache.reader import open_cache
from headstart.errors import CacheError
from headstart.fit import fit_head

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Original:
    return original(write_cache(tmp_path_factory.mktemp("sound") / "a.h5"))


def test_checksums_are_those_of_the_library(source: Original) -> None:
    assert lookup3(b"Four score and seven years ago") == 0x17770551  # driver5 of lookup3.c
    assert len(source.structures) > 30
    assert {source.data[start : start + 4] for start, _ in source.structures} >= {b"OHDR", b"EAHD", b"BTLF", b"FRHP"}
    for start, end in source.chunks:
        assert int.from_bytes(source.data[end - 4 : end], "little") == fletcher32(source.data[start : end - 4])


@pytest.mark.parametrize("number", range(24))
def test_it_is_read_or_refused_in_a_sentence(source: Original, tmp_path: Path, number: int) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(harmful([source], 1, number))
    said = _said(lambda: everything(path))
    assert said == "" or (str(path) in said and "\n" not in said)
    for finding in _findings(path):
        assert "\n" not in finding


def _said(read: Callable[[], object]) -> str:
    """Return the sentence of an expected failure; empty without one."""
    try:
        read()
    except CacheError as error:
        return str(error)
    return ""


def _findings(path: Path) -> list[str]:
    try:
        return [str(finding) for finding in verify_file(path)]
    except CacheError as error:
        return [str(error)]


def test_no_head_is_fitted_on_rows_that_are_not_finite(tmp_path: Path) -> None:
    path = write_cache(tmp_path / "a.h5", compression="none")
    with open_cache(path) as cache:
        stored = cache.read_chunk("features", 4)[1]
    values = np.frombuffer(stored[:-4], "<f2").copy()
    values[3] = np.nan
    changed = values.tobytes() + fletcher32(values.tobytes()).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(stored, changed))
    with open_cache(path) as cache:
        assert np.isnan(np.concatenate([batch.features for batch in cache.batches()])).sum() == 1
        with pytest.raises(
            CacheError, match=r"row 4 of /features, the image ants/4\.jpg, holds values that are not finite"
        ):
            list(cache.batches(finite=True))
    with pytest.raises(CacheError, match="not finite"):
        fit_head(path, "logistic", search="none", validation=0.5)
