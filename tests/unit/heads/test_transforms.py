from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse

from headstart.backbones.vgg16 import VGG16
from headstart.errors import HeadstartError
from headstart.heads.head_specs import N_CROPS
from headstart.heads.transforms import SqrtL2Scaler, average_crops, design_matrix, generalised_mean, make_scaler
from headstart.types import FeatureBatch


@pytest.fixture
def batch() -> FeatureBatch:
    rng = np.random.default_rng(0)
    maps = np.maximum(rng.normal(size=(5, 7, 7, 16)), 0).astype(np.float16)
    return FeatureBatch(maps, rng.random((5, 1472), dtype=np.float32), VGG16.column_layers)


def test_poolings_are_those_of_numpy(batch: FeatureBatch) -> None:
    maps = batch.features.astype(np.float32)
    for name, expected in (
        ("flatten", maps.reshape(5, -1)),
        ("avg", maps.mean(axis=(1, 2))),
        ("max", maps.max(axis=(1, 2))),
        ("gem", np.cbrt((maps.astype(np.float64) ** 3).mean(axis=(1, 2)))),
    ):
        matrix = design_matrix([batch], (name,))
        assert matrix.dtype == np.float32
        np.testing.assert_allclose(matrix, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("size", ["smallest_subnormal", "smallest_normal", "max"])
def test_the_generalised_mean_holds_for_the_smallest_and_the_largest_numbers(dtype: type, size: str) -> None:
    value = getattr(np.finfo(dtype), size)
    maps = np.zeros((1, 2, 2, 3), dtype)
    maps[0, :, :, 1] = value
    maps[0, 0, 0, 2] = value
    expected = np.array([0.0, float(value), float(value) / np.cbrt(4.0)])
    atol = float(np.finfo(np.float32).smallest_subnormal)
    np.testing.assert_allclose(generalised_mean(maps)[0], expected, rtol=1e-6, atol=atol)


@given(
    arrays(np.float32, (2, 3, 3, 2), elements=st.floats(0, 100, width=32)),
    st.sampled_from([0.5, 4.0]),
)
def test_the_generalised_mean_lies_between_average_and_maximum(maps: np.ndarray, factor: float) -> None:
    pooled = generalised_mean(maps)
    assert (pooled >= maps.mean(axis=(1, 2)) * (1 - 1e-5)).all()
    assert (pooled <= maps.max(axis=(1, 2)) * (1 + 1e-5)).all()
    np.testing.assert_allclose(generalised_mean(maps * np.float32(factor)), pooled * factor, rtol=1e-4, atol=1e-37)


def test_crops_are_averages_of_the_map_and_its_corners(batch: FeatureBatch) -> None:
    maps = batch.features.astype(np.float32)
    views = [maps, maps[:, :6, :6], maps[:, :6, 1:], maps[:, 1:, :6], maps[:, 1:, 1:]]
    expected = np.concatenate([view.mean(axis=(1, 2)) for view in views], axis=1)
    np.testing.assert_allclose(design_matrix([batch], ("crops",)), expected, rtol=1e-6)
    assert expected.shape == (5, N_CROPS * 16)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (2, 2)])
