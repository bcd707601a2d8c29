"""The network in 8-bit integers: how fast it is, from how many images on it pays, and what it does to heads.

python benchmarks/int8.py rates FOLDER                    by turns: bare networks, the workers, the tutorial's predict loop
python benchmarks/int8.py rates FOLDER --precisions auto --loop-images 0
python benchmarks/int8.py heads CACHE.h5 INT8.h5 …        caches of the same images, in pairs: cross-validated linear SVM
"""

from __future__ import annotations

import argparse
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import cross_val_predict

from headstart.backbones.openvino import OpenVinoBackbone
from headstart.backbones.precision import images_to_pay, row_cosines
from headstart.cache.reader import open_cache
from headstart.evaluate.folds import make_folds
from headstart.extract.network import Network, draw_sample
from headstart.extract.options import ExtractOptions
from headstart.extract.shard_jobs import ShardJob
from headstart.heads.catalogue import default_spec, make_head
from headstart.heads.transforms import design_matrix
from headstart.images.discovery.scan import discover
from headstart.images.load import load_image
from headstart.runtime import import_keras
from headstart.types import Backbone
from machine import median, write_result
from turns import HeldWorker, bare_turns

BATCH = 32

#: Images that are taken of a folder, and that go through a network in a turn: whole batches, some 2 to 4 s on two cores.
IMAGES, TURN_IMAGES = 256, 64

#: So many rounds there are however few minutes are given: of one, no error can be known.
FEWEST_ROUNDS = 2

REPEATS, SPLITS = 5, 4


