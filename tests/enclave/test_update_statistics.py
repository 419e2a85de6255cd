"""What is seen of an update in the pass that opens it.

Shapes: P parameters.
"""

import numpy as np
import pytest

from nerv_fl.enclave.update_statistics import SKETCH, Examiner, random_signs

P = 5_000


def examiner(*, small: float = 1.0) -> Examiner:
    return Examiner(np.eye(2, P), small=small, spacing=np.zeros_like, signs_L=random_signs(P))


def test_by_hand() -> None:
    update_P = np.zeros(P, dtype=np.float32)
    update_P[[0, 1, 2, 4999]] = [3.0, -4.0, 1.0, -12.0]

    traits = examiner()(update_P)

    assert (traits.num_small, traits.square, traits.public) == (P - 3, 170.0, 5.0)
    signs_L = random_signs(P)
    expected_D = np.zeros(SKETCH)
    for place in (0, 1, 2, 4999):
        expected_D[place % SKETCH] += signs_L[place] * update_P[place] / 170**0.5
    np.testing.assert_allclose(traits.sketch_D, expected_D, rtol=1e-6)
    assert traits.sketch_D.dtype == np.float32


def test_an_examiner_forgets_the_update_before() -> None:
    look, one_P = examiner(), np.ones(P, dtype=np.float32)
    first = look(one_P)
    look(np.full(P, 1e30, dtype=np.float32))

    assert np.array_equal(look(one_P).sketch_D, first.sketch_D)


@pytest.mark.parametrize("parts", [1, 4])
def test_sketches_keep_cosines_also_when_they_are_folded(parts: int) -> None:
    """Their errors have the variance that is promised, (1 + cos^2) / D at most: 300 pairs at a cosine of 0.6."""
    draw, look = np.random.default_rng(1), examiner()
    errors = []
    for _ in range(300):
        one_P, other_P = np.linalg.qr(draw.standard_normal((P, 2)))[0].T
        sketches = [look(np.asarray(update_P, "f4")).sketch_D for update_P in (one_P, 0.6 * one_P + 0.8 * other_P)]
        folded = [sketch_D.reshape(parts, -1).sum(axis=0) for sketch_D in sketches]
        errors.append(float(folded[0] @ folded[1]) - 0.6)

    std = (1.36 * parts / SKETCH) ** 0.5
    assert abs(float(np.mean(errors))) < 4 * std / 300**0.5
    assert 0.8 * std < float(np.std(errors)) < 1.2 * std


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_number_that_is_not_finite_shows_in_the_square(wrong: float) -> None:
    update_P = np.ones(P, dtype=np.float32)
    update_P[7] = wrong

    traits = examiner()(update_P)

    assert not np.isfinite(traits.square)
    assert not traits.sketch_D.any()


def test_zeros_have_no_direction() -> None:
    assert not examiner()(np.zeros(P, dtype=np.float32)).sketch_D.any()
