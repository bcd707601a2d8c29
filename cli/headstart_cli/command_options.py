"""Options that several commands have, the panels of ``--help``, and the words that a shell completes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from headstart.heads.catalogue import HEAD_TYPES
from headstart.heads.head_specs import POOLINGS
from headstart.scores import BY_NAME, CHOICE_METRICS, NUMBER_METRICS
from headstart.types import NORMAL, NUMBER, ORDER, SINGLE_LABEL

#: An option in one of the panels of ``--help``.
Data = partial(typer.Option, rich_help_panel="Data")
Model = partial(typer.Option, rich_help_panel="Model")
Head = partial(typer.Option, rich_help_panel="Head")
Search = partial(typer.Option, rich_help_panel="Search")
Resources = partial(typer.Option, rich_help_panel="Resources")
Output = partial(typer.Option, rich_help_panel="Output")

#: Layers of VGG16 whose averages every cache has.
LAYERS = tuple(f"block{block}_conv{i + 1}" for block, depth in enumerate((2, 2, 3, 3, 3), 1) for i in range(depth))


def completed(words: Sequence[str], *, several: bool = False) -> Callable[[str], list[str]]:
    """Return what completes an option's value in a shell: one of these words, or several separated by commas."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",") if several else ("", "", incomplete)
        return [f"{before}{comma}{word}" for word in words if word.startswith(last)]

    return complete


#: Metrics of predicted numbers.
NUMBERS = tuple(metric.name for metric in NUMBER_METRICS)


def complete_backbone(incomplete: str) -> list[str]:
    """Return the backbones whose names begin so; imported only then, as NumPy takes a tenth of a second."""
    from headstart.backbones.registry import BACKBONES

    return [name for name in BACKBONES if name.startswith(incomplete)]


def separated(text: str) -> tuple[str, ...]:
    """Return the parts of an option whose value has commas between."""
    return tuple(part.strip() for part in text.split(","))


FEATURES = completed((*POOLINGS, *LAYERS), several=True)
FEATURES_HELP = (
    "avg, max, gem, crops or flatten of the stored layer, or a layer, e.g. block4_conv3; commas between several."
)
HEADS = completed(tuple(HEAD_TYPES))
DEVICES = completed(("auto", "cpu", "gpu:0"))
SCALING_NAMES = ("sqrt-l2", "l2", "standard", "none")
SCALINGS = "sqrt-l2, l2, standard or none"

Cache = Annotated[str, typer.Argument(help="A feature cache, e.g. features/data.h5.")]

SavedHead = Annotated[Path, typer.Argument(help="Folder of a saved head.")]

Features = Annotated[str, typer.Option(metavar="NAMES", help=FEATURES_HELP, autocompletion=FEATURES)]

Weights = Annotated[
    str | None,
    Model(
        metavar="FILE",
        help="imagenet, or a Keras .h5 or ONNX file.",
        autocompletion=completed(("imagenet",)),
    ),
]

Device = Annotated[str, Resources(metavar="NAME", help="auto, cpu or gpu:N.", autocompletion=DEVICES)]

BatchSize = Annotated[int | None, Resources(min=1, metavar="N", help="Images per forward pass.")]

Precision = Annotated[
    Literal["float32", "bfloat16", "float16"] | None,
    Model(metavar="TYPE", help="float32, bfloat16 or float16. Default: that of the head's features."),
]

Json = Annotated[bool, Output("--json", help="Print JSON instead of text.")]

Overwrite = Annotated[bool, Output("--overwrite", help="Replace the output if it exists.")]

Raw = Annotated[
    bool, Output("--raw", help="CSV: do not put ' before = + - @, with which formulas of spreadsheets begin.")
]

#: A file for one row per scored image.
Predictions = Annotated[
    Path | None, Output(metavar="FILE", help="Write a row per scored image: .csv, .parquet or .json.")
]

#: The positive class.
Positive = Annotated[str | None, Output(metavar="CLASS", help="Also report rates of this class, e.g. sensitivity.")]

#: The metric of choices.
ChoiceMetric = Annotated[
    str | None,
    Search(
        metavar="NAME",
        help=f"{', '.join(CHOICE_METRICS)}; qwk; {', '.join(NUMBERS[:3])}.",
        autocompletion=completed(tuple(BY_NAME)),
    ),
]

#: What heads predict.
TargetName = Annotated[
    str | None,
    Head(
        "--target",
        metavar="NAME",
        help=f"{NUMBER} (the column target), or {ORDER} of the classes.",
        autocompletion=completed((SINGLE_LABEL, NUMBER, ORDER)),
    ),
]

#: The order of the classes, and the class of normal images.
Levels = Annotated[str | None, Head(metavar="NAMES", help=f"{ORDER}: low,middle,high. Default: sorted numbers.")]
Normal = Annotated[str | None, Head(metavar="CLASS", help="Fit on this class, and tell all others from it.")]

#: A folder of random crops.
Crops = Annotated[Path | None, Search(metavar="FOLDER", help="Also fit on these crops (extract-features --augment).")]

Engine = Annotated[Literal["local", "ray"], Resources(metavar="NAME", help="local, or ray: a Ray cluster.")]

Address = Annotated[str | None, Resources(help="ray: the cluster, e.g. auto. Default: a local one.")]


def target_of(name: str | None, levels: str | None, normal: str | None) -> Any:
    """Return the target of the options ``--target``, ``--levels`` and ``--normal``."""
    if normal is not None:
        if name not in (None, NORMAL) or levels is not None:
            raise typer.BadParameter(f"--normal goes with --target {NORMAL} alone.")
        from headstart.evaluate.target_types.normal_target import Normal as NormalTarget

        return NormalTarget(normal)
    if levels is None:
        return name or SINGLE_LABEL
    if name != ORDER:
        raise typer.BadParameter(f"--levels goes with --target {ORDER}.")
    from headstart.evaluate.target_types.order_target import Order

    return Order(separated(levels))
