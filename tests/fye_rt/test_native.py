from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fye_rt import arrays
from tests.fye_rt.command_line import python

_native = pytest.importorskip("fye_rt._native", reason="it is not built here; `pip install -e .` builds it")

# one value, less than a block, a block, a block and a rest, and enough for several threads with a rest
SIZES = [0, 1, 7, 1023, 1024, 1025, 300_007]


@pytest.fixture(autouse=True, params=["avx512f", "avx2", "generic"])
def instructions(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test here is run once with each of the sets of instructions that the loops were compiled for."""
    if request.param not in _native.instruction_sets():
        pytest.skip(f"this processor has no {request.param}")
    before = _native.instruction_set()
    _native.use_instruction_set(request.param)
    yield request.param
    _native.use_instruction_set(before)


def expected_sum(terms: list[NDArray[np.float32]], weights: list[float]) -> NDArray[np.float32]:
    total = np.zeros(terms[0].shape, np.float64)
    for term, weight in zip(terms, weights, strict=True):
        total += weight * term.astype(np.float64)
    return total.astype(np.float32)


def random_terms(count: int, *shape: int) -> list[NDArray[np.float32]]:
    random = np.random.default_rng(len(shape) + count)
    return [random.standard_normal(shape, np.float32) for _ in range(count)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_weighted_sum_has_the_bits_of_a_float64_sum_rounded_once(size: int, count: int) -> None:
    terms = random_terms(count, size)
    weights = [1.7, -0.3, 1e-3, 12.0, -1.0, 0.5, 0.25, 0.125][:count]
    out = np.full(size, np.nan, np.float32)
    _native.weighted_sum(out, terms, weights)
    np.testing.assert_array_equal(out, expected_sum(terms, weights))


@pytest.mark.parametrize("plane", [(1,), (7,), (3, 11, 13), (41, 63, 65)])
def test_masked_sum_has_the_bits_of_two_sums(plane: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    terms = random_terms(3, 1, 4, *plane)
    mask = np.random.default_rng(0).random(plane) < 0.5
    weights = [0.5, -1.25, 3.0], [1e-3, 0.0, 7.0]
    made = arrays.masked_sum(terms, *weights, mask)
    monkeypatch.setattr(arrays, "native", None)
    np.testing.assert_array_equal(made, arrays.masked_sum(terms, *weights, mask))


def test_masked_sum_refuses_masks_and_weights_that_do_not_fit() -> None:
    terms, out = random_terms(2, 1, 4, 3, 5), np.empty((1, 4, 3, 5), np.float32)
    good = np.ones((3, 5), np.bool_)
    for mask in (np.ones((3, 5), np.uint8), np.ones((5, 3), np.bool_).T, None):
        with pytest.raises(ValueError, match="mask must be a C-contiguous bool array"):
            _native.masked_sum(out, terms, [1.0, 1.0], [1.0, 1.0], mask)
    with pytest.raises(ValueError, match="mask has shape"):
        _native.masked_sum(out, terms, [1.0, 1.0], [1.0, 1.0], np.ones((5, 3), np.bool_))
    for inside, outside in (([1.0], [1.0, 1.0]), ([1.0, 1.0], [1.0])):
        with pytest.raises(ValueError, match="2 terms and 1 weights"):
            _native.masked_sum(out, terms, inside, outside, good)


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_weighted_sum_may_write_into_one_of_its_terms(position: int, size: int) -> None:
    terms = random_terms(3, size)
    expected = expected_sum(terms, [0.9, 0.2, -0.4])
    _native.weighted_sum(terms[position], terms, [0.9, 0.2, -0.4])
    np.testing.assert_array_equal(terms[position], expected)


def test_weighted_sum_takes_one_array_several_times() -> None:
    (latents,) = random_terms(1, 2, 3, 5)
    expected = expected_sum([latents, latents], [0.75, -0.5])
    _native.weighted_sum(latents, [latents, latents], [0.75, -0.5])
    np.testing.assert_array_equal(latents, expected)


def test_weighted_sum_takes_read_only_terms() -> None:
    (term,) = random_terms(1, 5)
    term.flags.writeable = False
    out = np.empty(5, np.float32)
    _native.weighted_sum(out, [term], [2.0])
    np.testing.assert_array_equal(out, 2 * term)


def test_weighted_sum_refuses_arrays_it_would_have_to_convert() -> None:
    good = np.zeros((4, 6), np.float32)
    frozen = good.copy()
    frozen.flags.writeable = False
    for term in (good.astype(np.float64), good.astype(np.float16), np.zeros((6, 4), np.float32).T, good.tolist(), None):
        with pytest.raises(ValueError, match=r"terms\[1\] must be a C-contiguous float32 array"):
            _native.weighted_sum(good, [good, term], [1.0, 1.0])
    for out in (good.astype(np.float64), np.zeros((6, 4), np.float32).T, frozen, None):
        with pytest.raises(ValueError, match="out must be a writable, C-contiguous float32 array"):
            _native.weighted_sum(out, [good], [1.0])


def test_weighted_sum_refuses_shapes_and_weights_that_do_not_match() -> None:
    good = np.zeros((4, 6), np.float32)
    with pytest.raises(ValueError, match=r"terms\[0\] has shape \(6, 4\), out has \(4, 6\)"):
        _native.weighted_sum(good, [np.zeros((6, 4), np.float32)], [1.0])
    with pytest.raises(ValueError, match="1 terms and 2 weights"):
        _native.weighted_sum(good, [good], [1.0, 1.0])
    with pytest.raises(ValueError, match="0 terms and 0 weights"):
        _native.weighted_sum(good, [], [])


def test_a_term_that_overlaps_out_in_part_is_refused() -> None:
    memory = np.zeros(100, np.float32)
    for out, term in ((memory[:50], memory[49:99]), (memory[1:51], memory[:50])):
        with pytest.raises(ValueError, match=r"terms\[0\] overlaps out"):
            _native.weighted_sum(out, [term], [1.0])
    _native.weighted_sum(memory[:50], [memory[50:]], [1.0])  # neighbours don't overlap


@pytest.mark.parametrize("shape", [(0,), (1,), (3, 5, 7, 3), (2, 601, 1003, 3)])
def test_to_uint8_truncates_the_float32_product(shape: tuple[int, ...]) -> None:
    frames = np.random.default_rng(0).random(shape, np.float32)
    pixels = _native.to_uint8(frames)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, (frames * 255).astype(np.uint8))


def test_to_uint8_is_exact_beside_every_step_of_the_output() -> None:
    steps = (np.arange(256) / 255).astype(np.float32)
    frames = np.concatenate([steps, np.nextafter(steps, np.float32(0)), np.nextafter(steps, np.float32(1))])
    np.testing.assert_array_equal(_native.to_uint8(frames), (frames * 255).astype(np.uint8))


def test_to_uint8_clamps() -> None:
    frames = np.array([-np.inf, -1, -0.0, 1, 1.001, 300, 1e38, np.inf], np.float32)
    np.testing.assert_array_equal(_native.to_uint8(frames), [0, 0, 0, 255, 255, 255, 255, 255])


@pytest.mark.parametrize("index", [0, 1_500_000, 2_999_999])
def test_to_uint8_refuses_nan_wherever_it_stands(index: int) -> None:
    frames = np.zeros(3_000_000, np.float32)
    frames[index] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        _native.to_uint8(frames)


def test_to_uint8_refuses_arrays_it_would_have_to_convert() -> None:
    for frames in (np.zeros((2, 2)), np.zeros((4, 6), np.float32).T, np.zeros((4, 6), np.float32)[:, ::2], [0.5], None):
        with pytest.raises(ValueError, match="frames must be a C-contiguous float32 array"):
            _native.to_uint8(frames)


def test_pixels_outlive_the_frames_they_came_from() -> None:
    pixels = _native.to_uint8(np.full((64, 64, 3), 0.5, np.float32))
    np.testing.assert_array_equal(pixels, np.full((64, 64, 3), 127, np.uint8))
    pixels[0, 0] = 1  # and are writable


def test_threads_may_call_at_the_same_time() -> None:
    terms = random_terms(4, 200_001)
    expected = expected_sum(terms, [1.0, 2.0, 3.0, 4.0])
    results = [np.empty_like(terms[0]) for _ in range(4)]

    def add(out: NDArray[np.float32]) -> None:
        for _ in range(5):
            _native.weighted_sum(out, terms, [1.0, 2.0, 3.0, 4.0])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, results))
    for out in results:
        np.testing.assert_array_equal(out, expected)


def test_the_numpy_twins_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    terms = random_terms(3, 2, 5, 7)
    frames = np.random.default_rng(1).random((2, 5, 7, 3), np.float32)
    monkeypatch.setattr(arrays, "native", None)
    out = np.empty_like(terms[0])
    _native.weighted_sum(out, terms, [0.1, -0.7, 3.0])
    np.testing.assert_array_equal(out, arrays.weighted_sum(terms, [0.1, -0.7, 3.0]))
    np.testing.assert_array_equal(_native.to_uint8(frames), arrays.to_uint8(frames))


def test_the_fastest_instructions_are_the_default(instructions: str) -> None:
    found = _native.instruction_sets()
    assert _native.instruction_set() == instructions
    order = ["avx512f", "avx2", "generic"]
    assert found == [name for name in order if name in found] and found[-1] == "generic"
    fresh = python("-c", "from fye_rt import _native; print(_native.instruction_set())")
    assert fresh.stdout.strip() == found[0]
    flags = Path("/proc/cpuinfo")
    if flags.exists() and found[0] != "generic":
        assert found[0] in flags.read_text()


def test_unknown_instructions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"this processor has no sse9; allowed: .*generic"):
        _native.use_instruction_set("sse9")
