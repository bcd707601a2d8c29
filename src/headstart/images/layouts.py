"""How a folder of images is laid out: which folders are classes, which are splits, and what is doubtful about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from headstart.errors import DataError
from headstart.images.doubts import CSV_HELP, doubts
from headstart.images.split_names import WORDS, mentioned_split, split_of
from headstart.storage.address import Location
from headstart.texts import class_name, counted

#: Files and folders named in a message before the rest is counted.
LISTED = 3


@dataclass(frozen=True, slots=True)
class Layout:
    """How a folder of images is laid out.

    Attributes
    ----------
    name : str
        ``class-folders``, ``split-folders`` or ``flat``.
    place : callable
        Relative path of an image → its label and its split, each None where it has none.
    notices : tuple of str
        What is doubtful, a sentence or two each.
    """

    name: str
    place: Callable[[str], tuple[str | None, str | None]]
    notices: tuple[str, ...] = ()


def layout_of(root: Location, paths: list[str]) -> Layout:
    """Return how the images of a folder are laid out.

    Parameters
    ----------
    root : Path or Address
        The folder, for messages.
    paths : list of str
        Relative paths of all images.

    Raises
    ------
    DataError
        If it is not clear which folders are classes.
    """
    folders = {path.rpartition("/")[0] for path in paths}
    tops = {folder.partition("/")[0] for folder in folders}
    if tops == {""}:
        return Layout("flat", lambda path: (None, None))
    if "" in tops:
        stray = [path for path in paths if "/" not in path]
        raise DataError(
            f"{root} holds {counted(len(stray))} beside its folders ({listed(stray)}), so their class is not known. "
            "Move them into class folders or out of the way, or name the labels in a CSV (--manifest)."
        )
    splits = {top: split for top in tops if (split := split_of(top))}
    several = len(set(splits.values())) > 1
    if len(splits) == len(tops) and (several or len(tops) == 1 or not tops & folders):
        return split_layout(root, splits, folders, paths)
    if several:
        raise DataError(
            f"{root} holds folders named as splits ({listed(splits)}) beside others "
            f"({listed(tops - set(splits))}), so it is not clear which are classes. Keep one kind of them there."
        )
    refuse_splits(root, tops)
    names = {top: class_name(top) for top in tops}
    return Layout(
        "class-folders", lambda path: (names[path.partition("/")[0]], None), tuple(doubts(root, tops, folders))
    )


def split_layout(root: Location, splits: Mapping[str, str], folders: set[str], paths: list[str]) -> Layout:
    """Return the layout of a folder of splits, with or without class folders in each."""
    start: dict[str, int] = {}
    for top in sorted(splits):
        start[top] = len(inner := inner_split(top, folders)) + 1
        check_split(root, inner, folders, paths)
    names = {folder: class_name(folder) for path in folders for folder in path.split("/")}

    def place(path: str) -> tuple[str | None, str]:
        top = path.partition("/")[0]
        folder, slash, _ = path[start[top] :].partition("/")
        return names[folder] if slash else None, splits[top]

    other = [
        f"{top}/ is taken as {split}"
        for top, split in sorted(splits.items())
        if top.casefold() not in WORDS or list(splits.values()).count(split) > 1
    ]
    return Layout("split-folders", place, (f"Splits: {', '.join(other)}.",) if other else ())


def inner_split(top: str, folders: Iterable[str]) -> str:
    """Return the folder that holds the classes of a split: of ``seg_train/seg_train/…`` the inner one."""
    below = {"/".join(folder.split("/", 2)[:2]) for folder in folders if folder == top or folder.startswith(f"{top}/")}
    only = next(iter(below)) if len(below) == 1 else top
    return only if only != top and split_of(only.rpartition("/")[2]) == split_of(top) else top


def check_split(root: Location, split: str, folders: set[str], paths: list[str]) -> None:
    """Raise DataError where a split folder holds both class folders and images beside them."""
    if split in folders and any(folder.startswith(f"{split}/") for folder in folders):
        stray = [path for path in paths if path.rpartition("/")[0] == split]
        raise DataError(
            f"{root / split} holds class folders, and {counted(len(stray))} beside them whose class is not known "
            f"({listed(stray)}). Move them into {split}/<class>/ or out of the way."
        )


def refuse_splits(root: Location, tops: set[str]) -> None:
    """Raise DataError where every folder that would be a class looks like a split."""
    mentioned = {mentioned_split(top) or split_of(top) for top in tops}
    if None in mentioned or (len(mentioned) == 1 and not all(map(split_of, tops))) or len(tops) == 1:
        return
    raise DataError(
        f'Every "class" in {root} looks like a split: {listed(tops)}. For splits, name the folders train, val and test, each '
        f"with a folder per class in it; if these are the classes, {CSV_HELP}, or give the folders other names."
    )


def listed(names: Iterable[str]) -> str:
    """Return the first names, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - LISTED:,} more" if len(ordered) > LISTED else ""
    return f"{', '.join(ordered[:LISTED])}{more}"
