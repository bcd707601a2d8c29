"""The network in 8-bit integers: how fast it is, from how many images on it pays, and what it does to heads.

python benchmarks/int8.py rates FOLDER                    by turns: bare networks, the workers, the tutorial's predict loop
python benchmarks/int8.py heads CACHE.h5 INT8.h5 …        caches of the same images, in pairs: cross-validated linear SVM
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import cross_val_predict

from headstart.backbone.device import cpu
from headstart.backbone.openvino import OpenVinoBackbone
from headstart.backbone.precision import row_cosines
from headstart.backbone.quantize import images_to_pay
from headstart.cache.store import open_cache
from headstart.evaluate.folds import make_folds
from headstart.extract.network import Network
from headstart.extract.options import ExtractOptions
from headstart.extract.run import chunks
from headstart.extract.sample import draw_sample
from headstart.extract.shard import Shard, ShardJob
from headstart.extract.worker import Pipeline
from headstart.heads.catalogue import default_spec, make_head
from headstart.heads.transforms import design_matrix
from headstart.images.discover import discover
from headstart.images.load import load_image
from headstart.runtime import import_keras
from headstart.schema import Backbone
from machine import median, write_result

BATCH = 32
REPEATS, SPLITS = 5, 4


def rates(folder: Path, rounds: int, n_images: int, n_loop: int) -> None:
    """Time everything by turns on the same images, in one process."""
    images = discover(folder)
    refs = images.refs[:: max(1, len(images.refs) // n_images)][: n_images // BATCH * BATCH]
    job = ShardJob(images.root, images.class_names)
    paths = [str(images.root / ref.path) for ref in refs]
    pixels = np.stack(
        [load_image(images.root, ref, size_px=224, resize_preset="keras-bilinear").pixels for ref in refs]
    )
    auto, auto_seconds, auto_reason = network("auto", refs, job, pixels)
    int8, int8_seconds, _ = network("int8", refs, job, pixels)
    backbones = {"int8": int8, auto.recipe.precision: auto}
    reduced = cpu().reduced_precision
    if reduced and reduced not in backbones:
        backbones[reduced] = network(reduced, refs, job, pixels)[0]
    keras = import_keras()
    exact = OpenVinoBackbone()
    cosines = row_cosines(exact.forward(pixels).features, int8.forward(pixels).features)
    model = tutorial_model(keras)
    measured: dict[str, list[float]] = defaultdict(list)
    for backbone in backbones.values():
        backbone.forward(pixels[:BATCH])
    predict_loop(keras, model, paths[:BATCH])
    for _ in range(rounds):
        for name, backbone in backbones.items():
            measured[f"bare {name}"].append(rate(len(refs), partial(backbone.forward, pixels)))
            measured[f"{name} worker"].append(steady_rate(refs, job, backbone))
        loop = partial(predict_loop, keras, model, paths[:n_loop])
        measured["predict loop"].append(rate(len(paths[:n_loop]), loop))
    medians = {name: median(values) for name, values in measured.items()}
    worker = {name: medians[f"{name} worker"] for name in backbones}

    def ratio(one: str, other: str) -> float:
        """By turns, the median of the rounds: the clock of a shared machine drifts from one to the next."""
        return median([a / b for a, b in zip(measured[one], measured[other], strict=True)])

    extra = int8_seconds - auto_seconds
    write_result(
        f"int8-rates-{folder.name}",
        {
            "images": len(refs),
            "auto": auto_reason,
            "images_per_second": measured,
            "medians": medians,
            "worker_of_bare": {name: ratio(f"{name} worker", f"bare {name}") for name in backbones},
            "int8_worker_of_worker": {
                name: ratio("int8 worker", f"{name} worker") for name in backbones if name != "int8"
            },
            "int8_worker_of_predict_loop": ratio("int8 worker", "predict loop"),
            "seconds_to_first_batch": {"int8": int8_seconds, "auto": auto_seconds},
            "images_from_which_int8_pays": images_to_pay(extra, worker[auto.recipe.precision], worker["int8"]),
            "cosine_to_float32": {"mean": float(cosines.mean()), "lowest": float(cosines.min())},
        },
    )


def network(precision: str, refs: Any, job: ShardJob, pixels: Any) -> tuple[Backbone, float, str]:
    """Return the backbone of a precision, the seconds that it took with its proof, and the reason that is shown."""
    found = Network(ExtractOptions(precision=precision))
    wanted = found.wanted(None)
    _ = found.weights, import_keras()  # both need the weights; neither is to be charged with the import
    start = time.perf_counter()
    backbone, reason = found.backbone(None, pixels[:BATCH], lambda: draw_sample(refs, wanted, job))
    return backbone, time.perf_counter() - start, reason


def steady_rate(refs: Any, job: ShardJob, backbone: Backbone) -> float:
    """Decode, compute and write all images, as ``extract-features`` does; return images per second from the first batch on.

    Until the first batch is done the pipeline fills: the network has nothing to do before some images are decoded.
    """
    done: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory() as out:
        options = ExtractOptions()
        parts = chunks(refs, options.file_images)
        shards = [Shard(Path(out) / f"{number}.h5", part) for number, part in enumerate(parts)]
        pipeline = Pipeline(
            job,
            backbone,
            max_unpublished=options.shard_images,
            on_images=lambda n_images: done.append((time.perf_counter(), n_images)),
        )
        for _ in pipeline.run(shards):
            pass
        end = time.perf_counter()
    return sum(n_images for _, n_images in done[1:]) / (end - done[0][0])


def tutorial_model(keras: Any) -> Any:
    """Return VGG16 as the tutorials have it, with the checked weights."""
    model = keras.applications.VGG16(weights=None, include_top=False, input_shape=(224, 224, 3))
    for layer, tensors in Network(ExtractOptions()).weights.tensors.items():
        model.get_layer(layer).set_weights(tensors)
    return model


def predict_loop(keras: Any, model: Any, paths: list[str]) -> None:
    """Load, preprocess and predict batch by batch, as the Keras tutorials do."""
    for start in range(0, len(paths), BATCH):
        loaded = [keras.utils.load_img(path, target_size=(224, 224)) for path in paths[start : start + BATCH]]
        batch = np.stack([keras.utils.img_to_array(image) for image in loaded])
        model.predict(keras.applications.vgg16.preprocess_input(batch), verbose=0)


def rate(n_images: int, run: Callable[[], Any]) -> float:
    """Return images per second of a run."""
    start = time.perf_counter()
    run()
    return n_images / (time.perf_counter() - start)


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
            X = design_matrix(
                cache.batches(rows), spec.features, pooled_layers=cache.recipe.pooled_layers, n_samples=len(rows)
            )
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


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("rates", "heads"))
    parser.add_argument("paths", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--loop-images", type=int, default=192)
    options = parser.parse_args()
    if options.what == "rates":
        rates(options.paths[0], options.rounds, options.images, options.loop_images)
    else:
        heads(options.paths)


if __name__ == "__main__":
    main()
