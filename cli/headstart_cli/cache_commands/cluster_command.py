"""``headstart cluster`` and ``headstart class-folders``: from loose photographs to class folders."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from headstart.texts import counted
from headstart_cli.command_options import SCALING_NAMES, SCALINGS, Features, completed, separated
from headstart_cli.console import ProgressBar, err, out, shown

if TYPE_CHECKING:
    from headstart.labelling.clustering import Clustering

#: Share of the best silhouette within which another number of clusters is as good.
NEAR_BEST = 0.05


def cluster(
    cache: Annotated[str, typer.Argument(help="A feature cache, e.g. features/data.h5; it needs no labels.")],
    k: Annotated[
        str, typer.Option("--k", metavar="N|N-N", help="Clusters, or a range: the one with the best silhouette.")
    ] = "2-30",
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The images: also write a page with thumbnails.")
    ] = None,
    features: Features = "avg",
    scaling: Annotated[
        str, typer.Option(metavar="NAME", help=f"{SCALINGS}.", autocompletion=completed(SCALING_NAMES))
    ] = "sqrt-l2",
    seed: Annotated[int, typer.Option(metavar="N", help="Random seed.")] = 0,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FOLDER", help="Default: clusters/NAME.")
    ] = None,
) -> None:
    """Group unlabelled images by similarity (k-means on their features), so that whole groups can be labelled.

    Writes names.csv, in which you enter a label for each cluster; images.csv, with a row for each image; and with --data
    the page clusters.html. Then headstart class-folders copies the images into one folder for each class.

    Examples
    --------
    headstart cluster features/loose.h5 --data loose/
    headstart cluster features/loose.h5 --data loose/ --k 12
    headstart class-folders clusters/loose loose/ photos/
    """
    from headstart.labelling.clustering import cluster_images, write_clusters
    from headstart.storage.bucket import location

    folder = output or Path("clusters") / location(cache).stem
    with err.status("Clustering …"):
        found = cluster_images(
            cache, clusters_asked(k), features=separated(features), scaling=scaling, random_state=seed
        )
        files = write_clusters(folder, found, title=str(cache), data=data)
    print_clusters(found)
    for file in files:
        out.print(f"  {shown(file)}")
    page = "Look at clusters.html, fill" if data else "Fill"
    out.print(
        f"{page} in the column label of names.csv, then: headstart class-folders {shown(folder)} "
        f"{shown(data or 'IMAGES')} OUTPUT"
    )


def clusters_asked(text: str) -> int | tuple[int, int]:
    low, dash, high = text.partition("-")
    try:
        return (int(low), int(high)) if dash else int(low)
    except ValueError as error:
        raise typer.BadParameter(f"expected a number (12) or a range (2-30); received {text!r}") from error


def print_clusters(found: Clustering) -> None:
    """Print the number of clusters, their sizes, and other numbers of clusters that fit about as well."""
    sizes = [len(found.members(number)) for number in range(found.n_clusters)]
    best = found.silhouettes[found.n_clusters]
    out.print(
        f"{sum(sizes):,} images in {found.n_clusters} clusters of {min(sizes):,} to {max(sizes):,}; "
        f"mean silhouette {best:.3f}"
    )
    left_out = len(found.labels) - sum(sizes)
    if left_out:
        err.print(f"[yellow]{left_out:,} images have features that are not finite, and are in no cluster.[/]")
    near = [k for k, value in found.silhouettes.items() if value >= best * (1 - NEAR_BEST)]
    if len(near) > 1:
        out.print(
            f"{min(near)} to {max(near)} clusters fit about as well (silhouettes within {NEAR_BEST:.0%} of the best); choose "
            "with --k N. More clusters are purer, and several may get the same label."
        )


def class_folders(
    clusters: Annotated[Path, typer.Argument(help="The folder with names.csv, labels filled in.")],
    data: Annotated[Path, typer.Argument(help="The folder of images.")],
    output: Annotated[Path, typer.Argument(help="The folder to create, with one folder for each class.")],
) -> None:
    """Copy labelled images into one folder for each class; the originals stay where they are.

    Run extract-features on the new folder with the old cache (-o): nothing is computed again, since images are identified
    by their bytes.

    Examples
    --------
    headstart class-folders clusters/loose loose/ photos/
    """
    from headstart.images.discovery.classes_and_splits import questions
    from headstart.labelling.clustering import IMAGES, IMAGES_COLUMNS, make_class_folders, read_labels, read_table

    labels = read_labels(clusters)
    for question in questions(Counter(labels.values())):
        err.print(shown(question))
    with ProgressBar("Copying") as bar:
        bar.start(len(labels))
        counts = make_class_folders(labels, data, output, advance=bar.advance)
    table = Table("class", title=shown(output))
    table.add_column("images", justify="right")
    for name, count in counts.items():
        table.add_row(shown(name), f"{count:,}")
    out.print(table)
    unlabelled = sum(1 for _ in read_table(clusters / IMAGES, IMAGES_COLUMNS)) - len(labels)
    if unlabelled:
        out.print(f"{counted(unlabelled)} without a label: not copied.")
