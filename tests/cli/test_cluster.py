"""From loose photographs to class folders, by the commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands import Cli
from pictures import class_folders

pytestmark = pytest.mark.slow


def test_loose_images_become_class_folders_whose_features_are_known(cli: Cli, tmp_path: Path) -> None:
    for path in sorted(class_folders(tmp_path / "made", n_per_class=8).rglob("*.png")):
        (tmp_path / "loose").mkdir(exist_ok=True)
        path.rename(tmp_path / "loose" / f"{path.parent.name}-{path.name}")
    assert cli("extract-features", "loose")[0] == 0
    code, said, _ = cli("cluster", "features/loose.h5", "--data", "loose", "--k", "2")
    assert code == 0
    assert "16 images in 2 clusters of 8 to 8" in said
    page = Path("clusters/loose/clusters.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") == 16
    images = Path("clusters/loose/images.csv").read_text().splitlines()
    names = {line.split(",")[1]: line.split("-")[0] for line in images[1:]}
    assert sorted(names.values()) == ["ant", "bee"]
    Path("clusters/loose/names.csv").write_text(f"cluster,n_images,label\n0,8,{names['0']}\n1,8,\n")
    assert "8 images without a label: not copied." in cli("class-folders", "clusters/loose", "loose", "some")[1]
    rows = [f"{cluster},8,{name}" for cluster, name in names.items()]
    Path("clusters/loose/names.csv").write_text("\n".join(["cluster,n_images,label", *rows]) + "\n")
    assert cli("class-folders", "clusters/loose", "loose", "photos")[0] == 0
    assert len(list(Path("photos/ant").iterdir())) == len(list(Path("photos/bee").iterdir())) == 8
    code, said, _ = cli("extract-features", "photos", "-o", "features/loose.h5")
    assert code == 0
    assert "0 images computed" in said
    assert cli("fit-head", "features/loose.h5", "--no-search")[0] == 0


def test_a_number_of_clusters_that_is_none_is_wrong_usage(cli: Cli) -> None:
    code, _, said = cli("cluster", "features/loose.h5", "--k", "some")
    assert code == 2
    assert "2-30" in said
