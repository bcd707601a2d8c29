"""Which folders of a folder of images are classes, which are splits, and questions about names that may be mistakes.

Names that differ only in Unicode normalization or in spaces at their ends are one class. Everything else is asked about,
since only a person can decide: ``Cat`` and ``cat``, ``nan``, ``0.137``.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass

from headstart.errors import DataError
from headstart.storage.bucket import Location
from headstart.texts import class_name, counted, listed

#: Cells that mean a missing value: those of pandas (``na_values`` of ``read_csv``,
#: https://pandas.pydata.org/docs/reference/api/pandas.read_csv.html) and others.
NO_VALUE = frozenset(
    ("#n/a", "#n/a n/a", "#na", "-1.#ind", "-1.#qnan", "-nan", "1.#ind", "1.#qnan", "<na>", "n/a", "na", "null", "nan",
     "nat", "nil", "nul", "#null!", "#value!", "#ref!", "#name?", "#div/0!", "?", "??", "-", "--", ".")
)  # fmt: skip

#: Python's missing value; ``none`` in another case is a real class, e.g. pictures without an animal.
PYTHON_NONE = "None"

#: Names for images without a label, normalised by :func:`looks_like`.
NO_LABEL = frozenset(
    ("unlabeled", "unlabelled", "unlabled", "nolabel", "nolabels", "unsorted", "unclassified", "uncategorized",
     "uncategorised", "undefined", "notlabeled", "notlabelled")
)  # fmt: skip

#: Names of folders that say nothing about the class, normalised by :func:`looks_like`.
CONTENTS = frozenset(
    ("image", "images", "img", "imgs", "jpegimages", "photo", "photos", "picture", "pictures", "pics", "data", "dataset",
     "file", "files", "masks", "label", "labels", "annotations", "thumbnails", "thumbs", "newfolder", "untitledfolder")
)  # fmt: skip

#: A number, also with a decimal comma.
_NUMBER = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?")

#: Separators of several labels in one cell.
_LABEL_SEPARATORS = re.compile(r"\s*[|;,]\s*")

#: Names shown before the rest is counted.
MAX_NAMED = 5

#: Fewest single-image classes that raise a question.
MIN_SINGLE = 4


def looks_like(name: str) -> str:
    """Return a key that is equal for similar names: no case, spaces, ``_`` and ``-``; for numbers, the value."""
    if _NUMBER.fullmatch(name):
        return str(float(name.replace(",", ".")))
    folded = unicodedata.normalize("NFKC", name).casefold()
    return (
        "".join(char for char in folded if char.isprintable() and char not in " _-\u2010\u2011\u2012\u2013\u2014")
        or name
    )


def questions(counts: Mapping[str, int]) -> list[str]:
    """Return one or two sentences for each doubt about the class names; ``counts`` maps class to number of images."""
    names = sorted(counts)
    asked = spellings(names)
    if found := [n for n in names if n.casefold() in NO_VALUE or n == PYTHON_NONE or looks_like(n) in NO_LABEL]:
        asked.append(
            f'{named(found)}: is this "no label"? It is taken as a class. If it means that the label is missing, leave the '
            "cell empty, or move the images out of that folder."
        )
    if len(names) > 1 and (found := [name for name in names if looks_like(name) in CONTENTS]):
        asked.append(
            f"{named(found)}: a class, or only the content of the folder? It is taken as a class. If it is none, move the "
            "folder out of the way, or name the labels in a CSV with the columns path and label."
        )
    if found := [name for name in names if _is_combined(name, counts)]:
        asked.append(
            f"{named(found)}: several labels of one image? Each combination is taken as a class of its own. An image has one "
            "class here."
        )
    asked += numbers(counts)
    if len(names) == 1:
        asked.append(
            f"{named(names)} is the only class, and a head is fitted on two or more. If the images are unlabelled, leave the "
            "labels empty, or give the folder that contains them directly."
        )
    return asked


def _is_combined(name: str, known: Container[str]) -> bool:
    parts = set(_LABEL_SEPARATORS.split(name)) - {""}
    return len(parts) > 1 and len(name) > 2 and any(part in known for part in parts)


def spellings(names: Iterable[str]) -> list[str]:
    """Return a question for names that differ only in spelling."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[looks_like(name)].append(name)
    return [
        f"{named(group)}: the same class? They are taken as {len(group)} classes. If they are one, give them one spelling."
        for group in groups.values()
        if len(group) > 1
    ]


def numbers(counts: Mapping[str, int]) -> list[str]:
    """Return a question if the names are measured values, or every image has its own class."""
    n_images, labels = sum(counts.values()), [name for name in counts if _NUMBER.fullmatch(name)]
    fractions = [name for name in labels if not float(name.replace(",", ".")).is_integer()]
    if len(counts) >= MIN_SINGLE and len(counts) == n_images:
        what = "are these numbers a class?" if len(labels) == len(counts) else "is this the column of the classes?"
        return [
            f"{len(counts):,} classes of one image each ({named(sorted(counts))}): {what} No head can be fitted on them."
        ]
    if fractions or (len(labels) >= MIN_SINGLE and 2 * len(labels) > n_images):
        numbers = fractions or labels
        return [
            f"{named(sorted(numbers))}: are these numbers a class, or a measured quantity? Each is taken as a class of its "
            "own. For a quantity, write the name of its range instead, for example low or high."
        ]
    return []


