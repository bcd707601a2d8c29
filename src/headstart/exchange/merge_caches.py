"""Merge several caches of one recipe, and report conflicts between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.cache.merge import MergedRow, MergedRows, merge
from headstart.cache.reader import FeatureCache, open_cache
from headstart.cache.shards import MANIFEST
from headstart.errors import DataError, HeadstartError, RecipeMismatchError
from headstart.exchange import check_new_cache
from headstart.images.discovery.refs import ImageRefs
from headstart.texts import listed
from headstart.types import ImageRef

#: Fields that may be in conflict, with their values for nothing given.
FIELDS: Mapping[str, Any] = {"label": None, "split": None, "group": None, "weight": 1.0, "target": None}

Labels = dict[str, set[str]]

#: Treatments of conflicts.
ON_CONFLICT = ("refuse", "later")

#: Contradictions that are told before the rest is counted.
LISTED = 5

#: Source names kept as provenance.
MAX_NAMES = 50


@dataclass(slots=True)
class Union:
    """The rows of several caches by path; in conflicts the later cache takes precedence."""

    rows: dict[str, MergedRow] = field(default_factory=dict)  # path → source of its features, and description
    sha256: dict[str, str] = field(default_factory=dict)  # path → digest of the image
    labels: Labels = field(default_factory=dict)  # digest → classes given to the image
    conflicts: dict[str, str] = field(default_factory=dict)  # path → description of the conflict
    unresolved: list[str] = field(default_factory=list)  # conflicts that the order of the caches does not resolve
    n_shared: int = 0  # rows that an earlier cache also holds

    def add(self, number: int, cache: FeatureCache) -> None:
        """Add the rows of the next cache."""
        refs, digests = cache.refs(), cache.sha256
        labels: Labels = {}
        for row, (ref, digest) in enumerate(zip(refs, digests, strict=True)):
            self._add_row(MergedRow(number, row, ref), digest, cache)
            if ref.label is not None:
                labels.setdefault(digest, set()).add(ref.label)
        self._add_labels(labels, dict(zip(digests, refs, strict=True)), cache)

    def _add_row(self, new: MergedRow, digest: str, cache: FeatureCache) -> None:
        path = new.ref.path
        old = self.rows.get(path)
        if old is not None and self.sha256[path] != digest:
            self.conflicts[path] = f"other bytes in {cache.path} than before"
        elif old is not None:
            self.n_shared += 1
            fields = [(name, unset, getattr(old.ref, name), getattr(new.ref, name)) for name, unset in FIELDS.items()]
            contradicted = [
                f"{name} {later} in {cache.path}, {earlier} before"
                for name, unset, earlier, later in fields
                if unset not in {earlier, later} and earlier != later
            ]
            if contradicted:
                self.conflicts[path] = "; ".join(contradicted)
            known = {name: earlier if later == unset else later for name, unset, earlier, later in fields}
            new = MergedRow(old.source, old.row, replace(new.ref, **known))
        self.rows[path], self.sha256[path] = new, digest

    def _add_labels(self, labels: Labels, examples: Mapping[str, ImageRef], cache: FeatureCache) -> None:
        """Compare the classes of identical images under different paths."""
        for digest, new in labels.items():
            old = self.labels.get(digest, set())
            if old <= new or new <= old:  # a contradiction within one cache is not one between them
                self.labels[digest] = old | new
                continue
            self.labels[digest] = new
            self.conflicts.setdefault(
                examples[digest].path,
                f"label {' and '.join(sorted(new))} in {cache.path}, {' and '.join(sorted(old))} for the same image before",
            )

    def resolved(self) -> Iterator[MergedRow]:
        """Yield the rows; identical images under other paths get the label of the later cache too."""
        for path, row in self.rows.items():
            said = self.labels.get(self.sha256[path], set())
            if row.ref.label is None or row.ref.label in said:
                yield row
            elif len(said) == 1:
                yield row._replace(ref=replace(row.ref, label=next(iter(said))))
            else:
                self.unresolved.append(f"{path}: {row.ref.label} or {' or '.join(sorted(said))}")


def _united_classes(caches: Sequence[FeatureCache]) -> list[str]:
    """Return the names of all classes: sorted if sorted in each cache, otherwise in order of appearance."""
    names = list(dict.fromkeys(name for cache in caches for name in cache.class_names))
    return sorted(names) if all(list(c.class_names) == sorted(c.class_names) for c in caches) else names


@dataclass(frozen=True, slots=True)
class Merged:
    """The result of a merge."""

    output: Path  # the new cache
    n_images: int
    n_failures: int  # images that could not be read
    n_shared: int  # rows that were in more than one cache
    class_names: tuple[str, ...]
    resolved: Mapping[str, str]  # path → description of a conflict in which the later cache took precedence


def merge_caches(
    sources: Sequence[str | Path], output: str | Path, *, on_conflict: str = "refuse", overwrite: bool = False
) -> Merged:
    """Merge caches into one; features are copied as stored.

    A path in several caches with the same bytes becomes one row; a label, split, group, weight or target missing in one is
    taken from another.

    Parameters
    ----------
    sources : sequence of str or Path
        At least two caches of one recipe; or one folder of shards, to be written as a file.
    output : str or Path
        The new cache; with ``overwrite`` it may exist, and be one of the sources.
    on_conflict : str
        If caches differ in the bytes, label, split, group, weight or target of a path, or in the label of identical images:
        ``refuse``, or ``later``, by which the later cache takes precedence.

    Raises
    ------
    RecipeMismatchError
        If the caches were made by different recipes; the message names the fields.
    DataError
        If caches contradict each other; the message has examples.
    CacheError
        If one cannot be read, or the new one cannot be written.

    Examples
    --------
    >>> merge_caches(["monday.h5", "tuesday.h5"], "features/week.h5")                  # doctest: +SKIP
    """
    target = Path(output)
    _check_arguments(sources, target, on_conflict, overwrite)
    if len(sources) == 1:
        return _one_file_of(Path(sources[0]), target)
    with ExitStack() as stack:
        caches = [stack.enter_context(open_cache(source)) for source in sources]
        _check_recipes(caches)
        union = Union()
        for number, cache in enumerate(caches):
            union.add(number, cache)
        if union.conflicts and on_conflict == "refuse":
            raise DataError(_conflict_message(union.conflicts))
        rows, names = list(union.resolved()), _united_classes(caches)
        if union.unresolved:
            examples = listed(union.unresolved, LISTED, " · ")
            raise DataError(
                f"The later cache itself gives one image two labels: {examples}. Correct the labels and extract again; only "
                "the labels will change."
            )
        failed = {failure.ref.path: failure for cache in caches for failure in cache.failures}
        failures = [failure for path, failure in failed.items() if path not in union.rows]
        layouts = {cache.layout for cache in caches}
        layout = layouts.pop() if len(layouts) == 1 else ""
        merge(
            target, sources=caches, rows=rows, failures=failures, class_names=names, layout=layout, info=_provenance(caches)
        )  # fmt: skip
    return Merged(target, len(rows), len(failures), union.n_shared, tuple(names), union.conflicts)


def _one_file_of(folder: Path, target: Path) -> Merged:
    """Write a folder of shards as one file; features are copied as stored."""
    with open_cache(folder) as cache:
        refs, numbers = ImageRefs.of(cache.iter_refs()), np.arange(cache.n_images)
        merge(
            target,
            sources=[cache],
            rows=MergedRows(np.zeros(len(refs), np.int32), numbers, refs),
            failures=cache.failures,
            class_names=cache.class_names,
            layout=cache.layout,
            info=cache.info,
        )
        return Merged(target, len(refs), len(cache.failures), 0, cache.class_names, {})


def _check_arguments(sources: Sequence[str | Path], target: Path, on_conflict: str, overwrite: bool) -> None:
    """Raise for invalid arguments, before anything is read."""
    if on_conflict not in ON_CONFLICT:
        raise HeadstartError(f"on_conflict is {' or '.join(ON_CONFLICT)}. Received: {on_conflict!r}.")
    if not sources or (len(sources) == 1 and not (Path(sources[0]).is_dir() or Path(sources[0]).name == MANIFEST)):
        raise DataError("Name at least two caches to merge, or one folder of shards to write as a file.")
    check_new_cache(target, overwrite)


def _check_recipes(caches: Sequence[FeatureCache]) -> None:
    first = caches[0]
    for cache in caches[1:]:
        differences = first.recipe.differences(cache.recipe)
        if differences:
            raise RecipeMismatchError(
                f"{first.path} and {cache.path} were made by different recipes (first ≠ second): "
                f"{'; '.join(differences)}. Extract the images of one of them again with the recipe of the other."
            )


def _conflict_message(conflicts: Mapping[str, str]) -> str:
    images = "one image" if len(conflicts) == 1 else f"{len(conflicts):,} images"
    examples = listed((f"{path}: {words}" for path, words in conflicts.items()), LISTED, " · ")
    return (
        f"The caches contradict each other about {images}, so nothing was written. {examples}. "
        "Correct them and extract again, or give precedence to later caches: `on_conflict='later'`."
    )


def _provenance(caches: Sequence[FeatureCache]) -> dict[str, Any]:
    """Return the names of the sources, and what they have in common."""
    reasons = {str(cache.info.get("precision_reason", "")) for cache in caches}
    info: dict[str, Any] = {"merged_from": [cache.path.name for cache in caches[:MAX_NAMES]], "n_merged": len(caches)}
    if len(reasons) == 1 and reasons != {""}:
        info["precision_reason"] = reasons.pop()
    return info
