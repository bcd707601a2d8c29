"""Labels as heads take them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets

from headstart.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def encode(y: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the classes, sorted, and the index of each row's label among them.

    Raises
    ------
    DataError
        If there are fewer than two classes.
    ValueError
        If the labels are no classes, as numbers with fractions.
    """
    check_classification_targets(y)
    classes, indices = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise DataError(f"A classifier needs at least two classes. Received: 1 class, {classes[0]!r}.")
    return classes, indices.astype(np.int64)
