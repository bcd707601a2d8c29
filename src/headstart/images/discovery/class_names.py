"""Names of classes: one form for each, and questions about those that may not be what they seem.

Unicode has several ways to write one text (``é`` as one character or two), and spaces at the ends are not seen: such names
are one class. Everything else is a question, since only a person knows: ``Cat`` and ``cat``, ``nan``, ``0.137``.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

#: Cells that programs write where there is no value: those that pandas reads as missing (``na_values`` of ``read_csv``,
#: https://pandas.pydata.org/docs/reference/api/pandas.read_csv.html), and what else stands for nothing.
NO_VALUE = frozenset(
    ("#n/a", "#n/a n/a", "#na", "-1.#ind", "-1.#qnan", "-nan", "1.#ind", "1.#qnan", "<na>", "n/a", "na", "null", "nan",
     "nat", "nil", "nul", "#null!", "#value!", "#ref!", "#name?", "#div/0!", "?", "??", "-", "--", ".")
)  # fmt: skip

#: What Python writes for it; ``none`` in other letters is a class that people use, as for pictures without an animal.
PYTHON_NONE = "None"

#: What people call images that have no label yet, without case, spaces and dashes.
NO_LABEL = frozenset(
    ("unlabeled", "unlabelled", "unlabled", "nolabel", "nolabels", "unsorted", "unclassified", "uncategorized",
     "uncategorised", "undefined", "notlabeled", "notlabelled")
)  # fmt: skip

#: What a folder holds, whatever their class is, without case, spaces and dashes.
CONTENTS = frozenset(
    ("image", "images", "img", "imgs", "jpegimages", "photo", "photos", "picture", "pictures", "pics", "data", "dataset",
     "file", "files", "masks", "label", "labels", "annotations", "thumbnails", "thumbs", "newfolder", "untitledfolder")
)  # fmt: skip

#: A number as tables have it, with a decimal comma as well.
_NUMBER = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?")

#: What may stand between two labels in one cell.
_LABEL_SEPARATORS = re.compile(r"\s*[|;,]\s*")

#: Names shown in a question before the rest is counted.
LISTED = 5

#: Fewest classes of one image each about which is asked.
MIN_SINGLE = 4


def looks_like(name: str) -> str:
    """Return what is equal for names that may be one class: without case, spaces, ``_`` and ``-``; of a number, its value."""
    if _NUMBER.fullmatch(name):
        return str(float(name.replace(",", ".")))
    folded = unicodedata.normalize("NFKC", name).casefold()
    return (
        "".join(char for char in folded if char.isprintable() and char not in " _-\u2010\u2011\u2012\u2013\u2014")
        or name
    )


def questions(counts: Mapping[str, int]) -> list[str]:
    """Return what is to be asked about the names of classes, a sentence or two each.

    Parameters
    ----------
    counts : mapping of str to int
        Images per class.
    """
    names = sorted(counts)
    return [
        *spellings(names),
        *_no_values(names),
        *_contents(names),
        *_several_labels(names),
        *numbers(counts),
        *_only_class(names),
    ]


def spellings(names: Iterable[str]) -> list[str]:
    """Return a question for names that look like one class."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[looks_like(name)].append(name)
    return [
        f"{named(group)}: the same class? They are taken as {len(group)} classes. If they are one, give them one spelling."
        for group in groups.values()
        if len(group) > 1
    ]


def _no_values(names: Iterable[str]) -> list[str]:
    """Return a question for names that stand for no value."""
    found = [
        name for name in names if name.casefold() in NO_VALUE or name == PYTHON_NONE or looks_like(name) in NO_LABEL
    ]
    if not found:
        return []
    return [
        f'{named(found)}: is this "no label"? It is taken as a class. If it means that the label is missing, leave the cell '
        "empty, or move the images out of that folder."
    ]


def _contents(names: Sequence[str]) -> list[str]:
    """Return a question for names that tell what a folder holds."""
    found = [name for name in names if looks_like(name) in CONTENTS]
    if not found or len(names) == 1:  # a single class is asked about anyway
        return []
    return [
        f"{named(found)}: a class, or only what the folder holds? It is taken as a class. If it is none, move the folder out "
        "of the way, or name the labels in a CSV with the columns path and label."
    ]


def _only_class(names: Sequence[str]) -> list[str]:
    """Return a question where there is a single class."""
    if len(names) != 1:
        return []
    return [
        f"{named(names)} is the only class, and a head is fitted on two or more. If the images are "
        "unlabelled, leave the labels empty, or give the folder that holds them directly."
    ]


def _several_labels(names: Iterable[str]) -> list[str]:
    """Return a question for names that are made of other ones: two labels in one cell."""
    known = set(names)
    found = [
        name
        for name in known
        if len(parts := set(_LABEL_SEPARATORS.split(name)) - {""}) > 1 and len(name) > 2 and parts & known
    ]
    if not found:
        return []
    return [
        f"{named(sorted(found))}: several labels of one image? Each combination is taken as a class of its "
        "own. An image has one class here."
    ]


def numbers(counts: Mapping[str, int]) -> list[str]:
    """Return a question where the names are measured values, or every image has a class of its own."""
    n_images, labels = sum(counts.values()), [name for name in counts if _NUMBER.fullmatch(name)]
    fractions = [name for name in labels if not float(name.replace(",", ".")).is_integer()]
    if len(counts) >= MIN_SINGLE and len(counts) == n_images:
        what = "are these numbers a class?" if len(labels) == len(counts) else "is this the column of the classes?"
        return [
            f"{len(counts):,} classes of one image each ({named(sorted(counts))}): {what} No head can be fitted on them."
        ]
    if fractions or (len(labels) >= MIN_SINGLE and 2 * len(labels) > n_images):
        shown = fractions or labels
        return [
            f"{named(sorted(shown))}: are these numbers a class, or a measured quantity? Each is taken as a class of its "
            "own. For a quantity, write the name of its range instead, for example low or high."
        ]
    return []


def named(names: Iterable[str]) -> str:
    """Return the first names, in quotes where one has a space or is empty, and how many more there are."""
    shown = list(names)
    more = f" and {len(shown) - LISTED:,} more" if len(shown) > LISTED else ""
    return ", ".join(name if name and " " not in name else f'"{name}"' for name in shown[:LISTED]) + more
