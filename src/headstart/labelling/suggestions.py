"""Which unlabelled images to label next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from headstart.bundles.bundle import Bundle, load_bundle
from headstart.cache.reader import open_cache
from headstart.decisions.familiarity import averages
from headstart.errors import DataError
from headstart.evaluate.leakage import deepest_feature
from headstart.evaluate.random_crops import refuse_crops
from headstart.storage.bucket import Location
from headstart.texts import counted

#: ``margin`` takes the images whose two most probable classes are nearest to each other (Scheffer, Decomain & Wrobel, IDA
#: 2001). ``diverse`` takes one for each of ``n`` clusters of the ``POOL * n`` images of smallest margin, as Zhdanov, "Diverse
#: mini-batch active learning" (2019), does. ``random`` is the baseline.
Strategy = Literal["diverse", "margin", "random"]

#: Zhdanov's beta.
POOL = 10


@dataclass(frozen=True, slots=True)
class Suggestion:
    """An image whose label would help.

    Attributes
    ----------
    row : int
        Its row in the cache.
    path : str
    prediction : str
        The most probable class.
    probability : float
        Its probability.
    margin : float
        How much more probable it is than the second class.
    """

    row: int
    path: str
    prediction: str
    probability: float
    margin: float


def suggest_images(
    cache: str | Location,
    head: str | Path | Bundle,
    n_images: int = 50,
    *,
    strategy: Strategy = "diverse",
    random_state: int = 0,
) -> list[Suggestion]:
    """Return the unlabelled images of a cache that are to be labelled next, smallest margin first.

    Parameters
    ----------
    cache : str or Path
        A cache of the head's recipe, with unlabelled images.
    head : str, Path or Bundle
        A saved head for classes.
    n_images : int
        How many images; all of them if there are fewer.
    strategy : str
        ``diverse``, ``margin`` or ``random``.
    random_state : int
        For ``diverse`` and ``random``.

    Raises
    ------
    DataError
        If no image is unlabelled, or the head does not predict probabilities of classes.
    RecipeMismatchError
        If the features were made by another recipe.
    """
    bundle = head if isinstance(head, Bundle) else load_bundle(Path(head))
    if bundle.task == "regression" or len(bundle.class_names) < 2:
        raise DataError(f"Images are suggested by the probabilities of classes. Received: a head for {bundle.target}.")
    with open_cache(cache) as features:
        refuse_crops(features)
        rows = np.flatnonzero(features.labels < 0)
        if not len(rows):
            raise DataError(f"All images of {features.path} are labelled ({counted(features.n_images)}).")
        probabilities = bundle.predict_proba(features.batches(rows, finite=True), features.recipe)
        names = (deepest_feature(features.recipe),)

        def vectors(chosen: NDArray[np.intp]) -> NDArray[np.float32]:
            return averages(features.batches(rows[chosen], finite=True), names)

        chosen = choose_rows(probabilities, vectors, n_images, strategy, random_state)
        margins = margins_of(probabilities)
        return [
            Suggestion(
                row=int(rows[i]),
                path=features.paths[rows[i]],
                prediction=bundle.class_names[probabilities[i].argmax()],
                probability=float(probabilities[i].max()),
                margin=float(margins[i]),
            )
            for i in chosen
        ]


def choose_rows(
    probabilities: NDArray[np.float64],
    vectors: Callable[[NDArray[np.intp]], NDArray[np.float32]],
    n: int,
    strategy: Strategy = "diverse",
    random_state: int = 0,
) -> list[int]:
    """Return at most ``n`` rows of ``probabilities``, shape (n_images, n_classes), smallest margin first.

    ``vectors`` returns what the images of some rows are compared by, shape (n_rows, n_features).
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    margins = margins_of(probabilities)
    order = np.argsort(margins, kind="stable")
    if strategy == "random":
        chosen = np.random.default_rng(random_state).permutation(len(order))[:n]
        return sorted(chosen.tolist(), key=margins.__getitem__)
    pool = order[: POOL * n]
    if strategy == "margin" or len(pool) <= n:
        return [int(i) for i in pool[:n]]
    with threadpool_limits(1):  # the same clusters on any number of cores
        clusters = KMeans(n, n_init=1, random_state=random_state).fit_predict(
            vectors(pool), sample_weight=1 - margins[pool]
        )
    _, first = np.unique(clusters, return_index=True)  # the pool is in the order of margins
    taken = set(first.tolist())
    rest = (number for number in range(len(pool)) if number not in taken)  # where clusters came out empty
    taken.update(number for number, _ in zip(rest, range(n - len(taken)), strict=False))
    return [int(pool[number]) for number in sorted(taken)]


def margins_of(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how much more probable the first class of each row is than the second, shape (n_images,)."""
    ordered = np.sort(probabilities, axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2])