def named(names: Iterable[str]) -> str:
    """Return the first names, in quotes if a name has spaces or is empty, and the number of further ones."""
    return listed((name if name and " " not in name else f'"{name}"' for name in names), MAX_NAMED)


#: Word → split.
WORDS = {
    "train": "train", "training": "train", "trainval": "train", "trn": "train",
    "val": "validation", "valid": "validation", "validate": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test", "tst": "test", "holdout": "test", "heldout": "test", "eval": "test",
    "evaluation": "test", "pred": "test", "prediction": "test", "predictions": "test", "predict": "test",
}  # fmt: skip

#: Words that may accompany them: ``training_set``, ``seg_train``, ``single_prediction``.
FILLERS = (
    "set", "sets", "data", "images?", "imgs?", "photos?", "pictures?", "pics?", "samples?", "files?", "folder", "split",
    "seg", "single", "raw", "resized", "cropped", "augmented", "clean(?:ed)?", "orig(?:inal)?",
)  # fmt: skip

_FILLER = f"(?:{'|'.join(FILLERS)})*"

#: A split's name without separators and digits.
_NAME = re.compile(f"{_FILLER}({'|'.join(sorted(WORDS, key=len, reverse=True))}){_FILLER}")

#: Characters of a name that are examined.
_MAX_LENGTH = 100

#: Separators and digits.
_BETWEEN = re.compile(r"[\W\d_]+")

#: The words of a name, camel case included.
_WORD = re.compile(r"[A-Z]+(?![a-z])|[^\W\d_](?:(?![A-Z])[^\W\d_])*")

CSV_HELP = "name the labels in a CSV with the columns path and label, and give that"

#: A numbered part of a data set.
_PART = re.compile(
    r"(?:k?folds?|cv|parts?|batch(?:es)?|chunks?|shards?|subsets?|splits?|sets?)[\W_]*\d+", re.IGNORECASE
)

#: Files and folders listed in a message before the rest is counted.
MAX_LISTED = 3


def split_of(name: str) -> str | None:
    """Return the split that a name stands for, ``train``, ``validation`` or ``test``; None if it is no split's name.

    Case, separators, digits and words such as ``set`` and ``images`` are ignored.

    Examples
    --------
    >>> split_of("training_set"), split_of("test1"), split_of("Val"), split_of("train station")
    ('train', 'test', 'validation', None)
    """
    letters = _BETWEEN.sub("", unicodedata.normalize("NFKC", name[:_MAX_LENGTH]).casefold())
    found = _NAME.fullmatch(letters)
    return WORDS[found[1]] if found else None


def _mentioned_split(name: str) -> str | None:
    """Return the split that a name begins or ends with, e.g. ``cats_train``; None if there is none."""
    words = [word.casefold() for word in _WORD.findall(name[:_MAX_LENGTH])]
    return next((WORDS[word] for word in (*words[:1], *words[-1:]) if word in WORDS), None)


def _doubts(root: Location, tops: set[str], folders: Iterable[str]) -> list[str]:
    """Return doubts about the ``tops`` of ``root``, which are taken as classes; ``folders`` are all folders with images."""
    below: dict[str, set[str]] = defaultdict(set)
    for folder in folders:
        top, _, rest = folder.partition("/")
        below[top].add(rest.partition("/")[0])
    return [
        *_one_folder(root, below),
        *(_same_folders(below) or _numbered_parts(tops)),
        *_a_split_beside_classes(below),
    ]


def _one_folder(root: Location, below: Mapping[str, set[str]]) -> Iterator[str]:
    if len(below) != 1:
        return
    ((top, inside),) = below.items()
    if len(inside) > 1 and "" not in inside:
        what = "splits" if all(map(split_of, inside)) else "classes"
        yield f"{top} contains the folders {named(sorted(inside))}. If those are the {what}, give {root / top}."


def _same_folders(below: Mapping[str, set[str]]) -> list[str]:
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


def _numbered_parts(tops: Iterable[str]) -> list[str]:
    if not all(map(_PART.fullmatch, tops)):
        return []
    names = named(sorted(tops))
    return [
        f"{names}: are these the classes, or parts of the data set? They are taken as classes. If they are parts, {CSV_HELP}."
    ]


