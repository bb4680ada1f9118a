"""Every option that is compared with the chosen ones differs from them."""

from typing import Any

import pytest

from fye_bench.speed.session_options import CHANGES, THREADS
from fye_rt.backends.onnxruntime import session_options

ATTRIBUTES = ("intra_op_num_threads", "enable_cpu_mem_arena", "enable_mem_pattern", "graph_optimization_level")
ENTRIES = ("disable_prepacking", "dynamic_block_base", "force_spinning_stop", "intra_op.allow_spinning")
ENTRIES += ("set_denormal_as_zero", "use_device_allocator_for_initializers")


def entry(options: Any, key: str) -> str | None:
    try:
        return options.get_session_config_entry(f"session.{key}")
    except RuntimeError:  # it is not set
        return None


def values(options: Any) -> list[Any]:
    return [getattr(options, name) for name in ATTRIBUTES] + [entry(options, key) for key in ENTRIES]


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_alters_one_of_the_chosen_options(name: str) -> None:
    changed = session_options(THREADS)
    CHANGES[name](changed)
    differences = [a != b for a, b in zip(values(changed), values(session_options(THREADS)), strict=True)]
    assert sum(differences) == 1
