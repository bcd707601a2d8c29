"""What a score is compared with in words."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.evaluate.target_types.class_target import score
from headstart.report.text_tables import chance_line


@pytest.mark.parametrize(
    ("right", "words"),
    [
        ([1] * 18 + [0] * 2, "Always saying [/]b has accuracy 0.900, and the head is not significantly better."),
        ([0] * 18 + [1] * 2, "Always saying [/]b has accuracy 0.900, which is better."),
        ([1] * 20, "Always saying [/]b"),
    ],
)
def test_a_score_that_one_answer_for_all_images_has_too(right: list[int], words: str) -> None:
    y = np.array([1] * 18 + [0] * 2)
    called = np.where(np.array(right) == 1, y, 1 - y)
    line = chance_line(score(y, np.eye(2)[called] * 0.8 + 0.1, ("a", "[/]b")))
    assert line.replace("\\", "").startswith(words)


def test_a_head_that_is_better_than_chance_and_a_single_class_need_no_word() -> None:
    y = np.repeat([0, 1], 20)
    assert not chance_line(score(y, np.eye(2)[y] * 0.8 + 0.1, ("a", "b")))
    assert not chance_line(score(y * 0, np.eye(2)[y] * 0.8 + 0.1, ("a", "b")))
