from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from headstart.heads.catalogue import HEAD_TYPES
from headstart_cli import console
from headstart_cli.app import COMMANDS, make_app
from headstart_cli.head_commands.fit_command import make_spec
from headstart_cli.head_commands.parameter_options import option_name, value_text
from headstart_cli.help_page import COMPLETION

#: The most that is read without scrolling twice.
MOST_LINES = 60


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.out, "width", 80)


def page(*words: str) -> str:
    """Return what a command prints, called as a program of its own."""
    result = CliRunner().invoke(make_app(words[0]), [*words[1:]])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_is_short_and_whole(name: str) -> None:
    lines = page(name, "--help").splitlines()
    assert len(lines) <= MOST_LINES
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if "…" in line]
    assert f"Usage: {name}" in lines[0].replace("root", name)
    assert "Examples" in lines


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_has_every_option_and_what_it_does(name: str) -> None:
    text = page(name, "--help")
    command: Any = typer.main.get_command(make_app(name))
    for parameter in command.params:
        if not getattr(parameter, "hidden", False) and parameter.name not in COMPLETION:
            words = [parameter.name.upper()] if parameter.param_type_name == "argument" else parameter.opts
            assert any(word in text for word in [*words, *parameter.secondary_opts, parameter.metavar] if word)
            assert parameter.help


@pytest.mark.parametrize(
    ("name", "panels"),
    [
        ("extract-features", ["Arguments", "Data", "Model", "Resources", "Ray cluster", "Output"]),
        ("fit-head", ["Arguments", "Head", "Data", "Search", "Resources", "Output"]),
        ("benchmark-heads", ["Arguments", "Head", "Search", "Resources", "Output"]),
        ("weights", ["Options"]),
    ],
)
def test_options_are_in_panels(name: str, panels: list[str]) -> None:
    titles = [line for line in page(name, "--help").splitlines() if line.startswith("╭")]
    assert [title[3:].startswith(panel) for title, panel in zip(titles, panels, strict=True)] == [True] * len(panels)


@pytest.mark.parametrize("head_type", HEAD_TYPES)
def test_the_parameters_of_a_head_are_shown_after_its_type(head_type: str) -> None:
    text = page("fit-head", "--type", head_type, "--help")
    assert text == page("fit-head", "--help", "--type", head_type)
    lines = text.splitlines()
    assert len(lines) <= MOST_LINES
    assert "…" not in text
    assert f"Parameters of {head_type}" in text
    for name, parameter in HEAD_TYPES[head_type].params.items():
        assert [line for line in lines if line.startswith(f"│ {option_name(name)} ")], name
        assert isinstance(parameter.default, bool) or f"[{value_text(parameter.default)}]" in text
    others = {name for kind in HEAD_TYPES.values() for name in kind.params} - set(HEAD_TYPES[head_type].params)
    assert not [name for name in others if f"│ {option_name(name)} " in text]


def test_every_parameter_of_the_catalogue_is_an_option() -> None:
    given = {
        "hidden": ("512,128", (512, 128)),
        "dropout": ("0.5", 0.5),
        "epochs": ("3", 3),
        "learning_rate": ("1", 1.0),
        "schedule": ("cosine", "cosine"),
        "early_stopping": (True, True),
        "class_weight": ("balanced", "balanced"),
    }
    spec = make_spec(None, "dense", None, None, None, {f"param_{name}": text for name, (text, _) in given.items()})
    assert spec.params == {name: value for name, (_, value) in given.items()}
    assert isinstance(spec.params["learning_rate"], float)
    assert make_spec(None, "dense", None, None, None, {"param_hidden": "0"}).params == {"hidden": ()}
    for text, value in (("scale", "scale"), ("0.5", 0.5)):
        assert make_spec(None, "rbf-svm", None, None, None, {"param_gamma": text}).params == {"gamma": value}
    assert make_spec(None, "knn", None, None, None, {"param_metric": "euclidean"}).params == {"metric": "euclidean"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--type", "knn", "--n-neighbors", "0"], "--n-neighbors: expected a whole number, 1 or more; received '0'"),
        (["--type", "dense", "--hidden", "many"], "--hidden: expected whole numbers"),
        (["--type", "logistic", "--C", "ten"], "--C: expected a number above 0; received 'ten'"),
    ],
)
def test_a_wrong_value_of_a_parameter_is_wrong_usage(tmp_path: Path, options: list[str], message: str) -> None:
    result = CliRunner().invoke(make_app("fit-head"), [str(tmp_path / "x.h5"), *options], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fit-head", "--type", "l"], ["linear-svm", "logistic"]),
        (["fit-head", "--features", "avg,block4_conv"], [f"avg,block4_conv{i}" for i in (1, 2, 3)]),
        (["fit-head", "--distance", ""], ["cosine", "euclidean"]),
        (["extract-features", "--resize", "k"], ["keras-bilinear"]),
        (["benchmark-heads", "--metric", "f1"], ["f1_macro"]),
        (["benchmark-heads", "--heads", "ridge,r"], ["ridge,rbf-svm", "ridge,ridge", "ridge,ridge-regression"]),
    ],
)
def test_a_shell_completes_values(words: list[str], expected: list[str]) -> None:
    line = " ".join(["headstart", *words])
    environment = {"_HEADSTART_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words))}
    result = CliRunner().invoke(make_app(*COMMANDS), [], prog_name="headstart", env=environment)
    assert sorted(result.output.split()) == expected
