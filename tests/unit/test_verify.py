"""verify with the images: what a file that is whole can still be wrong about."""

from __future__ import annotations

import os
import shlex
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from caches import CLASS_NAMES, RECIPE, make_batch, write_cache
from fakes import FakeBackbone, FakeNetwork
from headstart import repair
from headstart.backbones.vgg16 import VGG16
from headstart.cache.integrity import Finding
from headstart.cache.reader import open_cache
from headstart.cache.writer import ShardWriter
from headstart.errors import DataError, RecipeMismatchError
from headstart.extract import run
from headstart.extract.run import extract_features
from headstart.types import FeatureBatch
from headstart.verify import FOREIGN, IMAGE, Verification, remedies, verify_cache
from pictures import class_folders

pytestmark = pytest.mark.slow


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "photos", n_per_class=5)


@pytest.fixture
def cache(data: Path, tmp_path: Path) -> Path:
    return extract(data, tmp_path / "a.h5")


class WrongBackbone(FakeBackbone):
    """Says the right recipe and prepares the pixels wrongly."""

    def __init__(self, mistake: str) -> None:
        super().__init__()
        self.mistake = mistake

    def forward(self, images: NDArray[np.uint8]) -> FeatureBatch:
        if self.mistake == "channels reversed":
            return super().forward(images[..., ::-1])
        batch = super().forward(images)
        return FeatureBatch(
            batch.features / 255, batch.pooled / 255, batch.pooled_column_layer
        )  # the fake is linear in its pixels


def extract(data: Path, path: Path, mistake: str = "") -> Path:
    network = FakeNetwork()
    if mistake:
        network.made = WrongBackbone(mistake)
    extract_features(data, path, network=network)  # type: ignore[arg-type]
    return path


def check(path: Path, data: Path, **options: Any) -> Verification:
    return verify_cache(path, data, backbone=FakeBackbone(), **options)


def test_a_good_cache_agrees_with_its_images(cache: Path, data: Path) -> None:
    found = check(cache, data, n_sample=6)
    assert found.findings == ()
    assert (found.n_images, found.n_recomputed, found.not_compared) == (10, 6, "")
    assert found.lowest_cosine > 0.99999
    assert 0 < found.largest_error < 1e-3  # float16


@pytest.mark.parametrize("mistake", ["channels reversed", "divided by 255"])
def test_wrong_preprocessing_is_found_and_said(data: Path, tmp_path: Path, mistake: str) -> None:
    path = extract(data, tmp_path / "wrong.h5", mistake)
    assert verify_cache(path).findings == ()  # nothing in the file tells
    found = check(path, data, n_sample=4)
    last = found.findings[-1]
    assert last.place == "recipe"
    assert "none of the 4 rows computed again agrees" in last.what
    assert "preprocessing" in last.what
    assert {finding.place for finding in found.findings} == {"/features", "/pooled", "recipe"}


def test_one_wrong_row_is_named_and_the_recipe_is_not_accused(cache: Path, data: Path, tmp_path: Path) -> None:
    """As by a machine with a faulty memory: the digest of the row was made of what it computed."""
    path = tmp_path / "b.h5"
    with open_cache(cache) as good:
        batch = next(good.batches())
        features = batch.features.copy()
        features[3] = np.roll(features[3], 1, axis=0)
        with ShardWriter(path, recipe=good.recipe, class_names=good.class_names) as writer:
            rows = [replace(row, ref=ref) for row, ref in zip(image_rows(good), good.refs(), strict=True)]
            writer.append(replace(batch, features=features), rows)
        image = good.paths[3]
    found = check(path, data, n_sample=10).findings
    assert [(f.place, f.row, f.image) for f in found] == [("/features", 3, image)]
    assert "cosine" in found[0].received


def image_rows(cache: Any) -> list[Any]:
    from headstart.types import ImageRow

    sizes = zip(cache.rows.width_px.tolist(), cache.rows.height_px.tolist(), strict=True)
    return [
        ImageRow(ref, digest, width, height, ())
        for ref, digest, (width, height) in zip(cache.refs(), cache.sha256, sizes, strict=True)
    ]


def test_missing_changed_and_unreadable_images_are_listed_and_not_recomputed(cache: Path, data: Path) -> None:
    (data / "ant/001.png").unlink()
    (data / "ant/003.png").unlink()
    (data / "ant/003.png").mkdir()
    (data / "bee/002.png").write_bytes((data / "bee/003.png").read_bytes())
    found = check(cache, data, n_sample=100)
    assert [(f.place, f.image) for f in found.findings] == [
        ("image", "ant/001.png"), ("image", "ant/003.png"), ("image", "bee/002.png"),
    ]  # fmt: skip
    assert ["gone" in found.findings[0].what, "a folder" in found.findings[1].what] == [True, True]
    assert "its bytes are not those" in found.findings[2].what
    assert found.n_recomputed == 7


def test_a_copy_of_the_folder_with_other_times_is_the_same(cache: Path, data: Path) -> None:
    for path in data.rglob("*.png"):
        os.utime(path, (1, 1))
    assert check(cache, data).findings == ()


def test_the_seed_says_which_rows(cache: Path, data: Path) -> None:
    def rows_of(seed: int) -> list[int | None]:
        path = extract(data, cache.with_name("wrong.h5"), "channels reversed")
        found = check(path, data, n_sample=3, seed=seed).findings
        return [finding.row for finding in found if finding.place == "/features"]

    assert rows_of(1) == rows_of(1)
    assert len({tuple(rows_of(seed)) for seed in range(4)}) > 1


