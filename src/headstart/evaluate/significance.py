"""Whether a difference between heads is more than chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from headstart.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

#: Which test gave the p-values, for a person.
TEST_METHOD = (
    "Two-sided corrected resampled t-test on the accuracies of the folds, each head against the best (Nadeau & Bengio, "
    "Machine Learning 52, 2003; for repeated folds Bouckaert & Frank, PAKDD 2004), corrected for the number of heads by "
    "Holm's method (Scandinavian Journal of Statistics 6, 1979). As the best one was picked on the same folds, small "
    "p-values come a little too easily."
)


def corrected_resampled_t(
    differences: NDArray[np.floating[Any]], n_train: float, n_test: float, *, min_variance: float = 0.0
) -> float:
    """Return the two-sided p-value of the mean difference over folds being 0 (Nadeau & Bengio, 2003, section 3.2).

    Folds share training images, so that their scores vary less than those of independent data would: the variance of the
    mean is taken as (1/n + n_test/n_train) times that of the folds, not 1/n times.

    Parameters
    ----------
    differences : ndarray of shape (n_folds,)
        Score of one head minus that of the other, of each fold of all repeats.
    n_train, n_test : float
        Images fitted on, and scored on, in a fold.
    min_variance : float
        The variance of the folds is taken to be at least this.

    Raises
    ------
    DataError
        If there are fewer than two folds, a difference is not finite, or there is nothing to fit or score.
    """
    values = np.asarray(differences, np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all() or not (n_train > 0 and n_test > 0):
        raise DataError(
            "Expected the differences of at least two folds, finite, and images to fit and to score. "
            f"Received: {values}, {n_train:g} and {n_test:g} images."
        )
    n, mean = len(values), float(values.mean())
    if mean == 0:
        return 1.0
    variance = max(float(values.var(ddof=1)), min_variance) * (1 / n + n_test / n_train)
    if variance == 0:
        return 0.0
    return float(2 * stats.t.sf(abs(mean) / np.sqrt(variance), n - 1))


def mcnemar(
    y_true: NDArray[np.integer[Any]],
    predicted_a: NDArray[np.integer[Any]],
    predicted_b: NDArray[np.integer[Any]],
    *,
    mid_p: bool = True,
) -> float:
    """Return the two-sided p-value of two heads being right equally often on the same images.

    Binomial, on the images that one head has right and the other wrong (McNemar, Psychometrika 12, 1947); the mid-p version
    is less timid and keeps its level in practice (Fagerland, Lydersen & Laake, BMC Medical Research Methodology 13:91, 2013).

    It takes the images to be independent. Where some belong together (a patient, near-duplicates), and for predictions of
    cross-validation, whose heads share training images, p-values are too small; :func:`compare` is for those.

    Parameters
    ----------
    y_true, predicted_a, predicted_b : ndarray of shape (n_samples,), int
        True classes, and those that each head predicts.
    mid_p : bool
        False for the exact version.

    Raises
    ------
    DataError
        If they are not of one length.
    """
    if not len(y_true) == len(predicted_a) == len(predicted_b):
        raise DataError(
            "Expected as many predictions of both heads as labels. "
            f"Received: {len(y_true)} labels, {len(predicted_a)} and {len(predicted_b)} predictions."
        )
    a, b = np.asarray(predicted_a) == y_true, np.asarray(predicted_b) == y_true
    fewer, n = min(int((a & ~b).sum()), int((~a & b).sum())), int((a != b).sum())
    tail = stats.binom.cdf(fewer, n, 0.5) - (stats.binom.pmf(fewer, n, 0.5) / 2 if mid_p else 0.0)
    return float(min(1.0, 2 * tail))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return p-values corrected for their number: below 5 % with probability 5 % for any at all, if none is real.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.
    """
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def compare(fold_accuracy: Mapping[str, ArrayLike], n_train: float, n_test: float, best: str) -> dict[str, float]:
    """Return the p-value of each other head's accuracy being that of the best one (:data:`TEST_METHOD`).

    An accuracy is a count of images, so that equal differences in all folds are not taken for certainty: the variance of the
    folds is at least that of rounding to whole images, 1/12 of one squared.

    Parameters
    ----------
    fold_accuracy : mapping of str to array-like of shape (n_folds,)
        Of each head, by its name, on the same folds in the same order.
    n_train, n_test : float
        Images fitted on, and scored on, in a fold.
    best : str
        Name of the head that the others are compared with.

    Raises
    ------
    DataError
        If there is no such head, or the heads were not on the same folds.
    """
    folds = {name: np.asarray(values, np.float64) for name, values in fold_accuracy.items()}
    if best not in folds or len({values.shape for values in folds.values()}) > 1:
        received = ", ".join(f"{name} of {len(values)} folds" for name, values in folds.items())
        raise DataError(f"Expected {best!r} among heads of the same folds. Received: {received}.")
    names = [name for name in folds if name != best]
    rounding = 1 / (12 * n_test**2)
    p_values = [
        corrected_resampled_t(folds[name] - folds[best], n_train, n_test, min_variance=rounding) for name in names
    ]
    return dict(zip(names, holm(p_values).tolist(), strict=True))