def rates(folder: Path, minutes: float, precisions: list[str], n_loop: int, *, keep: bool) -> None:
    """Time everything by turns on the same images, in one process; keep the figures, or say them in one line."""
    images = discover(folder)
    refs = images.refs[:: max(1, len(images.refs) // IMAGES)][:IMAGES]
    job = ShardJob(images.root, images.class_names)
    pixels = np.stack(
        [load_image(images.root, ref, size_px=224, resize_preset="keras-bilinear").pixels for ref in refs]
    )
    made = {asked: network(asked, refs, job, pixels) for asked in precisions}
    backbones = {backbone.recipe.precision: backbone for backbone, *_ in made.values()}
    names, measured = list(backbones), turns(refs, job, pixels, backbones, minutes * 60, n_loop)
    result: dict[str, Any] = {
        "images_a_turn": TURN_IMAGES,
        "images_per_second": {name: summary(values) for name, values in measured.items()},
        "worker_of_bare": {name: ratios(measured[f"{name} worker"], measured[f"bare {name}"]) for name in names},
        "seconds_to_first_batch": {asked: seconds for asked, (_, seconds, _) in made.items()},
    }
    if "auto" in made:
        result["auto"] = made["auto"][2]
    if "int8" in made:
        rounded = measured["int8 worker"]
        others = sorted(name for name in measured if name != "int8 worker" and not name.startswith("bare "))
        result["int8_worker_of"] = {name: ratios(rounded, measured[name]) for name in others}
        cosines = row_cosines(OpenVinoBackbone().forward(pixels).features, made["int8"][0].forward(pixels).features)
        result["cosine_to_float32"] = {"mean": float(cosines.mean()), "lowest": float(cosines.min())}
    if {"auto", "int8"} <= made.keys():
        auto = made["auto"][0].recipe.precision
        extra = made["int8"][1] - made["auto"][1]
        workers = [median(measured[f"{name} worker"]) for name in (auto, "int8")]
        result["images_from_which_int8_pays"] = images_to_pay(extra, *workers)
    name = f"int8-rates-{folder.name}" if len(names) > 1 else f"worker-rates-{names[0]}-{folder.name}"
    write_result(name, result, keep=keep)


def turns(
    refs: Any, job: ShardJob, pixels: Any, backbones: dict[str, Backbone], seconds: float, n_loop: int
) -> dict[str, list[float]]:
    """Return images per second of every way in every round; the order of a round is drawn anew."""
    measured: dict[str, list[float]] = defaultdict(list)
    draw, n_rounds = random.Random(0), 0
    with ExitStack() as stack:
        ways: dict[str, Callable[[], float]] = {}
        for name, backbone in backbones.items():
            n_batches = max(1, TURN_IMAGES // backbone.batch_size)
            ways[f"bare {name}"] = bare_turns(backbone, pixels, n_batches * backbone.batch_size)
            ways[f"{name} worker"] = partial(stack.enter_context(HeldWorker(refs, job, backbone)).turn, n_batches)
        if n_loop:
            ways["predict loop"] = predict_loop([str(job.root / ref.path) for ref in refs[:n_loop]])
        for way in ways.values():
            way()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or n_rounds < FEWEST_ROUNDS:
            for name in draw.sample(list(ways), len(ways)):
                measured[name].append(ways[name]())
            n_rounds += 1
    return measured


def summary(values: list[float]) -> dict[str, float]:
    """Return the median of some rates, and the range of their middle half."""
    low, high = np.quantile(values, (0.25, 0.75))
    return {"median": median(values), "quarter": float(low), "three_quarters": float(high)}


def ratios(one: list[float], other: list[float]) -> dict[str, float]:
    """Return how many rounds there were, and the median, mean and standard error of the ratio in a round."""
    found = np.array(one) / np.array(other)
    error = float(found.std(ddof=1) / len(found) ** 0.5)
    return {"rounds": len(found), "median": median(list(found)), "mean": float(found.mean()), "error": error}


def network(precision: str, refs: Any, job: ShardJob, pixels: Any) -> tuple[Backbone, float, str]:
    """Return the backbone of a precision, the seconds that it took with its proof, and the reason that is shown."""
    found = Network(ExtractOptions(precision=precision))
    wanted = found.wanted(None)
    _ = found.weights, import_keras()  # both need the weights; neither is to be charged with the import
    start = time.perf_counter()
    backbone, reason = found.backbone(None, pixels[:BATCH], lambda: draw_sample(refs, wanted, job))
    return backbone, time.perf_counter() - start, reason


def predict_loop(paths: list[str]) -> Callable[[], float]:
    """Return what predicts batch by batch, as the Keras tutorials do, and returns images per second."""
    keras = import_keras()
    model = keras.applications.VGG16(weights=None, include_top=False, input_shape=(224, 224, 3))
    for layer, tensors in Network(ExtractOptions()).weights.tensors.items():  # the checked weights
        model.get_layer(layer).set_weights(tensors)

    def run() -> float:
        begin = time.perf_counter()
        for start in range(0, len(paths), BATCH):
            loaded = [keras.utils.load_img(path, target_size=(224, 224)) for path in paths[start : start + BATCH]]
            batch = np.stack([keras.utils.img_to_array(image) for image in loaded])
            model.predict(keras.applications.vgg16.preprocess_input(batch), verbose=0)
        return len(paths) / (time.perf_counter() - begin)

    return run


def heads(caches: list[Path]) -> None:
    """Cross-validate a linear SVM on both caches of each pair, on the same folds."""
    results = {}
    for exact, rounded in zip(caches[::2], caches[1::2], strict=True):
        results[exact.stem] = compare(exact, rounded)
    write_result("int8-heads", {"folds": f"{REPEATS} x {SPLITS}", "head": "linear-svm", "sets": results})


def compare(exact: Path, rounded: Path) -> dict[str, Any]:
    """Return accuracies on both caches, and the 95 % interval of their difference (evaluate/intervals.py)."""
    probabilities, y, cosines = {}, np.empty(0), np.empty(0)
    with open_cache(exact) as first, open_cache(rounded) as second:
        if list(first.rows.sha256) != list(second.rows.sha256):
            raise SystemExit(f"{exact} and {rounded} do not hold the same images in the same order")
        rows, y = np.flatnonzero(first.labels >= 0), first.labels[first.labels >= 0]
        made = make_folds(y, n_splits=SPLITS, n_repeats=REPEATS, sha256=[first.rows.sha256[row] for row in rows])
        cosines = np.concatenate(
            [
                row_cosines(*(c.read_rows("features", rows[i : i + 256]) for c in (first, second)))
                for i in range(0, len(rows), 256)
            ]
        )
        other = first.recipe.precision
        for name, cache in ((other, first), ("int8", second)):
            spec = default_spec("linear-svm")
            X = design_matrix(cache.batches(rows), spec.features, n_samples=len(rows))
            folds = [
                [(fold.train, fold.test) for fold in made.splits[i * SPLITS : (i + 1) * SPLITS]] for i in range(REPEATS)
            ]
            probabilities[name] = [
                cross_val_predict(make_head(spec), X, y, cv=repeat, method="predict_proba") for repeat in folds
            ]
    right = {name: np.mean([(p.argmax(axis=1) == y) for p in ps], axis=0) for name, ps in probabilities.items()}
    difference = right["int8"] - right[other]
    rng = np.random.default_rng(0)
    drawn = difference[rng.integers(0, len(y), (10_000, len(y)))].mean(axis=1)
    return {
        "images": len(y),
        "accuracy": {name: float(values.mean()) for name, values in right.items()},
        "difference": float(difference.mean()),
        "paired_95_interval": [float(value) for value in np.quantile(drawn, (0.025, 0.975))],
        f"cosine_to_{other}": {"mean": float(cosines.mean()), "lowest": float(cosines.min())},
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("rates", "heads"))
    parser.add_argument("paths", type=Path, nargs="+")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--precisions", nargs="+", default=["auto", "bfloat16", "int8"])
    parser.add_argument("--loop-images", type=int, default=TURN_IMAGES)
    parser.add_argument("--brief", action="store_true", help="rates: say the figures in one line, and keep no file")
    return parser.parse_args(arguments)


def main() -> None:
    """Run one of the two."""
    options = parse()
    if options.what == "rates":
        rates(options.paths[0], options.minutes, options.precisions, options.loop_images, keep=not options.brief)
    else:
        heads(options.paths)


if __name__ == "__main__":
    main()
