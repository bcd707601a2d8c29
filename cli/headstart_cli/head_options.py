"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headstart.scores import CHOICE_METRICS

#: A file for one row per scored image.
Predictions = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write one row per scored image: path, truth, prediction, split (or fold) and the probability of every "
        "class, as .csv, .parquet or .json.",
    ),
]

#: The positive class.
Positive = Annotated[
    str | None,
    typer.Option(
        metavar="CLASS",
        help="The positive class: its sensitivity, specificity, predictive values and average precision are reported.",
    ),
]

#: What choices go by.
ChoiceMetric = Annotated[str, typer.Option(help=f"What settings and heads are chosen by: {', '.join(CHOICE_METRICS)}.")]
