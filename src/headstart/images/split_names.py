"""Which names of folders, and cells of tables, mean a split: ``Testing``, ``seg_pred`` and ``images_val2017`` do."""

from __future__ import annotations

import re
import unicodedata

#: Word → the split that it means.
WORDS = {
    "train": "train", "training": "train", "trainval": "train", "trn": "train",
    "val": "validation", "valid": "validation", "validate": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test", "tst": "test", "holdout": "test", "heldout": "test", "eval": "test",
    "evaluation": "test", "pred": "test", "prediction": "test", "predictions": "test", "predict": "test",
}  # fmt: skip

#: Words that stand beside one of them and change nothing: ``training_set``, ``seg_train``, ``single_prediction``.
FILLERS = (
    "set", "sets", "data", "images?", "imgs?", "photos?", "pictures?", "pics?", "samples?", "files?", "folder", "split",
    "seg", "single", "raw", "resized", "cropped", "augmented", "clean(?:ed)?", "orig(?:inal)?",
)  # fmt: skip

_FILLER = f"(?:{'|'.join(FILLERS)})*"

#: A name without its separators and digits that means a split.
_NAME = re.compile(f"{_FILLER}({'|'.join(sorted(WORDS, key=len, reverse=True))}){_FILLER}")

#: Longer names are not looked at: no folder is called so.
_MAX_LENGTH = 100

#: Separators and digits.
_BETWEEN = re.compile(r"[\W\d_]+")

#: The words of a name, cut where a capital follows a small letter as well.
_WORD = re.compile(r"[A-Z]+(?![a-z])|[^\W\d_](?:(?![A-Z])[^\W\d_])*")


def split_of(name: str) -> str | None:
    """Return the split that a name means, ``train``, ``validation`` or ``test``; None where it means none.

    Case, separators and digits do not matter, nor do words as ``set`` and ``images``.

    Examples
    --------
    >>> split_of("training_set"), split_of("test1"), split_of("Val"), split_of("train station")
    ('train', 'test', 'validation', None)
    """
    letters = _BETWEEN.sub("", unicodedata.normalize("NFKC", name[:_MAX_LENGTH]).casefold())
    found = _NAME.fullmatch(letters)
    return WORDS[found[1]] if found else None


def mentioned_split(name: str) -> str | None:
    """Return the split whose word a name begins or ends with, as ``cats_train``; None where it does with none."""
    words = [word.casefold() for word in _WORD.findall(name[:_MAX_LENGTH])]
    return next((WORDS[word] for word in (*words[:1], *words[-1:]) if word in WORDS), None)
