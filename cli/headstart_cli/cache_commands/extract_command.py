"""``extract-features``: images → features, once."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from headstart.texts import counted
from headstart_cli.console import ProgressBar, err, out, print_json, shown

if TYPE_CHECKING:
    from headstart.extract.options import ExtractionSummary, ExtractOptions

#: Share of images that may fail before the exit code says so.
MAX_FAILURES = 0.05

#: Failures listed on the screen; the cache has them all.
LISTED_FAILURES = 10

EPILOG = (
    "[bold]Examples[/]\n\n"
    "extract-features data/   [dim]→ features/data.h5[/]\n\n"
    "extract-features cells.csv -o features/cells.h5 --input-size 300   [dim](columns path, label, split, group)[/]\n\n"
    "extract-features /shared/data -o /shared/features/data.h5 --engine ray --address auto   [dim](a cluster)[/]\n\n"
    "extract-features /shared/data -o /shared/features/data --layout shards   [dim](a folder; nothing is copied)[/]\n\n"
    "extract-features data/ -o features/data-mirrored.h5 --views mirrored   [dim](fit-head takes both, and chooses)[/]\n\n"
    "extract-features data/ --precision float32 --on-error fail\n\n"
    "extract-features data/ --dry-run   [dim](nothing is written)[/]"
)


def extract(
    data: Annotated[
        str,
        typer.Argument(
            help="Folder of class folders, of train/val/test folders of them, or of images; or a CSV manifest. "
            "On a disk, or in a bucket as s3://bucket/photos (extra cloud)."
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", metavar="PATH", help="The cache, on a disk or in a bucket. Default: features/<name>.h5."
        ),
    ] = None,
    layout: Annotated[
        Literal["file", "shards"] | None,
        typer.Option(
            help="shards: the cache is a folder, features/<name>, of files that are written once and never merged, and a "
            "manifest. Default: what is there, else one file."
        ),
    ] = None,
    manifest: Annotated[
        str | None, typer.Option(metavar="PATH", help="CSV with path, label and optionally split and group.")
    ] = None,
    weights: Annotated[str, typer.Option(help="imagenet, or a Keras .h5 file.")] = "imagenet",
    custom_weights: Annotated[bool, typer.Option("--custom-weights", help="The file holds your own training.")] = False,
    layer: Annotated[str, typer.Option(help="Layer to store, by its Keras name.")] = "block5_pool",
    input_size: Annotated[int, typer.Option(help="Height and width of the network's input, in pixels.")] = 224,
    resize: Annotated[
        Literal["keras-bilinear", "pillow-antialias", "jpeg-draft"],
        typer.Option(
            help="How an image becomes the network's square input. jpeg-draft decodes large JPEGs several times faster, and "
            "averages over all their pixels, as pillow-antialias does."
        ),
    ] = "keras-bilinear",
    views: Annotated[
        Literal["single", "mirrored"],
        typer.Option(
            help="mirrored: the features are the mean of those of the image and of its mirror image, for twice the time in "
            "the network. For images whose class is the same in a mirror."
        ),
    ] = "single",
    page: Annotated[
        str,
        typer.Option(
            metavar="NUMBER|max|mean",
            help="Of files of several pages or frames: the one to take, from 1 on, or the largest or mean value of all.",
        ),
    ] = "1",
    intensity: Annotated[
        str,
        typer.Option(
            metavar="type|range|percentiles|LOW:HIGH",
            help="Samples of more than 8 bits: which values become black and white, for all images. type: the limits of the "
            "type, for floats 0:1. range, percentiles (0.5 and 99.5 of each image): the lowest and highest that the data set "
            "has, found before the extraction and kept in the cache.",
        ),
    ] = "type",
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16", "int8"],
        typer.Option(
            help="auto takes a reduced type only where it gives the features of float32. int8 is the fastest on a CPU, with "
            "features that are near and not equal; it needs the extra openvino."
        ),
    ] = "auto",
    storage: Annotated[Literal["float16", "float32"], typer.Option(help="Type of the stored layer.")] = "float16",
    compression: Annotated[Literal["zstd", "gzip", "none"], typer.Option(help="gzip is read everywhere.")] = "zstd",
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Images per forward pass, mirror images included. Default: fits the device."),
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto (every GPU, or else the CPU), cpu, gpu:N, or several, as gpu:0,gpu:1.")
    ] = "auto",
    decode_threads: Annotated[int | None, typer.Option(min=1, help="Default: one per core.")] = None,
    on_error: Annotated[
        Literal["skip", "fail"], typer.Option(help="skip lists an image that cannot be read; fail stops at it.")
    ] = "skip",
    max_failures: Annotated[
        float, typer.Option(min=0, max=1, help="Share of images that may fail before the exit code is 1.")
    ] = MAX_FAILURES,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make the cache anew, whatever is there.")] = False,
    keep_missing: Annotated[
        bool, typer.Option("--keep-missing", help="Keep the rows of images that are gone.")
    ] = False,
    drop_missing: Annotated[
        bool,
        typer.Option(
            "--drop-missing",
            help="Drop the rows of images that are gone, even if they are most of the cache or it was made from another "
            "folder; without it, that is refused.",
        ),
    ] = False,
    check_bytes: Annotated[
        bool,
        typer.Option(
            "--check-bytes",
            help="Read every image and compare its bytes with the cache, not only its size, times and inode.",
        ),
    ] = False,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="ray runs the network in the workers of a Ray cluster.")
    ] = "local",
    address: Annotated[
        str | None, typer.Option(help="ray: the cluster, as auto. Default: one that is started on this machine.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="ray: default: as many as fit.")] = None,
    cpus_per_worker: Annotated[
        int | None, typer.Option(min=1, help="ray: default: 4, or all of the smallest node.")
    ] = None,
    gpus_per_worker: Annotated[
        float | None, typer.Option(min=0, help="ray: default: 1 where the cluster has GPUs.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only say what would be done, how long it would take, and the disk it needs."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Run every image through a frozen VGG16 once, and keep the features.

    Run it again after the folder has changed: only what is new goes through the network. Ctrl-C loses nothing, nor does a
    closed terminal.
    """
    if engine == "local" and any(value is not None for value in (address, workers, cpus_per_worker, gpus_per_worker)):
        raise typer.BadParameter("--address, --workers, --cpus-per-worker and --gpus-per-worker go with --engine ray.")
    from headstart.extract.options import ExtractOptions
    from headstart.extract.run import extract_features
    from headstart.images.samples import parse_intensity, parse_page
    from headstart.ray_cluster import ClusterOptions
    from headstart.runtime import usable_cores

    options = ExtractOptions(
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
    if dry_run:
        from headstart_cli.cache_commands.estimate_table import print_forecast

        print_forecast(data, output, manifest, options, as_json=as_json)
        return
    with ProgressBar("Extracting") as progress:
        summary = extract_features(data, output, manifest=manifest, options=options, progress=progress)
    if as_json:
        print_json(summary.to_dict())
    else:
        print_summary(summary)
        print_bottleneck(summary, options)
    if summary.stop_signal is not None:
        raise typer.Exit(128 + summary.stop_signal)
    if len(summary.failures) > max_failures * (summary.n_images + len(summary.failures)):
        err.print(f"[bold red]More than {max_failures:.0%} of the images could not be read[/] (--max-failures).")
        raise typer.Exit(1)


def print_summary(summary: ExtractionSummary) -> None:
    """Print what a run did, for a person."""
    from headstart.images.load import sentences

    if summary.interrupted:
        err.print(
            f"Interrupted. {summary.n_computed:,} images of this run are kept; the same command goes on from there.",
            soft_wrap=True,
        )
        return
    print_failures(summary)
    classes = counted(len(summary.class_names), "class") if summary.class_names else "unlabelled"
    out.print(
        f"[bold]{counted(summary.n_images)}[/] ({classes}, {summary.layout}) in {shown(summary.output)}",
        soft_wrap=True,
    )
    reused = ", ".join(f"{count:,} {reason}" for reason, count in summary.reused.items())
    why = ", ".join(f"{count:,} {reason}" for reason, count in summary.computed.items())
    busy_seconds = summary.times.forward.busy_seconds / summary.times.forward.threads  # a thread for each device
    rate = (
        f" ({why}) at {summary.n_computed / busy_seconds:.1f} images/s in the network"
        if summary.n_computed and busy_seconds
        else ""
    )
    out.print(
        f"{summary.n_computed:,} went through the network{rate}; {f'reused: {reused}' if reused else 'none reused'}; "
        f"{summary.seconds:.1f} s in all",
        soft_wrap=True,
    )
    print_gone(summary)
    for statistics in summary.worker_statistics:
        out.print(f"  {shown(statistics)}", soft_wrap=True)
    for sentence in sentences(summary.notes):
        out.print(sentence, soft_wrap=True)
    if summary.ignored or summary.hidden_count:
        from headstart.images.discovery.scan import kinds_of

        kinds = kinds_of(summary.ignored) or "nothing"
        out.print(
            f"Ignored, since they are no images: {shown(kinds)} ({summary.hidden_count:,} hidden)",
            soft_wrap=True,
        )
    if summary.precision_reason:
        out.print(f"Precision {escape(summary.precision_reason)}", soft_wrap=True)


def print_gone(summary: ExtractionSummary) -> None:
    """Print how many images of the cache are gone, and what became of their features."""
    if not summary.n_gone:
        return
    images, their = ("image of the cache is", "its") if summary.n_gone == 1 else ("images of the cache are", "their")
    what = "kept (--keep-missing)" if summary.keeps_gone else "dropped (--keep-missing keeps them)"
    err.print(
        f"[bold yellow]{summary.n_gone:,} {images} gone from the folder[/]; {their} features are {what}",
        soft_wrap=True,
    )


def print_bottleneck(summary: ExtractionSummary, options: ExtractOptions) -> None:
    """Print what bounded a run, where it was long enough to tell."""
    from headstart.extract.estimate import bottleneck

    sentence = bottleneck(summary, options)
    if sentence and not summary.interrupted:
        out.print(sentence, soft_wrap=True)


def print_failures(summary: ExtractionSummary) -> None:
    """List the first failures, and count the rest by reason."""
    if not summary.failures:
        return
    err.print(f"[bold yellow]{counted(len(summary.failures))} could not be read[/]; they are listed in the cache:")
    for failure in summary.failures[:LISTED_FAILURES]:
        err.print(f"  {shown(failure.ref.path)}: {shown(failure.reason)}", soft_wrap=True)
    rest = Counter(failure.reason.split(":")[0] for failure in summary.failures[LISTED_FAILURES:])
    for reason, count in rest.most_common():
        err.print(f"  … and {count:,} more: {escape(reason)}", soft_wrap=True)


extract.__doc__ = f"{extract.__doc__}\n\n{EPILOG}"
