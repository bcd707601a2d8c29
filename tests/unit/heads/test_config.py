from __future__ import annotations

from pathlib import Path

import pytest

from headstart.errors import ParameterError
from headstart.heads.catalogue import default_spec
from headstart.heads.head_specs import read_config


def write(folder: Path, text: str) -> Path:
    path = folder / "head.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_config_is_a_spec(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        'type = "sklearn.naive_bayes.GaussianNB"\nfeatures = ["avg", "block4_conv3"]\nscaling = "standard"\n'
        "random_state = 3\n[params]\nvar_smoothing = 1e-6\n",
    )
    spec = default_spec(**read_config(path))
    assert (spec.type, spec.features, spec.scaling) == (
        "sklearn.naive_bayes.GaussianNB",
        ("avg", "block4_conv3"),
        "standard",
    )
    assert (spec.random_state, spec.params) == (3, {"var_smoothing": 1e-6})


def test_what_a_config_leaves_out_is_the_catalogues(tmp_path: Path) -> None:
    assert default_spec(**read_config(write(tmp_path, 'type = "ridge"'))) == default_spec("ridge")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("type: ridge", "cannot be read as TOML"),
        ('scaling = "l2"', "which head"),
        ('type = "ridge"\nalpha = 3', "toml: alpha. Expected: type, features"),
        ("type = 3", "type in .* cannot be 3"),
        ('type = "ridge"\nfeatures = "avg"', "a list of names"),
        ('type = "ridge"\nfeatures = [1]', "a list of names"),
        ('type = "ridge"\nrandom_state = true', "a whole number"),
        ('type = "ridge"\nparams = 1', "a table"),
    ],
)
def test_a_config_that_is_none_is_refused(text: str, match: str, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=match):
        read_config(write(tmp_path, text))


def test_a_missing_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"no\.toml cannot be read"):
        read_config(tmp_path / "no.toml")
