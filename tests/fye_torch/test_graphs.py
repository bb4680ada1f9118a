"""Evaluations are replayed from CUDA graphs, whose memory is bounded and whose captures disturb nobody."""

import gc
import logging
from collections.abc import Iterable
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from fye_torch import switches
from fye_torch.graphs import HIGH, REPAY, SHAPES, Memory, Replayed
from tests.fye_rt.backends.imitated_cuda import Cuda

SIZES = range(1, 41)


def test_evaluations_are_replayed_from_the_second_run_of_a_shape_on(cuda: Cuda) -> None:
    runs = []

    def function(latents: Any, timestep: Any, features: Any, portrait: Any) -> Any:
        runs.append(latents.shape)
        return latents * timestep + features + 10 * portrait

    def tensor(*values: float) -> Any:
        return torch.tensor(values, device=cuda.device)

    replayed = Replayed(function, Memory("denoiser"), varying=2)
    portraits = [tensor(1.0), tensor(2.0)]
    features = {size: [torch.rand(size, device=cuda.device) for _ in range(2)] for size in (3, 4)}
    for turn in range(8):
        for size in (4, 3):  # two shapes in turn
            given = torch.rand(size, device=cuda.device), tensor(turn), features[size][turn // 4]
            portrait = portraits[turn // 2 % 2]
            expected = given[0] * turn + given[2] + 10 * portrait
            assert torch.equal(replayed(*given, portrait), expected), turn
    assert runs == [(4,), (3,), (4,), (3,)]  # the first of each as it is, the second captured
    if cuda.imitated:
        assert [capture.replays for capture in cuda.captures] == [7, 7]
        assert {capture.stream.priority for capture in cuda.captures} == {HIGH}
    # both read the portrait in one place; what is held does not change, so it is not copied every time
    portrait = portraits[1]
    portrait += 1
    given = torch.zeros(3, device=cuda.device), tensor(1), torch.zeros(3, device=cuda.device)
    assert replayed(*given, portrait).tolist() == [20.0] * 3
    assert replayed(*given, portraits[0]).tolist() == [10.0] * 3
    assert replayed(*given, portrait).tolist() == [30.0] * 3


def test_arguments_are_read_in_the_layout_in_which_they_were_captured(cuda: Cuda) -> None:
    memory = Memory("denoiser")
    rows, columns = (Replayed(torch.neg, memory, varying=0) for _ in range(2))
    for turn in range(4):
        first = torch.full((2, 3, 4, 5), turn + torch.e, device=cuda.device)
        first += torch.rand_like(first)
        last = first.contiguous(memory_format=torch.channels_last)
        for replayed, example in ((rows, first), (columns, last)):
            for given in (example, example, first, last):  # of the same shape, so the same graph
                assert torch.equal(replayed(given), -given)


def test_graphs_that_read_a_grown_buffer_are_captured_again(cuda: Cuda) -> None:
    runs = []
    memory = Memory("denoiser")

    def function(x: Any) -> Any:
        runs.append(len(x))
        return 2 * x

    replayed = Replayed(function, memory, varying=1)
    for size in (3, 3, 3, 5, 5, 5, 3, 3, 4, 4, 3):
        x = torch.rand(size, device=cuda.device)
        assert torch.equal(replayed(x), 2 * x)
    assert runs == [3, 3, 5, 5, 3, 4, 4]  # the third of size 3: its graph read the buffer that size 5 replaced
    assert memory.bytes == 5 * 4


def taken(cuda: Cuda, sizes: Iterable[int]) -> int:
    """Bytes of a network's memory after clips of these sizes."""
    before = cuda.allocated()
    memory = Memory("denoiser")
    replayed = Replayed(lambda latents, features: latents + features.sum(), memory, varying=1)
    for size in sizes:
        features = torch.ones(2**13 * size, device=cuda.device)  # freed with its clip
        for turn in range(3):
            latents = torch.full((2**8 * size,), float(turn), device=cuda.device)
            assert replayed(latents, features)[0] == turn + 2**13 * size
    del features, latents
    return cuda.allocated() - before


@pytest.mark.parametrize("sizes", [SIZES, SIZES[::-1]], ids=["growing", "shrinking"])
def test_the_memory_of_40_shapes_is_that_of_16(cuda: Cuda, sizes: range) -> None:
    assert len(SIZES) > 2 * SHAPES
    bound = taken(cuda, SIZES[: -SHAPES - 1 : -1])  # the largest
    assert 2**15 * SIZES[-1] < taken(cuda, sizes) <= bound


def test_the_shapes_last_used_keep_their_graphs(cuda: Cuda) -> None:
    runs = []
    replayed = Replayed(lambda x: (runs.append(len(x)), -x)[1], Memory("denoiser"), varying=1)

    def run(size: int) -> None:
        assert replayed(torch.full((size,), 2.0, device=cuda.device)).tolist() == [-2.0] * size

    sizes = list(range(SHAPES, 0, -1))
    for size in 2 * sizes:
        run(size)
    run(SHAPES)  # the first is used again, so the second goes when one more comes
    runs.clear()
    large = SHAPES + 1
    run(large)
    for size in (SHAPES, *sizes[2:]):
        run(size)
    assert runs == [large]
    run(SHAPES - 1)
    assert runs == [large, SHAPES - 1]


def test_a_capture_is_repaid_by_many_runs_or_by_a_later_clip(cuda: Cuda) -> None:
    runs = []
    memory = Memory("denoiser")
    replayed = Replayed(lambda x: (runs.append(len(x)), -x)[1], memory, varying=1)
    for size, clips in {
        5: (REPAY,),  # long enough by itself: the second run is captured
        4: (REPAY - 1, 3),  # captured at the first run of the second clip
        3: (2, 2),
        2: (2,),
    }.items():
        for count in clips:
            memory.begin(count)
            for _ in range(count):
                replayed(torch.ones(size, device=cuda.device))
    counts = {size: runs.count(size) for size in sorted(set(runs))}
    assert counts == {2: 2, 3: 2 + 1, 4: REPAY - 1 + 1, 5: 2}


def test_a_failed_capture_is_survived(cuda: Cuda, caplog: pytest.LogCaptureFixture) -> None:
    def function(x: Any) -> Any:  # the host must not wait for a number in a capture
        return x * x.sum().item() if len(x) == 3 else -x

    memory = Memory("denoiser_cond")
    replayed = Replayed(function, memory, varying=1)
    stream = torch.cuda.current_stream()
    with caplog.at_level(logging.WARNING, "fye_rt"):
        for _ in range(4):
            assert replayed(torch.ones(3, device=cuda.device)).tolist() == [3.0] * 3
            assert torch.cuda.current_stream() == stream
    (record,) = caplog.records
    assert record.getMessage().startswith("denoiser_cond runs without a CUDA graph, and a little slower (")
    assert "\n" not in record.getMessage()
    before = len(cuda.captures)
    for turn in range(3):
        assert replayed(torch.full((2,), float(turn), device=cuda.device)).tolist() == [-turn] * 2
    if cuda.imitated:
        assert [capture.replays for capture in cuda.captures[before:]] == [2]


def test_an_interrupted_capture_leaves_the_network_usable(imitated: Cuda) -> None:
    interrupted = [False, True, False, False]

    def function(x: Any) -> Any:
        if interrupted.pop(0):
            raise KeyboardInterrupt
        return -x

    replayed = Replayed(function, Memory("denoiser"), varying=1)
    x = torch.ones(3)
    replayed(x)
    with pytest.raises(KeyboardInterrupt):
        replayed(x)
    assert torch.equal(replayed(x), -x)


def test_a_run_that_fails_prepared_nothing(cuda: Cuda) -> None:
    """After it, a run as it is comes first again: PyTorch may not compile or load kernels in a capture."""
    runs = []

    def function(x: Any) -> Any:
        runs.append(len(x))
        if len(runs) == 1:
            raise MemoryError("out of memory")
        return -x

    replayed = Replayed(function, Memory("denoiser"), varying=1)
    x = torch.ones(3, device=cuda.device)
    with pytest.raises(MemoryError):
        replayed(x)
    for _ in range(3):
        assert torch.equal(replayed(x), -x)
    assert len(runs) == 3


def test_memory_is_given_back_with_its_network(cuda: Cuda) -> None:
    before = cuda.allocated()
    assert taken(cuda, [40]) > 0
    gc.collect()
    assert cuda.allocated() == before


@pytest.mark.parametrize("channels_last", [False, True])
def test_captured_float32_is_not_rounded_to_tf32(cuda: Cuda, channels_last: bool) -> None:
    """TF32 has 10 bits after the point: it takes 1 + 2**-12 for 1."""
    seen = []
    value, channels = 1 + 2**-12, 64
    weight = torch.full((channels, channels, 3, 3), value, device=cuda.device)
    x = torch.full((2, channels, 16, 16), value, device=cuda.device)
    if channels_last:
        weight, x = (each.contiguous(memory_format=torch.channels_last) for each in (weight, x))

    rows = torch.full((64, 512), value, device=cuda.device)

    def function(x: Any) -> Any:
        seen.append([owner.fp32_precision for owner in (torch.backends.cudnn.conv, torch.backends.cuda.matmul)])
        middle = torch.nn.functional.conv2d(x, weight, padding=1)[:, :, 1:-1, 1:-1]
        return middle, rows @ rows.T

    replayed = Replayed(function, Memory("denoiser"), varying=1)
    for _ in range(3):
        with switches.FLOAT32:
            convolved, multiplied = replayed(x)
        for made, terms in ((convolved, 9 * channels), (multiplied, 512)):
            expected = terms * value**2
            # some 600 additions, each off by 2**-25 of the sum at most; TF32 would be off by 2**-11
            assert (made.double() - expected).abs().max() < 2**-14 * expected
    assert seen == [["ieee", "ieee"]] * 2
