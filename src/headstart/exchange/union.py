"""What several caches say together of their images, and where they contradict each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from headstart.cache.merge import MergedRow

if TYPE_CHECKING:
    from headstart.cache.store import FeatureCache
    from headstart.schema import Failure, ImageRef

#: What two caches may say differently of one image.
FIELDS = ("label", "split", "group")

Labels = dict[str, set[str]]


@dataclass(slots=True)
class Union:
    """The rows of several caches by path; where they contradict each other the later one is right.

    Attributes
    ----------
    rows : dict of str to MergedRow
        Path → where its features come from, and what is said of it.
    sha256 : dict of str to str
        Path → digest of the image.
    labels : dict of str to set of str
        Digest → the classes that the image is said to be of.
    conflicts : dict of str to str
        Path → in words, what is contradicted.
    unresolved : list of str
        In words, contradictions that no order of caches resolves.
    n_shared : int
        Rows that stood in an earlier cache already, alike.
    """

    rows: dict[str, MergedRow] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)
    labels: Labels = field(default_factory=dict)
    conflicts: dict[str, str] = field(default_factory=dict)
    unresolved: list[str] = field(default_factory=list)
    n_shared: int = 0

    def add(self, number: int, cache: FeatureCache) -> None:
        """Add the rows of the next cache."""
        refs, digests = cache.refs(), cache.sha256
        for row, (ref, digest) in enumerate(zip(refs, digests, strict=True)):
            self._add_row(MergedRow(number, row, ref), digest, cache)
        self._add_labels(labels_by_image(refs, digests), dict(zip(digests, refs, strict=True)), cache)

    def _add_row(self, new: MergedRow, digest: str, cache: FeatureCache) -> None:
        path = new.ref.path
        old = self.rows.get(path)
        if old is not None and self.sha256[path] != digest:
            self.conflicts[path] = f"other bytes in {cache.path} than before"
        elif old is not None:
            self.n_shared += 1
            contradicted = [name for name in FIELDS if differ(old.ref, new.ref, name)]
            if contradicted:
                self.conflicts[path] = "; ".join(
                    f"{name} {getattr(new.ref, name)} in {cache.path}, {getattr(old.ref, name)} before"
                    for name in contradicted
                )
            known = {name: getattr(new.ref, name) or getattr(old.ref, name) for name in FIELDS}
            new = MergedRow(old.source, old.row, replace(new.ref, **known))
        self.rows[path], self.sha256[path] = new, digest

    def _add_labels(self, labels: Labels, examples: Mapping[str, ImageRef], cache: FeatureCache) -> None:
        """Compare the classes of equal images, under whatever path."""
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
        """Yield the rows; equal images under other paths get the label of the later cache too."""
        for path, row in self.rows.items():
            said = self.labels.get(self.sha256[path], set())
            if row.ref.label is None or row.ref.label in said:
                yield row
            elif len(said) == 1:
                yield row._replace(ref=replace(row.ref, label=next(iter(said))))
            else:
                self.unresolved.append(f"{path}: {row.ref.label} or {' or '.join(sorted(said))}")


def differ(old: ImageRef, new: ImageRef, name: str) -> bool:
    """Return whether two rows say different things; silence contradicts nothing."""
    return None not in {getattr(old, name), getattr(new, name)} and getattr(old, name) != getattr(new, name)


def labels_by_image(refs: Sequence[ImageRef], digests: Sequence[str]) -> Labels:
    """Return digest → classes, of one cache; unlabelled rows say nothing."""
    found: Labels = {}
    for ref, digest in zip(refs, digests, strict=True):
        if ref.label is not None:
            found.setdefault(digest, set()).add(ref.label)
    return found


def united_classes(caches: Sequence[FeatureCache]) -> list[str]:
    """Return the names of all classes: sorted where each cache has them sorted, else as they come."""
    names = list(dict.fromkeys(name for cache in caches for name in cache.class_names))
    return sorted(names) if all(list(c.class_names) == sorted(c.class_names) for c in caches) else names


def united_failures(caches: Sequence[FeatureCache], rows: Mapping[str, MergedRow]) -> list[Failure]:
    """Return the images that no cache could read, each once."""
    failures = {failure.ref.path: failure for cache in caches for failure in cache.failures}
    return [failure for path, failure in failures.items() if path not in rows]
