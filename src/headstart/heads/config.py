"""A head as a TOML file: what ``fit-head --config`` reads."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from headstart.errors import ParameterError
from headstart.texts import did_you_mean

#: Keys of the file, and what each must be.
KEYS: dict[str, tuple[type, str]] = {
    "type": (str, "a name of the catalogue, or an import path as sklearn.naive_bayes.GaussianNB"),
    "features": (list, "a list of names"),
    "scaling": (str, "a name"),
    "random_state": (int, "a whole number"),
    "params": (dict, "a table"),
}


def read_config(path: str | Path) -> dict[str, Any]:
    """Return what a config file says, as keyword arguments of :func:`headstart.heads.catalogue.default_spec`.

    Raises
    ------
    ParameterError
        If it cannot be read, is no TOML, names no type, or holds something that no head has.

    Examples
    --------
    >>> from headstart.heads.catalogue import default_spec
    >>> default_spec(**read_config("head.toml"))              # doctest: +SKIP
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ParameterError(f"{path} cannot be read as TOML: {error}") from error
    unknown = sorted(set(values) - set(KEYS))
    if unknown:
        raise ParameterError(
            f"{path} holds {', '.join(unknown)}, which no head has. Expected: {', '.join(KEYS)}."
            f"{did_you_mean(unknown, KEYS)}"
        )
    if "type" not in values:
        raise ParameterError(f'{path} does not say which head it is of. Expected a line as: type = "ridge".')
    for name, value in values.items():
        kind, words = KEYS[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ParameterError(f"{name} in {path} cannot be {value!r}. Expected: {words}.")
    if not all(isinstance(feature, str) for feature in values.get("features", ())):
        raise ParameterError(f"features in {path} cannot be {values['features']!r}. Expected: a list of names.")
    return {"head_type": values.pop("type"), **values}
