"""Questions about folders that are taken as classes, where they may be something else: splits, folds, or no class at all."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from headstart.images.class_names import looks_like, named
from headstart.images.split_names import split_of
from headstart.storage.address import Location

#: What helps where folders are not what they seem.
CSV_HELP = "name the labels in a CSV with the columns path and label, and give that"

#: A numbered part of a data set.
_PART = re.compile(
    r"(?:k?folds?|cv|parts?|batch(?:es)?|chunks?|shards?|subsets?|splits?|sets?)[\W_]*\d+", re.IGNORECASE
)


def doubts(root: Location, tops: set[str], folders: Iterable[str]) -> list[str]:
    """Return what is doubtful about folders that are taken as classes.

    Parameters
    ----------
    root : Path or Address
        The folder of all images, for messages.
    tops : set of str
        Folders directly in it.
    folders : iterable of str
        All folders with images in them.
    """
    below: dict[str, set[str]] = defaultdict(set)
    for folder in folders:
        top, _, rest = folder.partition("/")
        below[top].add(rest.partition("/")[0])
    return [*one_folder(root, below), *(same_folders(below) or numbered_parts(tops)), *a_split_beside_classes(below)]


def one_folder(root: Location, below: Mapping[str, set[str]]) -> Iterator[str]:
    """Yield a question where the one class has folders that may be the classes."""
    if len(below) != 1:
        return
    ((top, inside),) = below.items()
    if len(inside) > 1 and "" not in inside:
        what = "splits" if all(map(split_of, inside)) else "classes"
        yield f"{top} holds the folders {named(sorted(inside))}. If those are the {what}, give {root / top}."


def same_folders(below: Mapping[str, set[str]]) -> list[str]:
    """Return a question where every class has the same folders in it, two or more, whatever else each has."""
    shared = set.intersection(*below.values())
    if len(below) == 1 or len(shared) < 2 or "" in shared:
        return []
    if all(map(split_of, shared)):
        return [
            f"Every class has the folders {named(sorted(shared))}; they are not taken as splits. If they are, {CSV_HELP}, "
            "with a column split."
        ]
    tops = named(sorted(below))
    return [
        f"Every class ({tops}) has the same folders in it: {named(sorted(shared))}. Are {tops} the classes? They are taken "
        f"so. If not, {CSV_HELP}."
    ]


def numbered_parts(tops: Iterable[str]) -> list[str]:
    """Return a question where all classes are called as numbered parts of a data set are."""
    if not all(map(_PART.fullmatch, tops)):
        return []
    names = named(sorted(tops))
    return [
        f"{names}: are these the classes, or parts of the data set? They are taken as classes. If they are parts, {CSV_HELP}."
    ]


def a_split_beside_classes(below: Mapping[str, set[str]]) -> list[str]:
    """Return a question where a folder that is named as a split, and has folders of its own, is taken as a class."""
    found = [top for top, inside in below.items() if split_of(top) and len(inside - {""}) > 1]
    if not found or len(below) == 1:
        return []
    others = named(sorted(set(below) - set(found)))
    return [
        f"{named(sorted(found))}: a class, as {others}, or a split with the classes {named(sorted(below[found[0]]))}? It is "
        f"taken as a class. If it is a split, move {others} out of the way."
    ]


def without_images(folders: Iterable[str], paths: Iterable[str], depth: int) -> list[str]:
    """Return, in words, which folders where classes or splits are looked for hold no image.

    Parameters
    ----------
    folders : iterable of str
        All folders that were read.
    paths : iterable of str
        All images.
    depth : int
        Levels of folders that are classes or splits.
    """
    used = {""}
    for folder in {path.rpartition("/")[0] for path in paths}:
        parts = folder.split("/")
        used |= {"/".join(parts[:end]) for end in range(1, len(parts) + 1)}
    empty = [
        folder
        for folder in folders
        if folder not in used and folder.count("/") < depth and folder.rpartition("/")[0] in used
    ]
    return [f"No image is in {named(sorted(empty))}: no class or split is made of it."] if empty else []


def in_one_split_alone(tags: Iterable[tuple[str | None, str | None]]) -> list[str]:
    """Return, in words, which classes ``validation`` or ``test`` has and ``train`` has not.

    Parameters
    ----------
    tags : iterable of tuple
        Label and split of the images, each None where there is none.
    """
    classes: dict[str | None, set[str]] = defaultdict(set)
    for label, split in tags:
        if label is not None:
            classes[split].add(label)
    train = {looks_like(name) for name in classes["train"]}
    alone = {
        split: [name for name in sorted(classes[split]) if looks_like(name) not in train]
        for split in ("validation", "test")
    }
    return [
        f"{named(names)}: in {split} alone; train has {named(sorted(classes['train']))}. No head can learn a class without "
        f"images in train. If it is no class, move its images up into the folder of the split, or leave their labels empty."
        for split, names in alone.items()
        if names and train
    ]
