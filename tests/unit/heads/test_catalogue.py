from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from headstart.heads.catalogue import HEAD_TYPES, HeadType, default_spec, make_head


@pytest.mark.parametrize("name", list(HEAD_TYPES))
def test_every_value_of_a_grid_is_one_that_the_head_takes(name: str) -> None:
    kind = HEAD_TYPES[name]
    assert kind.grid
    for parameter, values in kind.grid.items():
        assert kind.params[parameter].default in values, "a search must not miss what a plain fit would have used"
        assert list(values) == sorted(set(values))
        for value in values:
            spec = default_spec(name, params={parameter: value})
            assert make_head(spec).get_params()[f"classifier__{parameter}"] == value


@pytest.mark.parametrize("name", list(HEAD_TYPES))
def test_every_default_is_a_value_that_the_head_takes(name: str) -> None:
    parameters = HEAD_TYPES[name].params
    assert all(parameter.kind.accepts(parameter.default) for parameter in parameters.values())


def test_a_head_without_a_grid_has_nothing_to_search() -> None:
    assert HeadType(("avg",), "none", {}).grid == {}


def test_the_page_has_every_parameter_as_it_is_now() -> None:
    docs = Path(__file__).resolve().parents[3] / "docs"
    page = runpy.run_path(str(docs / "make_heads.py"))["page"]
    assert (docs / "heads.md").read_text(encoding="utf-8") == page(), "make docs writes docs/heads.md anew"
