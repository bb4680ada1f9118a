"""What a plan computes, against ONNX Runtime in float32: no plan is published that says something else."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fye_engines.quantize import BOUNDS
from fye_rt.backends.onnxruntime import open_engine
from fye_rt.bundle import Bundle
from fye_rt.engine import Arrays, Engine, Settings

LEAST_COSINE, MOST_RMS = 0.999, 1e-2
FIRST_TIMESTEP = 999  # where nothing but noise is left; float16 is in most danger there


def random_inputs(bundle: Bundle, graph: str, sizes: Mapping[str, int]) -> Arrays:
    """Inputs of a graph: normal numbers, always the same, and the first timestep.

    Args:
        bundle: with the graph.
        graph: its name.
        sizes: values of the symbolic dimensions, see `fye_rt.bundle.symbols`.
    """
    random = np.random.default_rng(0)
    made: Arrays = {}
    for spec in bundle.graphs[graph].inputs:
        shape = [sizes[size] if isinstance(size, str) else size for size in spec.shape]
        whole = spec.dtype == "int64"
        made[spec.name] = np.full(shape, FIRST_TIMESTEP) if whole else random.standard_normal(shape, np.float32)
    return made


def exact_engine(bundle: Bundle, graph: str) -> Engine:
    """ONNX Runtime on the CPU, in float32.

    Raises:
        BackendError: it cannot open the graph.
    """
    return open_engine(bundle, graph, Settings(compute="fp32"))


def compare(made: Mapping[str, NDArray[Any]], exact: Mapping[str, NDArray[Any]]) -> dict[str, dict[str, Any]]:
    """How far outputs are from the exact ones, by name.

    Returns:
        `finite`: whether all numbers are. `cosine`: between them as vectors. `relative_rms`: root mean square of the
        difference, over that of the exact output. The last two are None where they have no meaning.
    """
    found = {}
    for name, right in exact.items():
        ours, theirs = np.asarray(made[name], np.float64).ravel(), np.asarray(right, np.float64).ravel()
        finite = ours.shape == theirs.shape and bool(np.isfinite(ours).all())
        norm = float(np.linalg.norm(theirs))
        cosine = rms = None
        if finite and norm:
            rms = float(np.linalg.norm(ours - theirs) / norm)
            own = float(np.linalg.norm(ours))
            cosine = float(ours @ theirs / (own * norm)) if own else 0.0
        found[name] = {"finite": finite, "cosine": cosine, "relative_rms": rms}
    return found


def refusal(found: Mapping[str, Mapping[str, Any]], precision: str = "fp16") -> str:
    """Why a plan of a precision with these differences is not published, or ""."""
    least, most = BOUNDS.get(precision, (LEAST_COSINE, MOST_RMS))
    for name, each in found.items():
        if not each["finite"]:
            return f"{name} is not finite, or has another shape"
        if each["cosine"] is None:
            return f"{name} ought to be zero everywhere, and cannot be compared"
        if each["cosine"] < least or each["relative_rms"] > most:
            return (
                f"{name} differs from ONNX Runtime in float32: cosine {each['cosine']:.5f} (at least {least}), "
                f"relative RMS {each['relative_rms']:.1e} (at most {most:g})"
            )
    return ""
