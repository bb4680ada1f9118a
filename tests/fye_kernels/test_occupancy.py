import pytest

from fye_kernels.aot import ARCHITECTURES
from fye_kernels.occupancy import LIMITS, Occupancy, occupancy


@pytest.mark.parametrize(
    ("architecture", "registers", "warps", "shared", "expected"),
    [
        # 40 * 32 = 1280 a warp: 51 warps, of blocks of 4
        ("sm_80", 40, 4, 0, Occupancy(12, 48, 0.75, "registers")),
        # 41 * 32 = 1312, given out as 1536: 42 warps
        ("sm_80", 41, 4, 0, Occupancy(10, 40, 0.625, "registers")),
        ("sm_80", 255, 8, 0, Occupancy(1, 8, 0.125, "registers")),
        ("sm_80", 16, 4, 40 << 10, Occupancy(4, 16, 0.25, "shared memory")),
        ("sm_89", 16, 4, 0, Occupancy(12, 48, 1.0, "warps")),
        ("sm_89", 16, 1, 0, Occupancy(24, 24, 0.5, "blocks")),
        ("sm_86", 16, 4, 100 << 10, Occupancy(0, 0, 0.0, "shared memory")),  # the system keeps 1 KB of it
    ],
)
def test_what_is_used_up_first_bounds_it(
    architecture: str, registers: int, warps: int, shared: int, expected: Occupancy
) -> None:
    assert occupancy(architecture, registers, warps, shared) == expected


def test_every_architecture_has_limits() -> None:
    assert tuple(LIMITS) == ARCHITECTURES
