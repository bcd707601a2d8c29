from __future__ import annotations

import pytest

import headstart


@pytest.mark.parametrize("name", headstart.__all__)
def test_every_public_name_has_its_home(name: str) -> None:
    assert getattr(headstart, name) is not None
    assert name in dir(headstart)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        headstart.nothing  # noqa: B018
