"""Caches of one recipe become one, and no contradiction is passed over in silence."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caches import RECIPE, failure, make_batch, write_cache
from headstart.cache.merge import MergedRows, publish_shards
from headstart.cache.reader import open_cache
from headstart.cache.shards import ShardFolder
from headstart.cache.writer import ShardWriter
from headstart.errors import DataError, HeadstartError, RecipeMismatchError
from headstart.exchange.merge_caches import merge_caches
from headstart.images.discovery.refs import ImageRefs
from headstart.types import Failure, ImageRef, ImageRow

pytestmark = pytest.mark.slow

#: Path, number of the image (its features and digest follow from it), label, split, group.
Said = tuple[str, int, str | None, str | None, str | None]


def cache_of(path: Path, said: Sequence[Said], names: Sequence[str] | None = None, **options: Any) -> Path:
    """Write a cache that says this."""
    failures = options.pop("failures", ())
    names = names or sorted({label for _, _, label, _, _ in said if label})
    with ShardWriter(path, recipe=options.pop("recipe", RECIPE), class_names=names, **options) as writer:
        for place, number, label, split, group in said:
            ref = ImageRef(place, label, split, group, 5, 6)
            writer.append(make_batch([number]), [ImageRow(ref, digest(number), 10, 10, ("alpha-on-white",))])
        for one in failures:
            writer.add_failure(one)
    return path


def digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def says(path: Path) -> dict[str, tuple[Any, ...]]:
    """Return path → digest, label, split, group, features, of a cache in which every path stands once."""
    with open_cache(path) as cache:
        features = [row.tobytes() for batch in cache.batches() for row in batch.features]
        refs = cache.refs()
        assert len({ref.path for ref in refs}) == len(refs)
        return {
            ref.path: (sha, ref.label, ref.split, ref.group, values)
            for ref, sha, values in zip(refs, cache.sha256, features, strict=True)
        }


def row(number: int, label: str | None = None, split: str | None = None, group: str | None = None) -> tuple[Any, ...]:
    features = make_batch([number]).features.astype(np.float16)
    return (digest(number), label, split, group, features.tobytes())


A: list[Said] = [("a/1", 1, "ants", "train", "g"), ("b/2", 2, "bees", "train", None), ("a/3", 3, "ants", None, None)]


def merged(folder: Path, *caches: Sequence[Said], **options: Any) -> Path:
    paths = [cache_of(folder / f"{'abcd'[i]}.h5", said) for i, said in enumerate(caches)]
    return merge_caches(paths, folder / "out.h5", **options).output


def test_classes_are_united_and_chunks_are_copied(tmp_path: Path) -> None:
    other: list[Said] = [("c/4", 4, "aphids", "test", "h"), ("b/5", 5, "bees", None, None)]
    output = merged(tmp_path, A, other)
    with open_cache(output) as cache, open_cache(tmp_path / "a.h5") as a, open_cache(tmp_path / "b.h5") as b:
        assert cache.class_names == ("ants", "aphids", "bees")
        assert cache.labels.tolist() == [0, 2, 0, 1, 2]
        stored = [a.read_chunk("features", i) for i in range(3)] + [b.read_chunk("features", i) for i in range(2)]
        assert [cache.read_chunk("features", i) for i in range(5)] == stored
        assert list(cache.rows.notes) == [("alpha-on-white",)] * 5
        assert cache.info["merged_from"] == ["a.h5", "b.h5"]
    assert says(output) == says(tmp_path / "a.h5") | says(tmp_path / "b.h5")


def test_classes_in_an_order_of_their_own_keep_it(tmp_path: Path) -> None:
    a = cache_of(tmp_path / "a.h5", A, names=("bees", "ants"))
    b = cache_of(tmp_path / "b.h5", [("w/4", 4, "aphids", None, None)])
    assert merge_caches([a, b], tmp_path / "out.h5").class_names == ("bees", "ants", "aphids")


def test_one_image_stands_once_and_silence_is_filled_in(tmp_path: Path) -> None:
    other: list[Said] = [
        ("a/3", 3, None, "test", "g3"),
        ("b/2", 2, "bees", None, None),
        ("copy/1", 1, "ants", None, None),
    ]
    output = merged(tmp_path, A, other)
    assert says(output) == {
        "a/1": row(1, "ants", "train", "g"),
        "b/2": row(2, "bees", "train"),
        "a/3": row(3, "ants", "test", "g3"),
        "copy/1": row(1, "ants"),
    }
    result = merge_caches([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "out2.h5")
    assert (result.n_images, result.n_shared, result.resolved) == (4, 2, {})


@pytest.mark.parametrize(
    ("said", "words", "expected"),
    [
        (("a/1", 9, "ants", "train", "g"), r"a/1: other bytes in .*b\.h5", row(9, "ants", "train", "g")),
        (("a/1", 1, "bees", "train", "g"), r"a/1: label bees in .*b\.h5, ants before", row(1, "bees", "train", "g")),
        (("a/1", 1, "ants", "test", "g"), r"a/1: split test in .*, train before", row(1, "ants", "test", "g")),
        (("a/1", 1, None, None, "h"), r"a/1: group h in .*, g before", row(1, "ants", "train", "h")),
    ],
)
def test_contradictions_are_refused_or_the_later_is_right(
    tmp_path: Path, said: Said, words: str, expected: tuple[Any, ...]
) -> None:
    with pytest.raises(DataError, match=f"about one image.*{words}.*on_conflict='later'"):
        merged(tmp_path, A, [said])
    assert not (tmp_path / "out.h5").exists()
    assert says(merged(tmp_path, A, [said], on_conflict="later"))["a/1"] == expected


def test_equal_images_under_other_paths_contradict_each_other_too(tmp_path: Path) -> None:
    other: list[Said] = [("b/other", 1, "bees", None, None)]
    with pytest.raises(DataError, match=r"b/other: label bees in .*, ants for the same image before"):
        merged(tmp_path, A, other)
    found = says(merged(tmp_path, A, other, on_conflict="later"))
    assert (found["a/1"][1], found["b/other"][1]) == ("bees", "bees")


def test_what_one_cache_contradicts_in_itself_is_not_between_caches(tmp_path: Path) -> None:
    odd: list[Said] = [("a/1", 1, "ants", None, None), ("b/1", 1, "bees", None, None)]
    assert len(says(merged(tmp_path, A, odd))) == 4


def test_a_later_cache_that_contradicts_itself_is_not_believed(tmp_path: Path) -> None:
    odd: list[Said] = [("x/1", 1, "bees", None, None), ("y/1", 1, "wasps", None, None)]
    with pytest.raises(DataError, match="a/1: ants or bees or wasps"):
        merged(tmp_path, A, odd, on_conflict="later")


def test_many_contradictions_are_counted(tmp_path: Path) -> None:
    many: list[Said] = [(f"a/{i}", i, "ants", None, None) for i in range(8)]
    with pytest.raises(DataError, match=r"about 8 images.* · and 3 more"):
        merged(tmp_path, many, [(path, i + 20, *rest) for path, i, *rest in many])  # type: ignore[misc]


def test_other_recipes_are_refused_with_the_fields(tmp_path: Path) -> None:
    a = cache_of(tmp_path / "a.h5", A)
    b = cache_of(tmp_path / "b.h5", A, recipe=replace(RECIPE, precision="bfloat16", input_size_px=9))
    with pytest.raises(RecipeMismatchError, match=r"input_size_px: 8 ≠ 9; precision: float32 ≠ bfloat16"):
        merge_caches([a, b], tmp_path / "out.h5")


def test_failures_stay_unless_another_cache_could_read_the_image(tmp_path: Path) -> None:
    read = Failure(ImageRef("a/1", "ants", None, None, 1, 1), "was broken")
    a = cache_of(tmp_path / "a.h5", [("b/2", 2, "bees", None, None)], failures=[failure(), read])
    b = cache_of(tmp_path / "b.h5", A, failures=[failure()])
    assert merge_caches([a, b], tmp_path / "out.h5").n_failures == 1
    with open_cache(tmp_path / "out.h5") as cache:
        assert cache.failures == (failure(),)


def test_the_output_may_be_a_source(tmp_path: Path) -> None:
    a, b = cache_of(tmp_path / "a.h5", A), cache_of(tmp_path / "b.h5", [("b/5", 5, "bees", None, None)])
    with pytest.raises(DataError, match="overwrite=True"):
        merge_caches([a, b], a)
    merge_caches([a, b], a, overwrite=True)
    assert len(says(a)) == 4


def test_other_compression_is_compressed_again(tmp_path: Path) -> None:
    a = write_cache(tmp_path / "a.h5", range(4))
    b = write_cache(tmp_path / "b.h5", range(4, 9), compression="gzip")
    merge_caches([a, b], tmp_path / "out.h5")
    assert says(tmp_path / "out.h5") == says(a) | says(b)


@pytest.mark.parametrize(
    ("sources", "options", "words"),
    [
        (["a.h5"], {}, "at least two caches"),
        (["a.h5", "absent.h5"], {}, "no cache at"),
        (["a.h5", "a.h5"], {"output": "out.npz"}, r"ends in \.h5"),
        (["a.h5", "a.h5"], {"on_conflict": "first"}, "refuse or later"),
    ],
)
def test_arguments_are_looked_at(tmp_path: Path, sources: list[str], options: dict[str, Any], words: str) -> None:
    cache_of(tmp_path / "a.h5", A)
    given = {"output": "out.h5", **options}
    with pytest.raises(HeadstartError, match=words):
        merge_caches([tmp_path / name for name in sources], tmp_path / given.pop("output"), **given)


ROWS = st.lists(
    st.tuples(
        st.sampled_from("pqrs"), st.integers(0, 2), st.sampled_from(["x", "y", None]), st.sampled_from(["train", None]),
        st.none(),
    ),
    min_size=1, max_size=4, unique_by=lambda said: said[0],
)  # fmt: skip


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=ROWS, second=ROWS)
def test_a_merge_says_nothing_that_neither_cache_said(tmp_path: Path, first: list[Said], second: list[Said]) -> None:
    a, b = cache_of(tmp_path / "a.h5", first), cache_of(tmp_path / "b.h5", second)
    try:
        merge_caches([a, b], tmp_path / "out.h5", overwrite=True)
    except DataError as error:
        assert "contradict" in str(error)  # noqa: PT017
        return
    before, after = (says(a), says(b)), says(tmp_path / "out.h5")
    assert set(after) == set(before[0]) | set(before[1])
    for path, found in after.items():
        said = [one[path] for one in before if path in one]
        for position, value in enumerate(found):
            assert {one[position] for one in said} - {None} == ({value} - {None})


def test_a_folder_of_shards_becomes_a_file_that_says_the_same(tmp_path: Path) -> None:
    folder, said = tmp_path / "data", ("a.jpg", 1, "ants", "train", "g")
    folder.mkdir()
    shards = [cache_of(folder / f"{number:020d}.h5", [(f"{number}.jpg", number, *said[2:])]) for number in (1, 2)]
    refs = [ImageRef("b.jpg", "ants", None, "g", 5, 6), ImageRef("a.jpg", "ants", "test", None, 5, 6)]
    rows = MergedRows(np.array([1, 0], np.int32), np.zeros(2, np.int64), ImageRefs.of(refs))
    publish_shards(
        ShardFolder(folder), sources=shards, rows=rows, failures=[failure()], class_names=["ants", "bees"], layout="flat",
        info={"precision_reason": "test"},
    )  # fmt: skip
    merged = merge_caches([folder], tmp_path / "one.h5")
    assert (merged.n_images, merged.n_failures) == (2, 1)
    assert (
        says(tmp_path / "one.h5")
        == says(folder)
        == {"b.jpg": row(2, "ants", None, "g"), "a.jpg": row(1, "ants", "test")}
    )
    with open_cache(tmp_path / "one.h5") as one, open_cache(folder) as many:
        assert (one.class_names, one.layout, one.info) == (many.class_names, many.layout, many.info)
    both = merge_caches([folder, tmp_path / "one.h5"], tmp_path / "both.h5")
    assert (both.n_images, both.n_shared) == (2, 2)