def test_damaged_rows_are_left_out_of_the_comparison(cache: Path, data: Path) -> None:
    with open_cache(cache) as opened:
        stored = opened.read_chunk("pooled", 2)[1]
    damaged = bytearray(cache.read_bytes())
    damaged[damaged.index(stored)] ^= 1
    cache.write_bytes(damaged)
    found = check(cache, data, n_sample=100)
    assert [(f.place, f.row) for f in found.findings] == [("/pooled", 2)]
    assert found.n_recomputed == 9


def test_a_file_that_cannot_be_opened_gives_its_findings(cache: Path, data: Path) -> None:
    cache.write_bytes(cache.read_bytes()[:3000])
    found = check(cache, data)
    assert [finding.place for finding in found.findings] == ["file"]
    assert "The images were not compared" in found.not_compared


def test_features_made_elsewhere_are_not_computed_again_and_that_is_said(tmp_path: Path) -> None:
    path = write_cache(tmp_path / "foreign.h5", range(3))
    found = verify_cache(path, tmp_path)
    assert "foreign:test" in found.not_compared
    assert {finding.place for finding in found.findings} == {"image"}  # none of them is there


def test_wrong_arguments_are_refused(cache: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        verify_cache(cache, cache)
    foreign = tmp_path / "foreign.h5"
    image = next(data.rglob("*.png"))
    with ShardWriter(foreign, recipe=RECIPE, class_names=CLASS_NAMES) as writer, open_cache(cache) as opened:
        row = next(row for row in image_rows(opened) if row.ref.path == image.relative_to(data).as_posix())
        writer.append(make_batch([0]), [replace(row, ref=replace(row.ref, label=None))])
    with pytest.raises(RecipeMismatchError, match="other features"):
        check(foreign, data)


def follow(commands: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run commands as they are written, with the fake network; return their names and options at the end."""
    from headstart_cli.app import make_app

    monkeypatch.setattr(run, "extract_features", partial(extract_features, network=FakeNetwork()))  # type: ignore[arg-type]
    monkeypatch.setattr(repair, "build_backbone", lambda *_arguments, **_options: FakeBackbone())
    done = []
    for command in commands:
        name, *arguments = [word for word in shlex.split(command) if word != "headstart"]
        make_app(name)(arguments, standalone_mode=False)
        done.append(" ".join([name, *(word for word in arguments[-1:] if word.startswith("--"))]))
    return done


def swap_images(cache: Path, data: Path) -> None:
    names = (data / "ant" / "000.png", data / "bee" / "001.png")
    first, second = (name.read_bytes() for name in names)
    for name, content in zip(names, (second, first), strict=True):
        name.write_bytes(content)


def lose_an_image(cache: Path, data: Path) -> None:
    (data / "ant" / "000.png").unlink()


def damage_a_row(cache: Path, data: Path) -> None:
    file = cache if cache.is_file() else next(cache.glob("*.h5"))
    with open_cache(file) as opened:
        stored = opened.read_chunk("pooled", 2)[1]
    damaged = bytearray(file.read_bytes())
    damaged[damaged.index(stored)] ^= 1
    file.write_bytes(damaged)


def damage_and_swap(cache: Path, data: Path) -> None:
    damage_a_row(cache, data)
    swap_images(cache, data)


def compute_wrongly(cache: Path, data: Path) -> None:
    shutil.rmtree(cache) if cache.is_dir() else cache.unlink()
    network = FakeNetwork()
    network.made = WrongBackbone("channels reversed")
    layout = "file" if cache.suffix else "shards"
    extract_features(data, cache, network=network, cache_layout=layout)  # type: ignore[arg-type]


def cut(cache: Path, data: Path) -> None:
    file = cache if cache.is_file() else cache / "cache.manifest"
    file.write_bytes(file.read_bytes()[:3000])


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (swap_images, ["extract-features --check-bytes"]),
        (lose_an_image, ["extract-features --check-bytes"]),
        (damage_a_row, ["repair"]),
        (damage_and_swap, ["extract-features --check-bytes", "repair"]),
        (compute_wrongly, ["extract-features --overwrite"]),
        (cut, ["extract-features --overwrite"]),
    ],
)
@pytest.mark.parametrize("name", ["a b.h5", "shards"])
def test_what_verify_advises_helps(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Any, expected: list[str], name: str
) -> None:
    cache = tmp_path / name
    extract_features(data, cache, network=FakeNetwork(), cache_layout="file" if cache.suffix else "shards")  # type: ignore[arg-type]
    harm(cache, data)
    found = check(cache, data, n_sample=20)
    assert found.findings
    assert follow(found.remedies, monkeypatch) == expected
    assert check(cache, data, n_sample=20).findings == ()
    assert check(cache, data, n_sample=20).remedies == ()


def test_the_commands_have_the_options_that_the_cache_was_made_with(tmp_path: Path) -> None:
    recipe = VGG16.recipe(weights="imagenet", weights_sha256="0" * 64, input_size_px=300, views="mirrored")
    finding = Finding(IMAGE, "other bytes")
    assert remedies([finding], tmp_path / "x.h5", None, recipe, "manifest") == (
        f"extract-features FOLDER -o {tmp_path}/x.h5 --manifest CSV --input-size 300 --views mirrored --check-bytes",
    )
    whole = Finding("file", "it is cut")
    assert remedies([whole], Path("x.h5"), Path("my photos"), replace(recipe, page=2, intensity=(0.0, 4095.0)), "") == (
        "extract-features 'my photos' -o x.h5 --input-size 300 --views mirrored --page 2 --intensity 0.0:4095.0 "
        "--precision float32 --overwrite",
    )
    foreign = replace(recipe, backbone=f"{FOREIGN}dino v2")
    assert remedies([finding], Path("x.h5"), None, foreign, "") == (
        "headstart import FEATURES -o x.h5 --name 'dino v2' --overwrite",
    )
