"""Tables of costs: read, checked, and decided by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headstart.decisions.cost_matrix import CostMatrix, read_cost_matrix, score_costs
from headstart.errors import DataError

NAMES = ("ants", "bees", "wasps")


def test_rows_and_columns_may_be_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "costs.csv"
    path.write_bytes("\ufefftrue,wasps,ants,bees\r\nbees,5,1,0\r\n\r\nants,4,0,1\r\nwasps,0.5,10,7\r\n".encode())
    assert read_cost_matrix(path, NAMES).costs == ((0, 1, 4), (1, 0, 5), (10, 7, 0.5))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("x,ants,bees\nants,0,1\nbees,1,0\n", "Missing: wasps"),
        ("x,ants,bees,flies\nants,0,1,1\nbees,1,0,1\nwasps,1,1,0\n", "Missing: wasps; unknown: flies"),
        ("x,ants,bees,wasps,ants\nants,0,1,1,1\n", "One is there twice"),
        (
            "x,ants,bees,wasps\nants,0,1,1\nbees,1,0,1\nbees,1,0,1\nwasps,1,1,0\n",
            "the first column .* One is there twice",
        ),
        ("x,ants,bees,wasps\nants,0,1\nbees,1,0,1\nwasps,1,1,0\n", "'ants' has 2 costs. Expected: 3"),
        ("x,ants,bees,wasps\nants,0,1,-1\nbees,1,0,1\nwasps,1,1,0\n", "no number from 0"),
        ("x,ants,bees,wasps\nants,0,1,nan\nbees,1,0,1\nwasps,1,1,0\n", "no number from 0"),
        ("x,ants,bees,wasps\nants,0,1,inf\nbees,1,0,1\nwasps,1,1,0\n", "no number from 0"),
        ("x,ants,bees,wasps\nants,0,1,\nbees,1,0,1\nwasps,1,1,0\n", "no number from 0"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "costs.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_cost_matrix(tmp_path / "costs.csv", NAMES)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_cost_matrix(tmp_path / "none.csv", NAMES)
    (tmp_path / "image.csv").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(DataError, match="cannot be read"):
        read_cost_matrix(tmp_path / "image.csv", NAMES)


def test_the_decision_has_the_lowest_expected_cost() -> None:
    """Missing a wasp costs 10, so it is decided for from a probability of 1/11 on where the other class is ants."""
    matrix = CostMatrix(((0, 1, 1), (1, 0, 1), (10, 10, 0)))
    probabilities = np.array([[0.92, 0, 0.08], [0.9, 0, 0.1], [0.2, 0.75, 0.05], [0, 0, 1]])
    assert matrix.decide(probabilities).tolist() == [0, 2, 1, 2]
    found = score_costs(matrix, np.array([0, 0, 2, 2]), probabilities)
    assert found.mean_cost.value == (0 + 1 + 10 + 0) / 4
    assert found.mean_cost_of_most_probable == (0 + 0 + 10 + 0) / 4
    assert 0 <= found.mean_cost.low < found.mean_cost.value < found.mean_cost.high


def test_equal_costs_of_all_mistakes_decide_for_the_most_probable_class() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), 50)
    matrix = CostMatrix(tuple(tuple(row) for row in (1 - np.eye(3)).tolist()))
    np.testing.assert_array_equal(matrix.decide(probabilities), probabilities.argmax(axis=1))
