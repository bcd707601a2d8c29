"""A cache of mirrored views, from the options to the repair of its rows."""

from __future__ import annotations

from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from caches import everything
from fakes import FakeBackbone, FakeNetwork
from headstart.backbones.registry import ViewsBackbone
from headstart.cache.reader import open_cache
from headstart.errors import RecipeMismatchError
from headstart.exchange.merge_caches import merge_caches
from headstart.extract import estimate
from headstart.extract.estimate import forecast_extraction
from headstart.extract.network import Network
from headstart.extract.options import ExtractOptions
from headstart.extract.run import extract_features
from headstart.extract.summary import ExtractionSummary
from headstart.repair import repair_cache
from headstart.types import VIEWS
from headstart.verify import verify_cache
from headstart_cli.cache_commands import extract_command
from pictures import class_folders, picture

pytestmark = pytest.mark.slow

N_IMAGES = 10


class MirroredNetwork(FakeNetwork):
    """Hands out a fake that sees mirrored views."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = self.made
        self.made = ViewsBackbone(self.inner, "mirrored")  # type: ignore[assignment]


def test_the_command_line_offers_all_views() -> None:
    annotation = get_type_hints(extract_command.extract, include_extras=True)["views"]
    assert get_args(get_args(annotation)[0]) == tuple(VIEWS)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "photos", n_per_class=N_IMAGES // 2)


def run(data: Path, path: Path, network: FakeNetwork, **options: object) -> ExtractionSummary:
    return extract_features(data, path, network=network, **options)  # type: ignore[arg-type]


@pytest.fixture
def cache(data: Path, tmp_path: Path) -> Path:
    run(data, tmp_path / "mirrored.h5", MirroredNetwork())
    return tmp_path / "mirrored.h5"


def test_the_options_are_in_the_recipe() -> None:
    assert Network(ExtractOptions()).wanted(None).views == "single"
    assert Network(ExtractOptions(views="mirrored")).wanted(None).views == "mirrored"


def test_images_are_counted_not_passes(data: Path, tmp_path: Path) -> None:
    network, seen = MirroredNetwork(), []

    class Counter:
        def message(self, text: str) -> None: ...

        def start(self, n_images: int) -> None: ...

        def advance(self, n_images: int, place: str = "") -> None:
            seen.append(n_images)

    done = run(data, tmp_path / "a.h5", network, progress=Counter())
    assert (done.n_computed, sum(seen), network.inner.n_images) == (N_IMAGES, N_IMAGES, 2 * N_IMAGES)


def test_a_forecast_is_of_images(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "MEASURED_SECONDS", 0.0)
    monkeypatch.setattr(estimate, "seconds_per_image", lambda _backbone, images: float(len(images)))
    found = forecast_extraction(data, tmp_path / "a.h5", network=MirroredNetwork())  # type: ignore[arg-type]
    assert found.n_compute == N_IMAGES
    assert found.rate is not None
    assert found.rate.images_per_second == pytest.approx(1 / 2, rel=0.1)  # half a batch of four


def test_it_grows_by_the_same_recipe_and_no_other(cache: Path, data: Path, tmp_path: Path) -> None:
    with open_cache(cache) as opened:
        assert opened.recipe.views == "mirrored"
    picture(data / "bee" / "new.png", 99)
    with pytest.raises(RecipeMismatchError, match=r"views: mirrored ≠ single.*overwrite=True"):
        run(data, cache, FakeNetwork())
    assert run(data, cache, MirroredNetwork()).n_computed == 1
    run(data, tmp_path / "anew.h5", MirroredNetwork())
    whole, anew = everything(cache), everything(tmp_path / "anew.h5")
    assert {name: value for name, value in whole.items() if name != "header"} == {
        name: value for name, value in anew.items() if name != "header"
    }


def test_its_rows_are_computed_again_by_its_recipe(cache: Path, data: Path) -> None:
    found = verify_cache(cache, data, backbone=ViewsBackbone(FakeBackbone(), "mirrored"))
    assert (found.findings, found.n_recomputed) == ((), N_IMAGES)
    with pytest.raises(RecipeMismatchError, match="views: mirrored ≠ single"):
        verify_cache(cache, data, backbone=FakeBackbone())


def test_damaged_rows_are_repaired(cache: Path, data: Path) -> None:
    before = cache.read_bytes()
    with open_cache(cache) as opened:
        chunk = opened.read_chunk("features", 3)[1]
    damaged = bytearray(before)
    damaged[before.index(chunk) + len(chunk) // 2] ^= 8
    cache.write_bytes(damaged)
    done = repair_cache(cache, data, backbone=ViewsBackbone(FakeBackbone(), "mirrored"))
    assert done.images == ("ant/003.png",)
    assert verify_cache(cache, data, backbone=ViewsBackbone(FakeBackbone(), "mirrored")).findings == ()


def test_caches_of_other_views_are_not_merged(cache: Path, data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "single.h5", FakeNetwork())
    with pytest.raises(RecipeMismatchError, match="views: "):
        merge_caches([cache, tmp_path / "single.h5"], tmp_path / "both.h5")
