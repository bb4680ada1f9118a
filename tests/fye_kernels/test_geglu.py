import pytest
import torch

from fye_kernels.geglu import geglu, reference


@pytest.mark.parametrize("shape", [(1, 2), (3, 5, 14), (40, 256), (3, 2, 1500), (0, 8)])
# float32: the error function's rounding counts as much as value times gate, however small their gelu. Half precision:
# one rounding of the result, which the interpreter truncates to bfloat16
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float16, 1e-3), (torch.bfloat16, 2**-7)])
def test_geglu_equals_the_gate_of_the_feed_forward(
    device: str, shape: tuple[int, ...], dtype: torch.dtype, bound: float
) -> None:
    x = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    result = geglu(x)
    value, gate = x.float().chunk(2, dim=-1)
    assert ((result.float() - reference(x.float())).abs() <= bound * (1 + (value * gate).abs())).all()
    assert result.dtype == dtype and torch.equal(result, geglu(x))


def test_geglu_refuses_invalid_tensors(device: str) -> None:
    with pytest.raises(ValueError, match="contiguous"):
        geglu(torch.zeros(4, 6, device=device).mT)
    with pytest.raises(ValueError, match="even"):
        geglu(torch.zeros(4, 7, device=device))
