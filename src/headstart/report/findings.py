"""What a report on the quality of a data set consists of: plain, frozen, free of I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

#: How bad it is: scores are wrong · to be looked at · good to know.
Severity = Literal["error", "warning", "info"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True, slots=True)
class Check:
    """Something that is looked for.

    Attributes
    ----------
    name : str
        For scripts; does not change.
    title, meaning : str
        What it is called, and why it matters and what to do, for a person.
    severity : str
        ``error``, ``warning`` or ``info``.
    unit : str
        What is counted: images, groups, classes.
    """

    name: str
    title: str
    severity: Severity
    meaning: str
    unit: str = "images"


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One image by its path, with its class and split; None where it has none."""

    path: str
    label: str | None = None
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """One case: an image, some that belong together, or a class.

    Attributes
    ----------
    images : tuple of ListedImage
        The first ones of a large group; none for a class.
    detail : str
        What there is to say, in words.
    values : mapping of str to value
        The same in numbers, JSON types.
    """

    images: tuple[ListedImage, ...] = ()
    detail: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    Attributes
    ----------
    check : Check
        What was looked for.
    count : int
        Cases, in the check's unit.
    examples : tuple of Example
        The first cases, the clearest first.
    breakdown : mapping of str to int
        Cases by kind, the most frequent first; empty where there is one kind.
    threshold : str
        From where on it counts, in words; empty where that is no question.
    """

    check: Check
    count: int
    examples: tuple[Example, ...] = ()
    breakdown: Mapping[str, int] = field(default_factory=dict)
    threshold: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, the check's fields among the others."""
        values = asdict(self)
        check: dict[str, Any] = values.pop("check")
        return check | values


@dataclass(frozen=True, slots=True)
class QualityReport:
    """What is odd about the images of a cache.

    Attributes
    ----------
    cache : str
        Path of the cache.
    n_images, n_failures : int
        Images with features, and images that could not be read.
    findings : tuple of Finding
        The worst first; each has at least one case.
    passed : tuple of str
        Titles of the checks that found nothing.
    skipped : mapping of str to str
        Titles of what could not be checked, and why.
    thumbnails : mapping of str to bytes
        Path → small JPEG, of listed images; empty without the folder of images.
    thumbnails_missing : str
        Why there are none, or not all.
    """

    cache: str
    n_images: int
    n_failures: int
    findings: tuple[Finding, ...]
    passed: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    thumbnails: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    thumbnails_missing: str = ""

    def __getitem__(self, name: str) -> Finding:
        """Return the finding of a name; KeyError where nothing was found."""
        return {finding.check.name: finding for finding in self.findings}[name]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, without the thumbnails."""
        return {
            "cache": self.cache,
            "n_images": self.n_images,
            "n_failures": self.n_failures,
            "findings": [finding.to_dict() for finding in self.findings],
            "passed": list(self.passed),
            "skipped": dict(self.skipped),
        }