def test_crops_of_the_smallest_maps_are_not_empty(shape: tuple[int, int]) -> None:
    maps = np.arange(3 * np.prod(shape), dtype=np.float32).reshape(1, *shape, 3)
    crops = average_crops(maps).reshape(N_CROPS, 3)
    assert np.isfinite(crops).all()
    np.testing.assert_allclose(crops[0], maps.mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(crops[1:].mean(axis=0), crops[0], rtol=1e-6)


def test_pooled_layers_are_their_columns(batch: FeatureBatch) -> None:
    start = 0
    for name, width in (("block1_conv2", 64), ("block2_conv2", 128), ("block3_conv3", 256)):
        np.testing.assert_array_equal(design_matrix([batch], (name,)), batch.pooled[:, start : start + width])
        start += width


def test_features_are_joined_in_the_order_they_are_named(batch: FeatureBatch) -> None:
    matrix = design_matrix([batch], ("block4_conv3", "avg"), n_samples=5)
    np.testing.assert_array_equal(matrix[:, :512], design_matrix([batch], ("block4_conv3",)))
    np.testing.assert_array_equal(matrix[:, 512:], design_matrix([batch], ("avg",)))


def test_batches_are_stacked_in_order(batch: FeatureBatch) -> None:
    parts = [FeatureBatch(batch.features[i : i + 2], batch.pooled[i : i + 2]) for i in range(0, 5, 2)]
    for n_samples in (None, 5):
        np.testing.assert_array_equal(
            design_matrix(parts, ("max",), n_samples=n_samples), design_matrix([batch], ("max",))
        )


@pytest.mark.parametrize("n_samples", [4, 6])
def test_a_wrong_number_of_rows_is_refused(batch: FeatureBatch, n_samples: int) -> None:
    with pytest.raises(HeadstartError, match=f"Expected features of {n_samples} images. Received: 5"):
        design_matrix([batch], ("avg",), n_samples=n_samples)


@pytest.mark.parametrize("features", [("mean",), (), ("avg", "block6_conv1")])
def test_unknown_features_are_refused_with_those_that_exist(batch: FeatureBatch, features: tuple[str, ...]) -> None:
    with pytest.raises(HeadstartError, match="flatten, avg, max, gem, crops, block1_conv2"):
        design_matrix([batch], features)


def test_sqrt_l2_by_hand() -> None:
    X = np.array([[9.0, 16.0, 0.0], [-4.0, 0.0, 0.0], [0.0, 0.0, 0.0]], np.float32)
    expected = np.array([[0.6, 0.8, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    before = X.copy()
    np.testing.assert_allclose(SqrtL2Scaler().fit_transform(X), expected, atol=1e-7)
    np.testing.assert_array_equal(X, before)
    csr = SqrtL2Scaler().fit_transform(sparse.csr_matrix(X))
    np.testing.assert_allclose(csr.toarray(), expected, atol=1e-7)


@pytest.mark.parametrize("name", ["sqrt-l2", "l2", "standard", "none"])
def test_scalers_keep_float32(name: str, batch: FeatureBatch) -> None:
    X = design_matrix([batch], ("avg",))
    assert make_scaler(name).fit_transform(X).dtype == np.float32


def test_an_unknown_scaling_is_refused() -> None:
    with pytest.raises(HeadstartError, match="sqrt-l2, l2, standard, none"):
        make_scaler("minmax")


def test_features_of_several_recipes_lie_side_by_side(batch: FeatureBatch) -> None:
    other = replace(batch, features=batch.features[:, :3, :3])
    joined = design_matrix([replace(batch, others=(other,))], ("2:max", "avg", "1:block1_conv2"))
    expected = [design_matrix([batch], ("avg", "block1_conv2")), design_matrix([other], ("max", "avg"))]
    np.testing.assert_array_equal(joined, np.hstack(expected))


@pytest.mark.parametrize(
    ("features", "reason"),
    [
        (("1:avg",), "none of cache 2"),
        (("avg", "3:max"), "no cache of the feature '3:max'"),
        (("avg", "0:max"), "no cache of the feature '0:max'"),
        (("avg", "2:mean"), "Unknown features mean"),
    ],
)
def test_features_of_no_recipe_are_refused(batch: FeatureBatch, features: tuple[str, ...], reason: str) -> None:
    with pytest.raises(HeadstartError, match=reason):
        design_matrix([replace(batch, others=(batch,))], features)


@pytest.mark.parametrize("name", ["sqrt-l2", "l2", "standard"])
def test_every_block_is_scaled_on_its_own(name: str) -> None:
    X = np.random.default_rng(0).random((20, 7), dtype=np.float32)
    X[:, 3:] *= 1000
    scaler = make_scaler(name, (3, 4))
    expected = np.hstack([make_scaler(name).fit_transform(X[:, :3]), make_scaler(name).fit_transform(X[:, 3:])])
    found = scaler.fit_transform(X)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    if name == "standard":  # learned block by block of rows
        streamed = make_scaler(name, (3, 4)).partial_fit(X[:8]).partial_fit(X[8:])
        np.testing.assert_allclose(streamed.transform(X), expected, atol=1e-5)
    else:
        assert not hasattr(scaler, "partial_fit")
        np.testing.assert_allclose(scaler.transform(sparse.csr_matrix(X)).toarray(), expected, rtol=1e-6)


def test_blocks_are_all_columns() -> None:
    with pytest.raises(ValueError, match="Received: 7 columns"):
        make_scaler("l2", (3, 3)).fit(np.ones((2, 7)))
