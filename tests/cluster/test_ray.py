"""Extraction in the actors of a Ray cluster of two nodes, both of them on this machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deadly import Deadly, Lethal
from fakes import FakeNetwork
from headstart.backbones.registry import BACKBONES
from headstart.cache.reader import open_cache
from headstart.extract import run as local
from headstart.extract.options import ExtractOptions
from headstart.extract.ray_engine import RayEngine
from headstart.extract.run import extract_features
from headstart.extract.summary import ExtractionSummary
from headstart.ray_cluster import ClusterOptions
from headstart_cli.app import COMMANDS, make_app
from headstart_cli.app import run as run_app
from pictures import class_folders, picture, split_photographs
from waiting import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore")]

ray = pytest.importorskip("ray")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "data", n_per_class=20)


def run(data: Path, output: Path, network: FakeNetwork | None = None, **options: Any) -> ExtractionSummary:
    options = {"shard_images": 8, "engine": "ray"} | options
    return extract_features(data, output, options=ExtractOptions(**options), network=network or FakeNetwork())


def contents(path: Path) -> list[tuple[Any, ...]]:
    with open_cache(path) as cache:
        batch = next(cache.batches(batch_rows=10_000))
        return [
            (path, sha, label, f.tobytes(), p.tobytes())
            for path, sha, label, f, p in zip(
                cache.paths, cache.sha256, cache.labels.tolist(), batch.features, batch.pooled, strict=True
            )
        ]


def test_the_rows_are_those_of_the_local_engine(cluster: Any, data: Path, tmp_path: Path) -> None:
    (data / "ant" / "broken.png").write_bytes(b"no picture")
    far = run(data, tmp_path / "far.h5")
    near = run(data, tmp_path / "near.h5", engine="local")
    assert contents(tmp_path / "far.h5") == contents(tmp_path / "near.h5")
    assert (far.n_images, far.n_computed, len(far.failures)) == (40, 40, 1)
    assert far.failures == near.failures


def test_a_folder_of_shards_has_the_rows_of_the_local_file(cluster: Any, data: Path, tmp_path: Path) -> None:
    summary = run(data, tmp_path / "far", cache_layout="shards")
    run(data, tmp_path / "near.h5", engine="local")
    assert contents(tmp_path / "far") == contents(tmp_path / "near.h5")
    assert summary.n_computed == 40
    assert len(list((tmp_path / "far").glob("*.h5"))) == 10
    picture(data / "ant" / "new.png", seed=99)
    assert run(data, tmp_path / "far").n_computed == 1
    assert len(list((tmp_path / "far").glob("*.h5"))) == 11


def test_a_worker_that_dies_costs_its_shard_and_nothing_else(cluster: Any, data: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    summary = run(data, tmp_path / "far.h5", Deadly(mark))
    assert mark.exists()
    assert (summary.n_images, summary.failures) == (40, ())
    run(data, tmp_path / "near.h5", engine="local")
    assert contents(tmp_path / "far.h5") == contents(tmp_path / "near.h5")


def test_an_image_that_ends_every_process_is_found_and_listed(cluster: Any, data: Path, tmp_path: Path) -> None:
    picture(data / "ant" / "a-poison.png", seed=99)
    summary = run(data, tmp_path / "far.h5", Lethal(), shard_images=40)
    assert [failure.ref.path for failure in summary.failures] == ["ant/a-poison.png"]
    assert "exited" in summary.failures[0].reason
    (data / "ant" / "a-poison.png").unlink()
    run(data, tmp_path / "near.h5", engine="local")
    assert contents(tmp_path / "far.h5") == contents(tmp_path / "near.h5")


def test_a_node_that_is_lost_costs_what_was_under_way(cluster: Any, data: Path, tmp_path: Path) -> None:
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()

    class Killer:
        """Loses the node when the first images are done."""

        done = False

        def message(self, text: str) -> None: ...

        def start(self, n_images: int) -> None: ...

        def advance(self, n_images: int, place: str = "") -> None:
            if not self.done:
                self.done = True
                cluster.remove_node(node, allow_graceful=False)

    options = ExtractOptions(shard_images=4, engine="ray", cluster=ClusterOptions(workers=4))
    summary = extract_features(data, tmp_path / "far.h5", options=options, network=FakeNetwork(), progress=Killer())
    assert (summary.n_images, summary.failures) == (40, ())
    run(data, tmp_path / "near.h5", engine="local")
    assert contents(tmp_path / "far.h5") == contents(tmp_path / "near.h5")


def test_the_command_says_who_did_how_much(
    cluster: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    enter = RayEngine.__enter__

    def with_all_there(engine: RayEngine) -> RayEngine:
        """Begin when both workers have arrived: one alone may be done before the other is there."""
        entered = enter(engine)
        wait_for(lambda: engine._pool.answers() == [] and len(engine._pool.idle) == 2)
        return entered

    monkeypatch.setattr(RayEngine, "__enter__", with_all_there)
    monkeypatch.setattr(local, "Network", lambda _options: FakeNetwork())
    monkeypatch.setenv("COLUMNS", "200")
    command = [
        "headstart",
        "extract-features",
        str(data),
        "-o",
        str(tmp_path / "x.h5"),
        "--engine",
        "ray",
        "--workers",
        "2",
    ]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as end:
        run_app(make_app(*COMMANDS))
    captured = capsys.readouterr()
    assert not end.value.code, captured.err
    assert "40 images" in captured.out
    shares = re.findall(r"(\S+(?: #\d)?) \(1 worker\): (\d+) images at \d+\.\d images/s", captured.out)
    assert len({name for name, _ in shares}) == 2
    assert sum(int(count) for _, count in shares) == 40


DRIVER = """
import sys
from pathlib import Path
import ray
from headstart.extract.run import extract_features
from headstart.extract.options import ExtractOptions
from deadly import Slow
data, output, gate, address = sys.argv[1:]
ray.init(address=address, log_to_driver=False)
extract_features(data, output, options=ExtractOptions(shard_images=8, engine="ray"), network=Slow(Path(gate)))
"""


def test_a_driver_that_is_killed_goes_on_where_it_was(cluster: Any, tmp_path: Path) -> None:
    """Half of the images wait until the driver is dead: of forty shards twenty are there, two are under way."""
    gate, output = tmp_path / "gate", tmp_path / "far.h5"
    data = class_folders(tmp_path / "data", n_per_class=80)  # the first 32 choose the precision, with 31 read ahead
    gate.touch()
    paths = os.pathsep.join([str(Path(__file__).parent), *(path for path in sys.path if path)])
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(data), str(output), str(gate), cluster.address],
        env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    parts = tmp_path / ".far.h5.parts"
    try:
        wait_for(lambda: driver.poll() is not None or len(list(parts.glob("*.h5"))) == 20)
        assert driver.poll() is None
    finally:
        driver.kill()
        driver.wait()
    gate.unlink()
    summary = run(data, output)
    assert (summary.n_images, summary.n_computed, sum(summary.reused.values())) == (160, 80, 80)
    run(data, tmp_path / "near.h5", engine="local")
    assert contents(output) == contents(tmp_path / "near.h5")


@pytest.mark.weights
@pytest.mark.parametrize("backbone", ["vgg16", "efficientnet-lite0"])
def test_real_features_are_those_of_the_local_engine_bit_for_bit(cluster: Any, tmp_path: Path, backbone: str) -> None:
    if not BACKBONES[backbone].has_local_weights():
        pytest.skip(f"needs the weights of {backbone} on this machine")
    data = split_photographs(tmp_path / "photographs", n_per_class=3)
    options = {"backbone": backbone, "shard_images": 4, "batch_size": 4, "input_size_px": 64}
    far, near = (
        extract_features(data, tmp_path / f"{engine}.h5", engine=engine, **options) for engine in ("ray", "local")
    )
    assert far.n_computed == near.n_computed == 12
    assert contents(tmp_path / "ray.h5") == contents(tmp_path / "local.h5")
