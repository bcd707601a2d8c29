"""Entries of the catalogue for heads that predict a number, a level or an anomaly; importing it imports no estimator."""

from __future__ import annotations

import sys

from headstart.heads.entries.head_entry import HeadType
from headstart.heads.head_specs import (
    ACTIVATION,
    COUNT,
    GAMMA,
    METRIC,
    NOT_NEGATIVE,
    POSITIVE,
    RATE,
    SCHEDULE,
    SHARE,
    UNITS,
    Parameter,
)

TASK = "regression"

PENALTY = "Strength of the L2 penalty."

#: Parameters of the RBF kernel.
KERNEL = {
    "gamma": Parameter("scale", GAMMA, "Kernel coefficient, as in sklearn.svm.SVR."),
    "gamma_factor": Parameter(1.0, POSITIVE, "Factor that gamma is multiplied by."),
}

#: Kernels take time and memory that grow with the square of the images.
MAX_KERNEL_IMAGES = 5_000

REGRESSION_TYPES: dict[str, HeadType] = {
    "ridge-regression": HeadType(
        estimator="headstart.heads.regression.number_heads.RidgeRegressionHead",
        task=TASK,
        params={"alpha": Parameter(1.0, POSITIVE, PENALTY)},
        grid={"alpha": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)},
        searched_by=("fit-head", "benchmark-heads"),
        grid_solver="headstart.heads.regression.number_paths.along_ridge",
        rotation_invariant=True,
        matrix_copies=6,
        max_square=sys.maxsize,  # always
    ),
    "kernel-ridge": HeadType(
        estimator="headstart.heads.regression.number_heads.KernelRidgeHead",
        task=TASK,
        params={"alpha": Parameter(0.1, POSITIVE, PENALTY), **KERNEL},
        grid={"alpha": (0.01, 0.03, 0.1, 0.3, 1.0), "gamma_factor": (0.1, 0.3, 1.0, 3.0)},
        max_search_images=MAX_KERNEL_IMAGES,
        grid_solver="headstart.heads.regression.number_paths.along_kernel_ridge",
        rotation_invariant=True,
        matrix_copies=6,
        max_square=sys.maxsize,
    ),
    "svr": HeadType(
        estimator="headstart.heads.regression.number_heads.SVRHead",
        task=TASK,
        params={
            "C": Parameter(1.0, POSITIVE, "Inverse strength of regularisation."),
            "epsilon": Parameter(
                0.1, NOT_NEGATIVE, "Errors up to this, in standard deviations of the numbers, cost nothing."
            ),
            **KERNEL,
        },
        grid={"C": (0.3, 1.0, 3.0, 10.0), "gamma_factor": (0.1, 0.3, 1.0, 3.0)},
        max_search_images=MAX_KERNEL_IMAGES,
        grid_solver="headstart.heads.regression.number_paths.along_svr",
        rotation_invariant=True,
        matrix_copies=6,
    ),
    "knn-regression": HeadType(
        estimator="headstart.heads.regression.number_heads.NeighboursRegressionHead",
        task=TASK,
        params={
            "n_neighbors": Parameter(10, COUNT, "Number of neighbors, whose mean is predicted."),
            "metric": Parameter("cosine", METRIC, "Distance between rows of features."),
        },
        grid={"n_neighbors": (1, 3, 5, 10, 20, 40)},
        rotation_invariant=True,
    ),
    "dense-regression": HeadType(
        estimator="headstart.heads.regression.dense_regression.DenseRegressionHead",
        task=TASK,
        features=("crops",),
        scaling="l2",
        params={
            "hidden": Parameter((256,), UNITS, "Units of the hidden layers."),
            "activation": Parameter("relu", ACTIVATION, "Activation of the hidden layers."),
            "dropout": Parameter(0.0, RATE, "Fraction of hidden units dropped in each step."),
            "epochs": Parameter(40, COUNT, "Passes over the data."),
            "batch_size": Parameter(32, COUNT, "Images per step."),
            "learning_rate": Parameter(0.003, POSITIVE, "Learning rate of Adam."),
            "schedule": Parameter("linear", SCHEDULE, "Learning rate over the epochs: constant, or falling to 0."),
            "l2": Parameter(0.0, NOT_NEGATIVE, "L2 penalty on the kernels."),
            "views": Parameter(
                1, COUNT, "Equally wide parts of a row that show the same image; 5 on crops unless set."
            ),
        },
        grid={"learning_rate": (0.001, 0.003, 0.01), "epochs": (20, 40)},
        searched_by=(),
        keras=True,
    ),
}

ORDER_TYPES: dict[str, HeadType] = {
    "ordinal-ridge": HeadType(
        estimator="headstart.heads.regression.ordinal_ridge.OrdinalRidgeHead",
        task="order",
        params={"alpha": Parameter(1.0, POSITIVE, PENALTY)},
        grid=REGRESSION_TYPES["ridge-regression"].grid,
        searched_by=("fit-head", "benchmark-heads"),
        grid_solver="headstart.heads.regression.ordinal_ridge.along_ordinal_ridge",
        rotation_invariant=True,
        matrix_copies=6,
        max_square=sys.maxsize,
    ),
}

FALSE_ALARMS = Parameter(0.05, SHARE, "Share of normal images beyond the threshold.")

ANOMALY_TYPES: dict[str, HeadType] = {
    "anomaly": HeadType(
        estimator="headstart.heads.regression.anomaly_heads.MahalanobisHead",
        task="anomaly",
        params={
            "shrinkage_factor": Parameter(1.0, POSITIVE, "Factor of the covariance's shrinkage by Ledoit and Wolf."),
            "false_alarms": FALSE_ALARMS,
        },
        grid={"shrinkage_factor": (0.1, 1.0, 10.0)},
        matrix_copies=6,
        max_square=4096,
    ),
    "anomaly-knn": HeadType(
        estimator="headstart.heads.regression.anomaly_heads.NearestNormalHead",
        task="anomaly",
        params={
            "n_neighbors": Parameter(3, COUNT, "Number of nearest normal images."),
            "metric": Parameter("cosine", METRIC, "Distance between rows of features."),
            "false_alarms": FALSE_ALARMS,
        },
        grid={"n_neighbors": (1, 3, 10)},
        matrix_copies=6,
    ),
    "anomaly-patches": HeadType(
        estimator="headstart.heads.regression.anomaly_heads.PatchMemoryHead",
        task="anomaly",
        features=("flatten",),
        scaling="none",
        params={
            "positions": Parameter(49, COUNT, "Positions of the map, e.g. 49 of VGG16 at 224 pixels."),
            "memory_size": Parameter(1000, COUNT, "Positions of normal maps that are kept."),
            "false_alarms": FALSE_ALARMS,
        },
        grid={"memory_size": (300, 1000, 3000)},
        searched_by=(),
        matrix_copies=6,
    ),
}
