"""``extract-features``: images → features, once; or with ``--dry-run`` an estimate of the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from headstart.texts import counted
from headstart_cli.command_options import (
    DEVICES,
    LAYERS,
    Data,
    Engine,
    Json,
    Model,
    Output,
    Resources,
    Weights,
    complete_backbone,
    completed,
)
from headstart_cli.console import ProgressBar, err, out, print_json, said, shown

if TYPE_CHECKING:
    from headstart.extract.estimate import Forecast
    from headstart.extract.options import ExtractOptions
    from headstart.extract.summary import ExtractionSummary

#: Share of images that may fail before the exit code says so.
MAX_FAILURES = 0.05

#: Failures listed on the screen; the cache has them all.
LISTED_FAILURES = 10

#: Panel of the options that only ``--engine ray`` has.
Cluster = partial(typer.Option, rich_help_panel="Ray cluster (--engine ray)")


def extract(
    data: Annotated[str, typer.Argument(help="Folder of images or class folders, CSV or s3://bucket.")],
    manifest: Annotated[
        str | None, Data(metavar="CSV", help="Table: path, label; split, group, weight, target.")
    ] = None,
    page: Annotated[
        str,
        Data(
            metavar="N|max|mean",
            help="Page of a stack or animation, or its max, mean.",
            autocompletion=completed(("1", "max", "mean")),
        ),
    ] = "1",
    intensity: Annotated[
        str,
        Data(
            metavar="RANGE",
            help="Black and white of 16-bit and float values: type, range, percentiles or LOW:HIGH.",
            autocompletion=completed(("type", "range", "percentiles")),
        ),
    ] = "type",
    on_error: Annotated[
        Literal["skip", "fail"], Data(metavar="HOW", help="Unreadable images: skip (and list) or fail.")
    ] = "skip",
    max_failures: Annotated[
        float, Data(min=0, max=1, metavar="SHARE", help="Exit code 1 above this unreadable share.")
    ] = MAX_FAILURES,
    check_bytes: Annotated[
        bool, Data("--check-bytes", help="Compare every image's bytes, not only size and times.")
    ] = False,
    keep_missing: Annotated[bool, Data("--keep-missing", help="Keep rows whose images are gone.")] = False,
    drop_missing: Annotated[
        bool, Data("--drop-missing", help="Drop rows whose images are gone, even most of them.")
    ] = False,
    backbone: Annotated[
        str,
        Model(
            metavar="NAME",
            help="Name (headstart backbones) or ONNX file.",
            autocompletion=complete_backbone,
        ),
    ] = "vgg16",
    weights: Weights = None,
    custom_weights: Annotated[bool, Model("--custom-weights", help="These are my own fine-tuned weights.")] = False,
    layer: Annotated[
        str | None,
        Model(
            metavar="NAME",
            help="Layer to store. Default: its last.",
            autocompletion=completed((*LAYERS, *(f"block{block}_pool" for block in range(1, 6)))),
        ),
    ] = None,
    input_size: Annotated[
        int | None,
        Model(metavar="PIXELS", help="Height and width of the input. Default: its own."),
    ] = None,
    resize: Annotated[
        Literal["keras-bilinear", "pillow-antialias", "jpeg-draft"],
        Model(metavar="HOW", help="pillow-antialias, jpeg-draft (fast)."),
    ] = "keras-bilinear",
    views: Annotated[
        Literal["single", "mirrored", "flips", "dihedral"],
        Model(
            metavar="HOW",
            help="Average: single, mirrored, flips, dihedral.",
        ),
    ] = "single",
    augment: Annotated[int, Model(min=0, metavar="N", help="Also N random crops of each training image.")] = 0,
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16", "int8"],
        Model(
            metavar="TYPE",
            help="auto: fastest type that gives the same features. float32, bfloat16, float16, int8 (approximate).",
        ),
    ] = "auto",
    device: Annotated[
        str, Resources(metavar="NAMES", help="auto, cpu, gpu:0, or several: gpu:0,gpu:1.", autocompletion=DEVICES)
    ] = "auto",
    batch_size: Annotated[
        int | None, Resources(min=1, metavar="N", help="Images per forward pass. Default: by the device.")
    ] = None,
    decode_threads: Annotated[int | None, Resources(min=1, metavar="N", help="Default: one per core.")] = None,
    engine: Engine = "local",
    address: Annotated[str | None, Cluster(help="The cluster, e.g. auto. Default: one on this machine.")] = None,
    workers: Annotated[int | None, Cluster(min=1, metavar="N", help="Default: as many as fit.")] = None,
    cpus_per_worker: Annotated[
        int | None, Cluster(min=1, metavar="N", help="Default: 4, or all of the smallest node.")
    ] = None,
    gpus_per_worker: Annotated[
        float | None, Cluster(min=0, metavar="N", help="Default: 1 where the cluster has GPUs.")
    ] = None,
    output: Annotated[
        str | None, Output("-o", "--output", metavar="PATH", help="The cache. Default: features/NAME.h5.")
    ] = None,
    layout: Annotated[
        Literal["file", "shards"] | None,
        Output(metavar="HOW", help="file, or shards: a folder that grows without copying."),
    ] = None,
    storage: Annotated[
        Literal["float16", "float32"], Output(metavar="TYPE", help="Of the stored layer: float16 or float32.")
    ] = "float16",
    compression: Annotated[
        Literal["zstd", "gzip", "none"], Output(metavar="NAME", help="zstd, gzip (read everywhere) or none.")
    ] = "zstd",
    overwrite: Annotated[bool, Output("--overwrite", help="Make the cache anew, whatever is there.")] = False,
    dry_run: Annotated[bool, Output("--dry-run", help="Only show what would be done, its time and disk.")] = False,
    as_json: Json = False,
) -> None:
    """Run every image through a frozen network once, and keep the features.

    Run it again after the folder has changed: only new images are computed.

    Examples
    --------
    extract-features data/   [dim]→ features/data.h5[/]
    extract-features cells.csv -o features/cells.h5 --input-size 300
    extract-features s3://bucket/photos -o s3://bucket/features/photos.h5
    extract-features data/ --dry-run   [dim](nothing is written)[/]
    """
    if engine == "local" and any(value is not None for value in (address, workers, cpus_per_worker, gpus_per_worker)):
        raise typer.BadParameter("--address, --workers, --cpus-per-worker and --gpus-per-worker go with --engine ray.")
    from headstart.extract.options import ExtractOptions
    from headstart.extract.run import extract_features
    from headstart.images.samples import parse_intensity, parse_page
    from headstart.ray_cluster import ClusterOptions
    from headstart.runtime import usable_cores

    options = ExtractOptions(
        backbone=backbone,
        weights=weights,
        custom_weights=custom_weights,
        layer=layer,
        input_size_px=input_size,
        resize=resize,
        views=views,
        page=parse_page(page),
        intensity=parse_intensity(intensity),
        precision=precision,
        storage=storage,
        compression=compression,
        batch_size=batch_size,
        device=device,
        stop_on_failure=on_error == "fail",
        overwrite=overwrite,
        keep_missing=keep_missing,
        drop_missing=drop_missing,
        check_bytes=check_bytes,
        decode_threads=decode_threads or usable_cores(),
        cache_layout=layout or "auto",
        engine=engine,
        cluster=ClusterOptions(address, workers, cpus_per_worker, gpus_per_worker),
    )
    if dry_run and augment:
        raise typer.BadParameter("--dry-run shows a run without --augment.")
    if augment and output:
        check_crops_folder(output)  # before the images
    if dry_run:
        print_forecast(data, output, manifest, options, as_json=as_json)
        return
    with ProgressBar("Extracting") as progress:
        summary = extract_features(data, output, manifest=manifest, options=options, progress=progress)
    crops = [] if summary.interrupted else extract_crops_of(summary, data, manifest, options, augment)
    if as_json:
        print_json({**summary.to_dict(), **({"crops": [one.to_dict() for one in crops]} if augment else {})})
    else:
        print_summary(summary)
        print_bottleneck(summary, options)
        if crops:
            from headstart.evaluate.random_crops import crops_folder

            n_crops = sum(one.n_images for one in crops)
            out.print(
                f"{n_crops:,} random crops of training images, for fits alone: {shown(crops_folder(summary.output))}"
            )
    summary = crops[-1] if crops else summary
    if summary.stop_signal is not None:
        raise typer.Exit(128 + summary.stop_signal)
    if len(summary.failures) > max_failures * (summary.n_images + len(summary.failures)):
        err.print(f"[bold red]More than {max_failures:.0%} of the images could not be read[/] (--max-failures).")
        raise typer.Exit(1)


def check_crops_folder(output: str) -> None:
    """Raise DataError if there can be no crops beside a cache."""
    from headstart.evaluate.random_crops import crops_folder
    from headstart.storage.bucket import location

    crops_folder(location(output))


def extract_crops_of(
    summary: ExtractionSummary, data: str, manifest: str | None, options: ExtractOptions, n_crops: int
) -> list[ExtractionSummary]:
    """Bring the crops of the training images of a cache up to date; return what was done for each number of a crop."""
    if not n_crops:
        return []
    from headstart.extract.run import extract_crops

    with ProgressBar("Extracting crops") as progress:
        return list(extract_crops(data, summary.output, n_crops, manifest=manifest, options=options, progress=progress))


def print_summary(summary: ExtractionSummary) -> None:
    from headstart.images.decode import sentences

    if summary.interrupted:
        err.print(
            f"Interrupted. {summary.n_computed:,} images of this run are kept; run the same command again to continue."
        )
        return
    print_failures(summary)
    classes = counted(len(summary.class_names), "class") if summary.class_names else "unlabelled"
    out.print(f"[bold]{counted(summary.n_images)}[/] ({classes}, {summary.layout}) in {shown(summary.output)}")
    busy_seconds = summary.times.forward.busy_seconds / summary.times.forward.threads  # a thread for each device
    rate = ""
    if summary.n_computed and busy_seconds:
        rate = f"{counts(summary.computed, ' ({})')} at {summary.n_computed / busy_seconds:.1f} images/s"
    reused = counts(summary.reused, "reused: {}") or "none reused"
    out.print(f"{counted(summary.n_computed)} computed{rate}; {reused}; {summary.seconds:.1f} s in total")
    print_gone(summary)
    for statistics in summary.worker_statistics:
        out.print(f"  {shown(statistics)}")
    for sentence in sentences(summary.notes):
        out.print(said(sentence))
    if summary.ignored or summary.hidden_count:
        from headstart.images.discovery.scan import kinds_of

        kinds = kinds_of(summary.ignored) or "nothing"
        out.print(f"Ignored files that are not images: {shown(kinds)} ({summary.hidden_count:,} hidden)")
    if summary.precision_reason:
        out.print(f"Computed in {shown(summary.precision_reason)}")


def print_gone(summary: ExtractionSummary) -> None:
    """Print how many images of the cache are missing, and whether their features were kept."""
    if not summary.n_gone:
        return
    images, their = ("image of the cache is", "its") if summary.n_gone == 1 else ("images of the cache are", "their")
    what = "kept (--keep-missing)" if summary.keeps_gone else "dropped (--keep-missing keeps them)"
    err.print(f"[bold yellow]{summary.n_gone:,} {images} gone from the folder[/]; {their} features are {what}")


def print_bottleneck(summary: ExtractionSummary, options: ExtractOptions) -> None:
    from headstart.extract.summary import bottleneck

    sentence = bottleneck(summary, options)
    if sentence and not summary.interrupted:
        out.print(said(sentence))


def print_failures(summary: ExtractionSummary) -> None:
    """List the first failures, and count the rest by reason."""
    if not summary.failures:
        return
    err.print(f"[bold yellow]{counted(len(summary.failures))} could not be read[/]; they are listed in the cache:")
    for failure in summary.failures[:LISTED_FAILURES]:
        err.print(f"  {shown(failure.ref.path)}: {said(failure.reason)}")
    rest = Counter(failure.reason.split(":")[0] for failure in summary.failures[LISTED_FAILURES:])
    for reason, count in rest.most_common():
        err.print(f"  … and {count:,} more: {said(reason)}")


def print_forecast(
    data: str, output: str | None, manifest: str | None, options: ExtractOptions, *, as_json: bool
) -> None:
    from headstart.extract.estimate import forecast_extraction

    with ProgressBar("Looking") as progress:
        forecast = forecast_extraction(data, output, manifest=manifest, options=options, progress=progress)
    if as_json:
        print_json(forecast.to_dict())
        return
    for line in forecast_lines(forecast):
        out.print(said(line))
    if forecast.peak_bytes > forecast.free_bytes:
        err.print("[bold yellow]There is too little disk space:[/] write to another disk with -o.")


def forecast_lines(forecast: Forecast) -> list[str]:
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
