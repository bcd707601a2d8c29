"""A Keras network of Dense layers as a scikit-learn regressor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from headstart.errors import ParameterError
from headstart.heads.fitting.dense_layers import as_views, probabilities
from headstart.heads.fitting.dense_training import Descent, compile_epoch, run_epochs, squared_error_step
from headstart.heads.fitting.saved_network import SavedNetwork
from headstart.heads.regression.number_heads import check_scale, standardised


class DenseRegressionHead(SavedNetwork, RegressorMixin, BaseEstimator):
    """Dense layers with ReLU, then one linear unit, trained by Adam on the squared error of standardised numbers.

    Parameters
    ----------
    hidden, activation, dropout, epochs, batch_size, learning_rate, schedule, l2, views, random_state
        As of :class:`headstart.heads.dense.DenseHead`.

    Attributes
    ----------
    network_ : keras.Model
        The fitted network; rows of features in (of several views: one of them), standardised numbers out.
    history_ : dict of str to list of float
        Loss per epoch, that of standardised numbers.
    mean_, scale_ : float
        Weighted mean and standard deviation of the numbers.
    """

    def __init__(
        self,
        hidden: Sequence[int] = (256,),
        *,
        activation: str = "relu",
        dropout: float = 0.0,
        epochs: int = 40,
        batch_size: int = 32,
        learning_rate: float = 0.003,
        schedule: str = "linear",
        l2: float = 0.0,
        views: int = 1,
        random_state: Any = None,
    ) -> None:
        self.hidden = hidden
        self.activation = activation
        self.dropout = dropout
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.l2 = l2
        self.views = views
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> DenseRegressionHead:
        """Train on rows of features, shape (n_samples, n_features), computed in float32, with their numbers and weights.

        Raises ParameterError if the columns cannot be divided into so many views, or the weights of the network have left
        the range of float32.
        """
        X, y = validate_data(self, X, y, dtype=np.float32, y_numeric=True)
        if X.shape[1] % self.views:
            raise ParameterError(
                f"{X.shape[1]} columns cannot be divided into views of the same width. Received: views={self.views}."
            )
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        wanted, self.mean_, self.scale_ = standardised(np.asarray(y, np.float64), weights)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.network_ = self._network(X.shape[1], seed)
        n_steps = int(self.epochs) * -(-len(X) // int(self.batch_size))
        descent = Descent(self.learning_rate, self.batch_size, n_steps, self.schedule)
        parts = (wanted.astype(np.float32), weights.astype(np.float32))
        data = (as_views(X, self.views), *(part.repeat(self.views) for part in parts))
        run_epoch = compile_epoch(self.network_, descent, data, squared_error_step)
        history = run_epochs(
            self.network_,
            run_epoch,
            np.arange(len(X)),
            [],
            epochs=self.epochs,
            patience=None,
            seed=seed,
            views=self.views,
        )
        self.history_ = {"loss": history["loss"]}
        if not all(np.isfinite(part).all() for part in self.network_.get_weights()):
            raise ParameterError(
                f"The weights left the range of float32 in training. Lower learning_rate (received: {self.learning_rate}), "
                "or scale the features."
            )
        return self

    def check_loaded(self) -> None:
        """Raise ValueError unless a head from a file has finite numbers; its network is checked when it is loaded."""
        check_scale(self)

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return numbers, shape (n_samples,), float64."""
        check_is_fitted(self, "history_")
        X = validate_data(self, X, dtype=np.float32, reset=False)
        numbers: NDArray[np.float64] = self.mean_ + self.scale_ * probabilities(self.layers(), X, self.views)[
            :, 0
        ].astype(np.float64)
        return numbers

    def _shape(self) -> dict[str, Any]:
        shape = {"activation": self.activation, "dropout": self.dropout, "l2": self.l2, "last": "linear"}
        return {"units": (*self.hidden, 1), **shape}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.non_deterministic = self.random_state is None
        return tags