def _a_split_beside_classes(below: Mapping[str, set[str]]) -> list[str]:
    found = [top for top, inside in below.items() if split_of(top) and len(inside - {""}) > 1]
    if not found or len(below) == 1:
        return []
    others = named(sorted(set(below) - set(found)))
    return [
        f"{named(sorted(found))}: a class, as {others}, or a split with the classes {named(sorted(below[found[0]]))}? It is "
        f"taken as a class. If it is a split, move {others} out of the way."
    ]


def without_images(folders: Iterable[str], paths: Iterable[str], depth: int) -> list[str]:
    """Return a sentence on folders without images in the place of classes or splits, the first ``depth`` levels."""
    used = {""}
    for folder in {path.rpartition("/")[0] for path in paths}:
        parts = folder.split("/")
        used |= {"/".join(parts[:end]) for end in range(1, len(parts) + 1)}
    empty = [
        folder
        for folder in folders
        if folder not in used and folder.count("/") < depth and folder.rpartition("/")[0] in used
    ]
    return [f"No images in {named(sorted(empty))}: it becomes no class or split."] if empty else []


def in_one_split_alone(tags: Iterable[tuple[str | None, str | None]]) -> list[str]:
    """Return a sentence on classes of ``validation`` or ``test`` that ``train`` does not have; tags are label and split."""
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
        f"{named(names)}: only in {split}; train has {named(sorted(classes['train']))}. No head can learn a class without "
        f"images in train. If it is no class, move its images up into the folder of the split, or leave their labels empty."
        for split, names in alone.items()
        if names and train
    ]


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of a folder of images."""

    name: str  # ``class-folders``, ``split-folders`` or ``flat``
    #: Maps the relative path of an image to label and split, each may be None.
    place: Callable[[str], tuple[str | None, str | None]]
    notices: tuple[str, ...] = ()  # doubts, one or two sentences each


def layout_of(root: Location, paths: list[str]) -> Layout:
    """Return the layout of a folder from the paths of all its images; DataError if the classes are ambiguous."""
    folders = {path.rpartition("/")[0] for path in paths}
    tops = {folder.partition("/")[0] for folder in folders}
    if tops == {""}:
        return Layout("flat", lambda path: (None, None))
    if "" in tops:
        stray = [path for path in paths if "/" not in path]
        raise DataError(
            f"{root} contains {counted(len(stray))} outside the class folders ({shown(stray)}), whose class is not known. "
            "Move them into class folders or out of the way, or name the labels in a CSV (`manifest`)."
        )
    splits = {top: split for top in tops if (split := split_of(top))}
    several = len(set(splits.values())) > 1
    if len(splits) == len(tops) and (several or len(tops) == 1 or not tops & folders):
        return _split_layout(root, splits, folders, paths)
    if several:
        raise DataError(
            f"{root} contains folders named as splits ({shown(splits)}) and others "
            f"({shown(tops - set(splits))}), so it is not clear which are classes. Keep only one of these kinds."
        )
    _refuse_splits(root, tops)
    names = {top: class_name(top) for top in tops}
    return Layout(
        "class-folders", lambda path: (names[path.partition("/")[0]], None), tuple(_doubts(root, tops, folders))
    )


def _split_layout(root: Location, splits: Mapping[str, str], folders: set[str], paths: list[str]) -> Layout:
    start: dict[str, int] = {}
    for top in sorted(splits):
        start[top] = len(inner := _inner_split(top, folders)) + 1
        _check_split(root, inner, folders, paths)
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


def _inner_split(top: str, folders: Iterable[str]) -> str:
    """Return the folder with the classes of a split: the inner one of ``seg_train/seg_train/…``."""
    below = {"/".join(folder.split("/", 2)[:2]) for folder in folders if folder == top or folder.startswith(f"{top}/")}
    only = next(iter(below)) if len(below) == 1 else top
    return only if only != top and split_of(only.rpartition("/")[2]) == split_of(top) else top


def _check_split(root: Location, split: str, folders: set[str], paths: list[str]) -> None:
    """Raise DataError if a split contains both class folders and images outside them."""
    if split in folders and any(folder.startswith(f"{split}/") for folder in folders):
        stray = [path for path in paths if path.rpartition("/")[0] == split]
        raise DataError(
            f"{root / split} contains {counted(len(stray))} outside its class folders ({shown(stray)}), whose class is not "
            f"known. Move them into {split}/<class>/ or out of the way."
        )


def _refuse_splits(root: Location, tops: set[str]) -> None:
    """Raise DataError if every class folder looks like a split."""
    mentioned = {_mentioned_split(top) or split_of(top) for top in tops}
    if None in mentioned or (len(mentioned) == 1 and not all(map(split_of, tops))) or len(tops) == 1:
        return
    raise DataError(
        f'Every "class" in {root} looks like a split: {shown(tops)}. For splits, name the folders train, val and test, each '
        f"with a folder per class in it; if these are the classes, {CSV_HELP}, or give the folders other names."
    )


def shown(names: Iterable[str]) -> str:
    """Return the first names, sorted, and the number of further ones."""
    return listed(sorted(names), MAX_LISTED)
