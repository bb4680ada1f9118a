import numpy as np
import pytest
import torch

from fye_kernels.to_uint8 import reference, to_uint8
from fye_rt import arrays


@pytest.mark.parametrize("shape", [(1,), (2, 5, 7, 3), (4096,)])
def test_to_uint8_equals_the_conversion_of_the_host(device: str, shape: tuple[int, ...]) -> None:
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.1
    x.flatten()[0] = 1.0
    out, wrong = to_uint8(x.to(device))
    np.testing.assert_array_equal(out.cpu().numpy(), arrays.to_uint8(x.numpy()))
    assert torch.equal(out, reference(x.to(device))[0]) and wrong.tolist() == [0]


def test_to_uint8_rounds_at_every_level_as_the_host_does(device: str) -> None:
    near = torch.arange(256) / 255
    x = torch.cat([near, torch.nextafter(near, torch.tensor(2.0)), torch.nextafter(near, torch.tensor(-1.0))])
    out, _ = to_uint8(x.to(device))
    np.testing.assert_array_equal(out.cpu().numpy(), arrays.to_uint8(x.numpy()))
    assert set(out.tolist()) == set(range(256))


@pytest.mark.filterwarnings("ignore:overflow")  # 255 times as much is infinite, and clamped
def test_to_uint8_clamps_the_largest_finite_numbers(device: str) -> None:
    largest = torch.finfo(torch.float32).max
    out, wrong = to_uint8(torch.tensor([largest, -largest], device=device))
    assert out.tolist() == [255, 0] and wrong.tolist() == [0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 1500, 2999])
def test_to_uint8_reports_numbers_that_are_not_finite(device: str, value: float, place: int) -> None:
    x = torch.full((3000,), 0.5, device=device)
    x[place] = value
    out, wrong = to_uint8(x)
    assert wrong.tolist() == [1] and reference(x)[1].tolist() == [1]
    rest = torch.arange(3000, device=device) != place
    assert (out[rest] == 127).all()


def test_to_uint8_refuses_invalid_tensors(device: str) -> None:
    with pytest.raises(ValueError, match="contiguous float32"):
        to_uint8(torch.zeros(4, 6, device=device).mT)
    with pytest.raises(ValueError, match="float16"):
        to_uint8(torch.zeros(4, dtype=torch.float16, device=device))
