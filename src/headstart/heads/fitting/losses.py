"""What a linear head minimises over its scores: multinomial deviance, and the squared hinge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Loss(Protocol):
    """A loss of scores of shape (n_samples, n_outputs), summed over the rows with their weights."""

    @property
    def n_outputs(self) -> int:
        """Scores per row."""
        ...

    @property
    def penalised_intercept(self) -> bool:
        """Whether the penalty counts the intercepts too."""
        ...

    @property
    def weights(self) -> NDArray[np.float64]:
        """Of the rows, shape (n_samples,), float64."""
        ...

    def __call__(self, scores: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return the loss, and its derivative by each score."""
        ...

    def curvature(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the second derivative by each score."""
        ...

    def take(self, rows: NDArray[np.intp]) -> Loss:
        """Return the loss of some rows alone."""
        ...


@dataclass(frozen=True)
class Deviance:
    """Multinomial deviance, −log of the true class's probability; with two classes a single score is enough.

    Attributes
    ----------
    codes : ndarray of shape (n_samples,), int
        Index of the true class.
    n_classes : int
        Classes there are.
    weights : ndarray of shape (n_samples,), float64
        Of the rows.
    """

    codes: NDArray[np.intp]
    n_classes: int
    weights: NDArray[np.float64]
    penalised_intercept = False

    @property
    def n_outputs(self) -> int:
        """Scores per row."""
        return 1 if self.n_classes == 2 else self.n_classes

    def __call__(self, scores: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return the loss, and its derivative by each score."""
        wide, probabilities = self._probabilities(scores)
        rows = np.arange(len(wide))
        largest = wide.max(axis=1)
        log_sum = largest + np.log(np.exp(wide - largest[:, None]).sum(axis=1))
        slope = probabilities
        slope[rows, self.codes] -= 1.0
        slope *= self.weights[:, None]
        return float(self.weights @ (log_sum - wide[rows, self.codes])), slope[:, -self.n_outputs :]

    def curvature(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the second derivative by each score."""
        probabilities = self._probabilities(scores)[1][:, -self.n_outputs :]
        return probabilities * (1.0 - probabilities) * self.weights[:, None]

    def take(self, rows: NDArray[np.intp]) -> Deviance:
        """Return the loss of some rows alone."""
        return Deviance(self.codes[rows], self.n_classes, self.weights[rows])

    def _probabilities(self, scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        wide = np.hstack([np.zeros_like(scores), scores]) if self.n_classes == 2 else scores
        return wide, softmax(wide)


@dataclass(frozen=True)
class SquaredHinge:
    """``max(0, 1 − target · score)²`` of each class against the rest, as scikit-learn's ``LinearSVC``.

    Attributes
    ----------
    targets : ndarray of shape (n_samples, n_outputs), float64
        +1 for the class, −1 for the rest; with two classes one column, +1 for the second.
    weights : ndarray of shape (n_samples,), float64
        Of the rows.
    """

    targets: NDArray[np.float64]
    weights: NDArray[np.float64]
    penalised_intercept = True

    @property
    def n_outputs(self) -> int:
        """Scores per row."""
        return int(self.targets.shape[1])

    @classmethod
    def of_classes(cls, codes: NDArray[np.intp], n_classes: int, weights: NDArray[np.float64]) -> SquaredHinge:
        """Return the loss of these classes."""
        columns = np.array([1]) if n_classes == 2 else np.arange(n_classes)
        return cls(np.where(codes[:, None] == columns, 1.0, -1.0), weights)

    def __call__(self, scores: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return the loss, and its derivative by each score."""
        missing = np.maximum(0.0, 1.0 - self.targets * scores)
        weighted = missing * self.weights[:, None]
        return float((weighted * missing).sum()), -2.0 * self.targets * weighted

    def curvature(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the second derivative by each score, where there is one."""
        active: NDArray[np.float64] = 2.0 * (self.targets * scores < 1.0) * self.weights[:, None]
        return active

    def take(self, rows: NDArray[np.intp]) -> SquaredHinge:
        """Return the loss of some rows alone."""
        return SquaredHinge(self.targets[rows], self.weights[rows])


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities from scores, row by row."""
    exponentials: NDArray[np.float64] = np.exp(scores - scores.max(axis=1, keepdims=True))
    exponentials /= exponentials.sum(axis=1, keepdims=True)
    return exponentials
