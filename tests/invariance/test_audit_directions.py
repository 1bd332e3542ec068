"""Principal components of changes, against planted ones and the singular value decomposition."""

import numpy as np
import pytest
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.audit.directions import directions, step_along

SHAPE = (12, 20)


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def patterns(count):
    """Orthogonal images of unit norm."""
    q, _ = np.linalg.qr(normal(SHAPE[0] * SHAPE[1], count).astype(np.float64))
    return q.T.reshape(count, *SHAPE)


def test_planted_directions_are_found():
    spreads = np.array([30.0, 10.0, 3.0])
    amounts = normal(300, 3).astype(np.float64)
    amounts = (amounts - amounts.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(amounts.T))).T
    planted = patterns(3) * spreads[:, None, None]
    found = directions((5 + np.tensordot(amounts, planted, 1)).astype(np.float32), count=5)
    assert len(found.components) == 3
    np.testing.assert_allclose(found.explained, spreads**2 / (spreads**2).sum(), rtol=1e-3)
    np.testing.assert_allclose(found.mean, 5, rtol=1e-4)
    for component, truth in zip(found.components, planted, strict=True):
        sign = np.sign(truth.flat[np.abs(truth).argmax()])
        np.testing.assert_allclose(component, sign * truth, atol=0.02)
    np.testing.assert_allclose(found.positions.std(0, ddof=1), 1, rtol=1e-3)


@pytest.mark.parametrize("count", [1, 3, 100])
def test_against_the_singular_value_decomposition(count):
    changes = normal(7, *SHAPE) * np.linspace(1, 9, 7, dtype=np.float32)[:, None, None]
    found = directions(changes, count)
    rows = changes.reshape(7, -1).astype(np.float64)
    _, values, vectors = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    keep = min(count, 6)
    assert found.components.shape == (keep, *SHAPE)
    np.testing.assert_allclose(found.explained, (values**2 / (values**2).sum())[:keep], rtol=1e-5)
    overlap = np.einsum("dp,dp->d", found.components.reshape(keep, -1), vectors[:keep])
    np.testing.assert_allclose(np.abs(overlap), values[:keep] / np.sqrt(6), rtol=1e-5)
    if count == 100:
        again = found.mean + np.tensordot(found.positions, found.components, 1)
        np.testing.assert_allclose(again, changes, atol=1e-4)


def test_what_a_linear_layer_does_not_see_stays_hidden():
    changes = normal(5, *SHAPE)
    changes[..., 10:] = 0
    found = directions(changes)
    assert not found.components[..., 10:].any()
    assert not found.mean[..., 10:].any()


def test_changes_that_are_all_alike_have_no_direction():
    found = directions(np.ones((4, *SHAPE), np.float32))
    assert found.components.shape == (0, *SHAPE)
    assert found.explained.shape == (0,)
    assert found.positions.shape == (4, 0)


def test_steps():
    x, component = normal(*SHAPE), normal(*SHAPE, seed=1)
    images = step_along(x, component, (-1.0, 0.0, 2.5))
    np.testing.assert_array_equal(images[1], x)
    np.testing.assert_allclose(images[2] - x, 2.5 * component, atol=1e-5)
    assert images.dtype == np.float32
    with pytest.raises(CtinvError, match="must agree"):
        step_along(x, component[1:])


@pytest.mark.parametrize("shape", [(1, 4, 4), (4, 4)])
def test_one_change_has_no_direction(shape):
    with pytest.raises(CtinvError, match="K >= 2"):
        directions(np.zeros(shape, np.float32))
