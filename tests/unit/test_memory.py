"""Sizes of memory, as people write them."""

import pytest

from headstart.errors import ParameterError
from headstart.runtime import free_bytes, parse_size, size_text, used_bytes


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("4GiB", 2**32), ("4 gib", 2**32), ("500MB", 500_000_000), ("1.5k", 1500), ("1234", 1234), ("2Ti", 2**41)],
)
def test_sizes(text, n_bytes):
    assert parse_size(text) == n_bytes


@pytest.mark.parametrize("text", ["", "0", "much", "-1GiB", "4iB", "4 Gibibyte", "0.1"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ParameterError, match="is not a memory size"):
        parse_size(text)


def test_sizes_for_a_person():
    assert size_text(2**32) == "4.0 GiB"
    assert size_text(2**29) == "512 MiB"


def test_a_control_group_has_less_than_the_machine(tmp_path, monkeypatch):
    limit, use = tmp_path / "max", tmp_path / "current"
    limit.write_text("5000\n")
    use.write_text("2000\n")
    monkeypatch.setattr("headstart.runtime.CGROUP_LIMITS", (str(limit),))
    monkeypatch.setattr("headstart.runtime.CGROUP_USES", (str(use),))
    assert free_bytes() == 3000
    limit.write_text("max\n")
    assert free_bytes() > 2**20
    assert used_bytes() >= 0
