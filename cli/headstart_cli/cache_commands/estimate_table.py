"""``extract-features --dry-run``: what a run would do, its time and its disk space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from headstart.texts import counted
from headstart_cli.console import ProgressBar, err, out, print_json, said

if TYPE_CHECKING:
    from headstart.extract.estimate import Forecast
    from headstart.extract.options import ExtractOptions


def print_forecast(
    data: str, output: str | None, manifest: str | None, options: ExtractOptions, *, as_json: bool
) -> None:
    """Print what extract-features would do with these arguments."""
    from headstart.extract.estimate import forecast_extraction

    with ProgressBar("Looking") as progress:
        forecast = forecast_extraction(data, output, manifest=manifest, options=options, progress=progress)
    if as_json:
        print_json(forecast.to_dict())
        return
    for line in sentences(forecast):
        out.print(said(line), soft_wrap=True)
    if forecast.peak_bytes > forecast.free_bytes:
        err.print("[bold yellow]There is too little disk space:[/] write to another disk with -o.", soft_wrap=True)


def sentences(forecast: Forecast) -> list[str]:
    """Return the lines of a forecast."""
    if forecast.up_to_date:
        return [f"Nothing to do: {forecast.output} holds all {forecast.n_images:,} images, unchanged."]
    return [
        "A dry run: nothing was written.",
        f"{counted(forecast.n_images)} ({forecast.layout}): {forecast.n_compute:,} would be computed"
        f"{counts(forecast.compute, ' ({})')}; {counts(forecast.reused, 'reused: {}') or 'none reused'}{gone(forecast)}",
        duration(forecast),
        disk(forecast),
    ]


def counts(numbers: Mapping[str, int], form: str) -> str:
    """Return the counts with their reasons, inserted into a form; empty without counts."""
    return form.format(", ".join(f"{count:,} {reason}" for reason, count in numbers.items())) if numbers else ""


def gone(forecast: Forecast) -> str:
    """Return what would happen to rows whose images are missing."""
    if not forecast.n_gone:
        return ""
    what = "would stay" if forecast.keeps_gone else "would be dropped (--keep-missing keeps them)"
    return f"; {counted(forecast.n_gone, 'row')} whose images are gone {what}"


def duration(forecast: Forecast) -> str:
    """Return the time of the run, and the basis of the estimate."""
    if not forecast.n_compute:
        return "Time: seconds; no image is computed, and the existing rows are written again."
    if forecast.rate is None or forecast.seconds is None:
        return f"Time: unknown, since {forecast.no_rate_reason}."
    rate = forecast.rate
    return (
        f"Time: about {seconds_text(forecast.seconds)}: {rate.start_seconds:.0f} s to start, then "
        f"{rate.images_per_second:.1f} images/s ({rate.reason})"
    )


def disk(forecast: Forecast) -> str:
    """Return the disk space of the run."""
    from headstart.runtime import size_text

    return (
        f"Disk: {forecast.output} would have {size_text(forecast.final_bytes)} ({forecast.row_bytes:,.0f} bytes a row: "
        f"{forecast.row_bytes_reason}); {size_text(forecast.peak_bytes)} must be free while it is written, and "
        f"{size_text(forecast.free_bytes)} are"
    )


def seconds_text(seconds: float) -> str:
    """Return a readable time, e.g. ``40 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
