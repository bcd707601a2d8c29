"""Questions about class names that may be mistakes.

Names that differ only in Unicode normalization or in spaces at their ends are one class. Everything else is asked about,
since only a person can decide: ``Cat`` and ``cat``, ``nan``, ``0.137``.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping

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
LISTED = 5

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
        shown = fractions or labels
        return [
            f"{named(sorted(shown))}: are these numbers a class, or a measured quantity? Each is taken as a class of its "
            "own. For a quantity, write the name of its range instead, for example low or high."
        ]
    return []


def named(names: Iterable[str]) -> str:
    """Return the first names, in quotes if a name has spaces or is empty, and the number of further ones."""
    shown = list(names)
    more = f" and {len(shown) - LISTED:,} more" if len(shown) > LISTED else ""
    return ", ".join(name if name and " " not in name else f'"{name}"' for name in shown[:LISTED]) + more
