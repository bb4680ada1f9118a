from collections.abc import Iterator

import numpy as np
import pytest

from fye_rt import arrays
from fye_rt.errors import NumericalError


@pytest.fixture(params=["numpy", "native"])
def twin(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "native" and arrays.native is None:
        pytest.skip("the native module is not built here")
    if request.param == "numpy":
        monkeypatch.setattr(arrays, "native", None)
    yield request.param


def _random(*shape: int) -> arrays.Array:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("shape", [(1,), (1, 4, 5, 3, 7), (1, 4, 0, 3, 7)])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_weighted_sum_is_rounded_once(twin: str, shape: tuple[int, ...], count: int) -> None:
    terms = list(_random(count, *shape))
    weights = [0.3, -1.7, 1e-4, 3.5][:count]
    expected = sum(np.float64(weight) * term.astype(np.float64) for weight, term in zip(weights, terms, strict=True))
    # the order of the float64 sum may move it over a float32 rounding boundary: one unit in the last place
    np.testing.assert_allclose(arrays.weighted_sum(terms, weights), np.float32(expected), rtol=1.2e-7, atol=0)


def test_weighted_sum_may_overwrite_one_of_its_terms(twin: str) -> None:
    x, v = _random(2, 1, 4, 3, 5, 5)
    expected = arrays.weighted_sum((x, v), (0.9, 0.1))
    assert arrays.weighted_sum((x, v), (0.9, 0.1), out=x) is x
    np.testing.assert_array_equal(x, expected)


def test_weighted_sum_leaves_its_terms_alone_and_takes_views(twin: str) -> None:
    x = _random(1, 4, 6, 5, 5)
    before = x.copy()
    strided = x[:, :, ::2]
    np.testing.assert_array_equal(arrays.weighted_sum((strided,), (2.0,)), before[:, :, ::2] * 2)
    np.testing.assert_array_equal(x, before)


def test_guidance_1_and_0_give_the_two_predictions(twin: str) -> None:
    uncond, cond = _random(2, 1, 4, 3, 5, 5)
    np.testing.assert_array_equal(arrays.guide(uncond, cond, 1.0), cond)
    np.testing.assert_array_equal(arrays.guide(uncond, cond, 0.0), uncond)
    # float32 evaluates the right-hand side with three roundings of numbers below 16
    np.testing.assert_allclose(arrays.guide(uncond, cond, 3.5), uncond + 3.5 * (cond - uncond), atol=4e-6)


def test_accumulate_adds_a_weighted_window_where_it_belongs() -> None:
    total = np.ones((1, 2, 5, 2, 3), np.float32)
    part = _random(1, 2, 3, 2, 3)
    frames, weights = np.array([4, 0, 1]), np.array([1.0, 0.5, 0.25])
    arrays.accumulate(total, part, frames, weights)
    for j, (frame, weight) in enumerate(zip(frames, weights, strict=True)):
        np.testing.assert_array_equal(total[:, :, frame], np.float32(1 + weight * part[:, :, j].astype(np.float64)))
    assert (total[:, :, 2:4] == 1).all()


def test_pixels_are_truncated_as_the_public_code_does(twin: str) -> None:
    levels = np.arange(256)
    exact = (levels / 255).astype(np.float32)
    expected = np.floor(exact * np.float32(255)).astype(np.uint8)
    np.testing.assert_array_equal(arrays.to_uint8(exact.reshape(1, 16, 16, 1))[0, :, :, 0].ravel(), expected)
    np.testing.assert_array_equal(arrays.to_uint8(np.float32([0, 0.999, 1])), [0, 254, 255])
    inside = ((levels + 0.5) / 256).astype(np.float32)
    np.testing.assert_array_equal(arrays.to_uint8(inside), np.floor(inside * np.float32(255)))


def test_pixels_outside_their_range_are_clamped_and_nan_is_refused(twin: str) -> None:
    np.testing.assert_array_equal(arrays.to_uint8(np.float32([-0.5, 1.5, np.inf, -np.inf])), [0, 255, 255, 0])
    with pytest.raises(NumericalError, match="NaN"):
        arrays.to_uint8(np.float32([0.5, np.nan]))


def test_another_type_is_not_taken_for_nan() -> None:
    if arrays.native is None:
        pytest.skip("the native module is not built here")
    with pytest.raises(ValueError, match="float32"):
        arrays.to_uint8(np.zeros(3))  # type: ignore[arg-type]


def test_masked_sum_chooses_a_row_of_weights_for_every_place(twin: str) -> None:
    first, second = _random(2, 1, 4, 3, 5, 7)
    mask = np.random.default_rng(1).random((3, 5, 7)) < 0.5
    made = arrays.masked_sum((first, second), (2.0, 1.0), (-1.0, 0.5), mask)
    expected = np.where(mask, 2 * first.astype(np.float64) + second, 0.5 * second.astype(np.float64) - first)
    np.testing.assert_array_equal(made, np.float32(expected))
