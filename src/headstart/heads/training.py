"""The epochs of a dense head's training: rows held out, loss watched, stopped at its best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.heads.network import EpochRunner
    from headstart.heads.packed import HeldOut

    Pair = tuple[NDArray[np.float32], NDArray[np.intp]]
    Watched = HeldOut | list[Pair]
    History = dict[str, list[float]]

#: Rows that are predicted at a time.
ROWS_AT_ONCE = 1024


def hold_out(
    codes: NDArray[np.intp], validation_fraction: float, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return rows to train on and rows to watch, ascending: a share of every class, and never all of one.

    Raises
    ------
    DataError
        If no class has a row to spare.
    """
    order = np.random.default_rng(seed).permutation(len(codes))
    by_class = [order[codes[order] == code] for code in np.unique(codes)]
    counts = [min(round(validation_fraction * len(rows)), len(rows) - 1) for rows in by_class]
    held_out = np.concatenate([rows[:count] for rows, count in zip(by_class, counts, strict=True)])
    if not len(held_out):
        raise DataError(
            f"early_stopping needs rows to hold out. Received: {len(codes)} rows and "
            f"validation_fraction={validation_fraction}."
        )
    return np.setdiff1d(np.arange(len(codes)), held_out), np.sort(held_out)


def run_epochs(
    network: Any,
    run_epoch: EpochRunner,
    train: NDArray[np.intp],
    watched: Watched,
    *,
    epochs: int,
    patience: int | None,
    seed: int,
    views: int = 1,
) -> History:
    """Train for some epochs, the rows in a new order in each; return loss and accuracy of each.

    Parameters
    ----------
    network : keras.Model
        What ``run_epoch`` trains.
    run_epoch : callable
        As of :func:`headstart.heads.network.compile_epoch`; of rows with several views it is given numbers of views.
    train : ndarray of int
        The rows to train on.
    watched : blocks of (X, codes)
        Rows whose loss and accuracy are kept too; may be empty.
    epochs : int
        At most.
    patience : int or None
        Stop when the watched loss has not fallen for so many epochs, and take the weights of the best one. None: train to the
        end, whatever is watched.
    seed : int
        Of the orders.
    views : int
        Of each row: in every epoch, each goes by one of them, drawn at random. Watched rows are predicted by all.
    """
    rng = np.random.default_rng(seed)
    history: History = {"loss": [], "accuracy": []}
    best, best_weights, waited = np.inf, None, 0
    for _ in range(epochs):
        order = rng.permutation(train)
        if views > 1:
            order = order * views + rng.integers(views, size=len(order))
        loss, n_right = run_epoch(order.astype(np.int32))
        history["loss"].append(loss / len(train))
        history["accuracy"].append(n_right / len(train))
        if not watched:
            continue
        watched_loss = watch(network, watched, history, views)
        if patience is None:
            continue
        if watched_loss < best:
            best, best_weights, waited = watched_loss, network.get_weights(), 0
        elif (waited := waited + 1) >= patience:
            break
    if best_weights is not None:
        network.set_weights(best_weights)
    return history


def watch(network: Any, watched: Watched, history: History, views: int) -> float:
    """Add loss and accuracy of the watched rows to the history; return the loss."""
    pairs = [(probabilities(network, X, views), codes) for X, codes in watched]
    predicted = np.concatenate([block for block, _ in pairs])
    codes = np.concatenate([block for _, block in pairs])
    loss = float(-np.log(np.maximum(predicted[np.arange(len(codes)), codes], 1e-7)).mean())
    history.setdefault("val_loss", []).append(loss)
    history.setdefault("val_accuracy", []).append(float((predicted.argmax(axis=1) == codes).mean()))
    return loss


def probabilities(network: Any, X: NDArray[np.float32], views: int = 1) -> NDArray[np.float32]:
    """Return what a network predicts, shape (n_samples, n_classes), float32, taken some rows at a time.

    Of rows with several views, the mean of what it predicts for each.

    Computed in float64: on some processors the last digit of a float32 product depends on a row's place among the others.
    """
    weighted = [layer for layer in network.layers if layer.get_weights()]
    layers = [(layer.activation, *(part.astype(np.float64) for part in layer.get_weights())) for layer in weighted]
    chunks = []
    for start in range(0, len(X), ROWS_AT_ONCE):
        rows = X[start : start + ROWS_AT_ONCE].astype(np.float64)
        values = as_views(rows, views)
        for activation, kernel, bias in layers:
            values = activation(values @ kernel + bias).numpy()
        chunks.append(values.reshape(len(rows), views, -1).mean(axis=1).astype(np.float32))
    return np.concatenate(chunks)


def as_views(X: NDArray[Any], views: int) -> NDArray[Any]:
    """Return the views of each row one below the other, shape (n_samples * views, n_features / views)."""
    return X.reshape(-1, X.shape[1] // views)
