"""The commands as a person runs them, with a fake backbone in place of the network."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import tifffile

from commands import Cli
from fakes import FakeBackbone
from headstart import repair
from headstart.backbones.registry import BACKBONES
from headstart.bundles.bundle import load_bundle
from headstart.cache.reader import open_cache
from headstart.types import Recipe
from pictures import picture

pytestmark = pytest.mark.slow


def test_from_photos_to_predictions(cli: Cli, data: Path, head: Path, tmp_path: Path) -> None:
    metrics = json.loads((head / "metrics.json").read_text())
    assert {"accuracy", "balanced_accuracy", "f1_macro", "log_loss", "accuracy_interval", "per_class"} <= set(metrics)
    picture(tmp_path / "new" / "one.png", 5)
    code, out, _ = cli("predict", head, "new")
    assert code == 0
    assert "new/one.png" in out
    code, out, _ = cli("evaluate", head, "features/photos.h5")
    assert code == 0
    assert "accuracy" in out
    assert "95 % interval" in out
    assert "images that the head has seen are left out: 18 fitted on" in out
    code, out, _ = cli("evaluate", head, data, "--json")
    facts = json.loads(out)
    assert facts["n_samples"] + sum(facts["training_images"][key] for key in ("fitted_on", "nearly_the_same")) == 24
    assert facts["training_images"]["fitted_on"] == 18
    assert "it includes 18 images that the head has seen" in cli("evaluate", head, data, "--include-training")[1]
    assert json.loads(cli("evaluate", head, data, "--include-training", "--json")[1])["n_samples"] == 24
    for path in data.rglob("*.png"):
        if int(sha256(path.read_bytes()).hexdigest()[:16], 16) not in load_bundle(head).training_digests:
            path.unlink()
    code, _, error = cli("evaluate", head, data)
    assert (code, "is left to score: 18 images that the head has seen are left out" in error) == (1, True)


def test_nothing_to_do_says_so(cli: Cli, data: Path, head: Path) -> None:
    code, out, _ = cli("extract-features", data)
    assert code == 0
    assert "0 images computed" in out
    assert "24 unchanged" in out


def test_a_run_says_what_it_computed_kept_and_ignored(cli: Cli, data: Path) -> None:
    (data / "readme.txt").write_text("x")
    out = cli("extract-features", data)[1]
    assert "24 images computed (24 new)" in out
    assert "Ignored files that are not images: 1 × .txt (0 hidden)" in out
    next(data.rglob("*.png")).unlink()
    assert "1 kept though missing" in cli("extract-features", data, "--keep-missing")[1]


def test_a_dry_run_for_people_and_programs(cli: Cli, data: Path, tmp_path: Path) -> None:
    code, out, _ = cli("extract-features", data, "--dry-run")
    assert code == 0
    assert "24 would be computed (24 new); none reused" in out
    assert "images/s (measured now" in out
    assert "must be free" in out
    facts = json.loads(cli("extract-features", data, "--dry-run", "--json")[1])
    assert (facts["n_compute"], facts["up_to_date"], facts["compute"]) == (24, False, {"new": 24})
    assert not (tmp_path / "features").exists()
    cli("extract-features", data)
    assert "Nothing to do: features/photos.h5 holds all 24 images" in cli("extract-features", data, "--dry-run")[1]
    assert json.loads(cli("extract-features", data, "--dry-run", "--json")[1])["up_to_date"]


def test_a_run_for_programs(cli: Cli, data: Path) -> None:
    (data / "ant" / "bad.png").write_bytes(b"no")
    code, out, _ = cli("extract-features", data, "--json")
    assert code == 0
    facts = json.loads(out)
    assert (facts["n_images"], facts["n_computed"], facts["computed"]) == (24, 24, {"new": 24})
    assert [failure["path"] for failure in facts["failures"]] == ["ant/bad.png"]
    assert (facts["output"], facts["shares"], facts["interrupted"]) == ("features/photos.h5", [], False)


def test_inspect_for_people_and_programs(cli: Cli, data: Path) -> None:
    (data / "ant" / "[red]bad.jpg").write_bytes(b"no")
    cli("extract-features", data)
    code, out, _ = cli("inspect", "features/photos.h5")
    assert code == 0
    assert "ant" in out
    assert "ant/[red]bad.jpg: " in out
    facts = json.loads(cli("inspect", "features/photos.h5", "--json")[1])
    assert facts["classes"] == {"ant": {"": 12}, "bee": {"": 12}}
    assert len(facts["failures"]) == 1
    assert facts["recipe"]["resize"] == "keras-bilinear"


def test_verify_says_what_is_damaged_and_the_code_says_whether(cli: Cli, data: Path) -> None:
    cache = Path("features/photos.h5")
    cli("extract-features", data, "--compression", "none")
    assert cli("verify", cache)[:2] == (0, "features/photos.h5 is whole.\n")
    with open_cache(cache) as opened:
        row, image = opened.read_chunk("features", 3)[1], opened.paths[3]
    damaged = bytearray(cache.read_bytes())
    damaged[damaged.index(row)] ^= 1
    cache.write_bytes(damaged)
    code, out, _ = cli("verify", cache)
    assert code == 1
    assert "is not as it should be, 1 finding:" in out.replace("\n", " ")
    code, out, _ = cli("verify", cache, "--json")
    found = json.loads(out)
    assert (code, found["whole"]) == (1, False)
    assert [(f["place"], f["row"], f["image"]) for f in found["findings"]] == [("/features", 3, image)]


def test_repair_makes_a_damaged_cache_whole(cli: Cli, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Path("features/photos.h5")
    cli("extract-features", data)
    assert "nothing was changed" in cli("repair", cache, data)[1]
    assert cli("repair", cache)[0] == cli("repair", cache, data, "--data", data)[0] == 2
    assert cli("verify", cache, data, "--data", data)[0] == 2
    with open_cache(cache) as opened:
        row, image = opened.read_chunk("pooled", 5)[1], opened.paths[5]
    damaged = bytearray(cache.read_bytes())
    damaged[damaged.index(row)] ^= 1
    cache.write_bytes(damaged)
    monkeypatch.setattr(repair, "build_backbone", lambda *_arguments, **_options: FakeBackbone())
    code, out, _ = cli("repair", cache, "--data", data)
    assert code == 0
    assert "is whole again: 1 of 24 rows were computed again." in out
    assert image in out
    assert cli("verify", cache)[0] == 0


def test_too_many_failures_are_an_exit_code(cli: Cli, data: Path) -> None:
    for i in range(2):
        (data / "ant" / f"bad{i}.jpg").write_bytes(b"no")
    code, out, err = cli("extract-features", data)
    assert code == 1
    assert "24 images" in out
    assert "More than 5% of the images" in err
    assert cli("extract-features", data, "--max-failures", "0.5")[0] == 0


def test_the_first_failure_may_stop_the_run(cli: Cli, data: Path) -> None:
    (data / "ant" / "bad.jpg").write_bytes(b"no")
    code, _, err = cli("extract-features", data, "--on-error", "fail")
    assert code == 1
    assert "ant/bad.jpg: " in err
    assert not Path("features/photos.h5").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("extract-features", "absent"), 1, "There is no folder at absent"),
        (("fit-head", "absent.h5"), 1, "There is no cache at absent.h5"),
        (("predict", "absent", "x.jpg"), 1, "no saved head in absent"),
        (("fit-head", "absent.h5", "--type", "forest"), 2, "forest"),
        (("extract-features",), 2, "Missing argument"),
        (("nonsense",), 2, "nonsense"),
    ],
)
def test_errors_are_one_sentence_and_a_code(cli: Cli, arguments: tuple[str, ...], code: int, message: str) -> None:
    actual, _, err = cli(*arguments)
    assert actual == code
    assert message in err
    assert "Traceback" not in err


def test_another_recipe_is_refused(cli: Cli, data: Path, head: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = json.loads((head / "bundle.json").read_text())
    bundle["recipe"]["input_size_px"] = 224
    bundle["recipe_fingerprint"] = Recipe.from_json(json.dumps(bundle["recipe"])).fingerprint
    (head / "bundle.json").write_text(json.dumps(bundle))
    code, _, err = cli("evaluate", head, "features/photos.h5")
    assert code == 1
    assert "input_size_px: 224 ≠ 35" in err


def test_weights_says_what_is_found(cli: Cli) -> None:
    code, out, _ = cli("weights", "--no-check")
    assert code in {0, 1}
    assert "Keras' cache" in out
    assert [name for name in BACKBONES if name != "vgg16" and name not in out] == []


def test_every_command_reads_a_folder_of_shards_as_it_reads_a_file(cli: Cli, data: Path) -> None:
    assert "in features/photos\n" in cli("extract-features", data, "--layout", "shards")[1]
    assert cli("extract-features", data, "-o", "file.h5")[0] == 0
    assert "0 images computed" in cli("extract-features", data)[1]  # found again without -o and --layout
    said = [json.loads(cli("inspect", cache, "--json")[1]) for cache in ("features/photos", "file.h5")]
    for facts in said:
        for name in ("path", "size_bytes", "created"):
            facts.pop(name)
    assert said[0] == said[1]
    assert cli("inspect", "features/photos/cache.manifest")[0] == 0
    assert cli("inspect", "features/photos", "--quality")[0] == 0
    for cache, head in (("features/photos", "heads/a"), ("file.h5", "heads/b")):
        code, _, error = cli("fit-head", cache, "--type", "logistic", "-o", head)
        assert code == 0, error
    metrics = [json.loads(Path("heads", name, "metrics.json").read_text()) for name in "ab"]
    for one in metrics:
        one.pop("fit_seconds", None)
    assert metrics[0]["accuracy"] == metrics[1]["accuracy"]
    scores = [json.loads(cli("evaluate", "heads/a", cache, "--json")[1]) for cache in ("features/photos", "file.h5")]
    assert scores[0] == scores[1]
    code, _, error = cli("fit-head", "file.h5", "--type", "ridge", "--validation", "features/photos", "-o", "heads/c")
    assert (code, "Name another cache" in error) == (1, True)  # it was read: its images are those of the training
    assert cli("benchmark-heads", "features/photos", "--heads", "logistic,ridge", "--folds", "3")[0] == 0
    assert cli("verify", "features/photos", data, "--sample", "0")[0] == 0
    assert cli("convert", "features/photos", "x.npz")[0] == 0
    assert cli("merge", "features/photos", "-o", "one.h5")[0] == 0
    assert json.loads(cli("inspect", "one.h5", "--json")[1])["fingerprint"] == said[0]["fingerprint"]


def test_a_folder_of_shards_is_refused_where_one_file_is_meant(cli: Cli, data: Path) -> None:
    cli("extract-features", data, "--layout", "shards")
    code, _, error = cli("extract-features", data, "-o", "features/photos", "--layout", "file")
    assert code == 1
    assert "folder of shards" in error
    next(Path("features/photos").glob("*.h5")).unlink()
    code, _, error = cli("fit-head", "features/photos", "--type", "logistic")
    assert code == 1
    assert "is missing (headstart repair" in error
    assert cli("verify", "features/photos")[0] == 1


def test_what_images_lose_is_said_where_a_head_decodes_them(cli: Cli, head: Path, tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        folder = tmp_path / "deep" / name
        folder.mkdir(parents=True)
        tifffile.imwrite(folder / "1.tif", np.linspace(-0.5, 1, 600).astype("f4").reshape(20, 30))
        tifffile.imwrite(folder / "2.tif", np.full((2, 20, 30), 99, "u1"), photometric="minisblack")
    code, out, err = cli("predict", head, tmp_path / "deep", "--format", "csv")
    assert code == 0
    assert "Decoded" not in out
    said = [
        "Decoded: in 2 images only the first page was taken",
        "Decoded: in 2 images values below black or above white",
    ]
    for sentence, printed in zip(said, err.splitlines(), strict=False):
        assert printed.startswith(sentence)
        assert "--" not in printed
    code, out, _ = cli("evaluate", head, tmp_path / "deep")
    assert all(sentence in out for sentence in said)
