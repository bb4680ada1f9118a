"""Compares a plan's outputs with ONNX Runtime in float32; a plan that differs too much is not published."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fye_engines.quantize import BOUNDS
from fye_rt.backends.onnxruntime import open_engine
from fye_rt.bundle import Bundle
from fye_rt.engine import Arrays, Engine, Settings

LEAST_COSINE, MOST_RMS = 0.999, 1e-2
FIRST_TIMESTEP = 999  # pure noise, where float16 is most likely to overflow


def random_inputs(bundle: Bundle, graph: str, sizes: Mapping[str, int]) -> Arrays:
    """Make inputs of a graph: normally distributed numbers from a fixed seed, and the first timestep.

    `sizes` holds the values of the symbolic dimensions; see `fye_rt.bundle.symbols`.
    """
    random = np.random.default_rng(0)
    inputs: Arrays = {}
    for spec in bundle.graphs[graph].inputs:
        shape = [sizes[size] if isinstance(size, str) else size for size in spec.shape]
        is_integer = spec.dtype == "int64"
        inputs[spec.name] = np.full(shape, FIRST_TIMESTEP) if is_integer else random.standard_normal(shape, np.float32)
    return inputs


def exact_engine(bundle: Bundle, graph: str) -> Engine:
    """Open a graph with ONNX Runtime on the CPU, in float32.

    Raises:
        BackendError: ONNX Runtime cannot open the graph.
    """
    return open_engine(bundle, graph, Settings(compute="fp32"))


def compare(outputs: Mapping[str, NDArray[Any]], exact: Mapping[str, NDArray[Any]]) -> dict[str, dict[str, Any]]:
    """Compare outputs with the exact ones, by name.

    Returns:
        For each output: `finite`, whether all numbers are finite; `cosine`, the cosine of both as vectors; and
        `relative_rms`, the root mean square of the difference over that of the exact output. The last two are None
        where they are undefined.
    """
    differences = {}
    for name, expected in exact.items():
        x, y = np.asarray(outputs[name], np.float64).ravel(), np.asarray(expected, np.float64).ravel()
        finite = x.shape == y.shape and bool(np.isfinite(x).all())
        norm = float(np.linalg.norm(y))
        cosine = rms = None
        if finite and norm:
            rms = float(np.linalg.norm(x - y) / norm)
            own_norm = float(np.linalg.norm(x))
            cosine = float(x @ y / (own_norm * norm)) if own_norm else 0.0
        differences[name] = {"finite": finite, "cosine": cosine, "relative_rms": rms}
    return differences


def refusal(found: Mapping[str, Mapping[str, Any]], precision: str = "fp16") -> str:
    """Explain why a plan with these differences cannot be published; "" if it can."""
    least, most = BOUNDS.get(precision, (LEAST_COSINE, MOST_RMS))
    for name, difference in found.items():
        cosine, rms = difference["cosine"], difference["relative_rms"]
        if not difference["finite"]:
            return f"{name} is not finite, or has another shape"
        if cosine is None:
            return f"{name} should be zero everywhere, and cannot be compared"
        if cosine < least or rms > most:
            return (
                f"{name} differs from ONNX Runtime in float32: cosine {cosine:.5f} (at least {least}), "
                f"relative RMS {rms:.1e} (at most {most:g})"
            )
    return ""
