"""Check that a bundle runs here: run every graph once on small random inputs."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fye_rt import backends
from fye_rt.bundle import GRAPHS, Bundle, TensorSpec
from fye_rt.engine import Arrays, Settings
from fye_rt.errors import BundleError, not_finite
from fye_rt.timings import Progress, no_progress

SIZES = {"frames": 2, "height": 64, "width": 64, "latent_height": 8, "latent_width": 8}


@dataclass(frozen=True, slots=True)
class GraphCheck:
    """Measurements of one graph that runs.

    Attributes:
        graph: name of the graph.
        inputs: names of its inputs.
        open_seconds: time to load the graph, weights included.
        run_seconds: time of its first run, on 2 frames of 64x64.
        export_error: relative RMS difference from PyTorch as recorded by the exporter, if any.
    """

    graph: str
    inputs: tuple[str, ...]
    open_seconds: float
    run_seconds: float
    export_error: float | None


def table(checks: list[GraphCheck]) -> Iterator[str]:
    """Format the checks as lines of a table."""
    yield f"{'graph':<14} {'inputs':<50} {'open':>8} {'run':>8}  error at export"
    for check in checks:
        inputs = ", ".join(check.inputs[:3]) + (f" + {len(check.inputs) - 3}" if len(check.inputs) > 3 else "")
        error = "not recorded" if check.export_error is None else f"{check.export_error:.1e}"
        yield f"{check.graph:<14} {inputs:<50} {check.open_seconds:>6.2f} s {check.run_seconds:>6.2f} s  {error}"


def verify(
    bundle: Bundle, backend: str = "auto", progress: Progress = no_progress, graphs: Sequence[str] = GRAPHS
) -> list[GraphCheck]:
    """Open and run graphs one after another, each with the outputs of earlier graphs as inputs.

    Args:
        bundle: a verified bundle.
        backend: "auto", or one of `fye_rt.backends.BACKENDS`.
        progress: called with ("run the graphs", done, total).
        graphs: names of the graphs to run, in this order.

    Raises:
        BackendError: a graph does not open.
        BundleError: a graph's outputs differ from bundle.json.
        NumericalError: a graph returns NaN or infinity.
    """
    backend = backends.choose(backend, bundle)
    open_engine = backends.load(backend)
    known: Arrays = {}
    checks = []
    rng = np.random.default_rng(0)
    for index, name in enumerate(graphs):
        graph = bundle.graphs[name]
        for spec in graph.inputs:
            if spec.name not in known:
                known[spec.name] = _random(rng, spec)
        start = time.perf_counter()
        engine = open_engine(bundle, name, Settings())
        opened = time.perf_counter()
        outputs = engine.run({spec.name: known[spec.name] for spec in graph.inputs})
        ran = time.perf_counter()
        del engine  # one graph's weights in memory at a time
        for spec in graph.outputs:
            _check_output(name, spec, outputs.get(spec.name))
        known |= outputs
        progress("run the graphs", index + 1, len(graphs))
        recorded = bundle.manifest["graphs"][name].get("error", {}).get("relative_rms")
        names = tuple(spec.name for spec in graph.inputs)
        checks.append(GraphCheck(name, names, opened - start, ran - opened, recorded))
    return checks


def _random(rng: np.random.Generator, spec: TensorSpec) -> NDArray[Any]:
    shape = [_length(spec, dim) for dim in spec.shape]
    if spec.dtype == "int64":
        return rng.integers(0, 1000, shape)
    return rng.standard_normal(shape, np.float32)


def _length(spec: TensorSpec, dim: int | str) -> int:
    if isinstance(dim, int):
        return dim
    if dim not in SIZES:
        raise BundleError(f"the size {dim!r} of {spec.name} is not one of {', '.join(SIZES)}; export the bundle again")
    return SIZES[dim]


def _check_output(graph: str, spec: TensorSpec, output: NDArray[Any] | None) -> None:
    if output is None:
        raise BundleError(f"{graph} returns no {spec.name}; export the bundle again")
    fits = len(output.shape) == len(spec.shape) and all(
        want == got for want, got in zip(spec.shape, output.shape, strict=True) if isinstance(want, int)
    )
    if not fits:
        raise BundleError(f"{graph} returns {spec.name} as {output.shape}, not {spec.shape}; export the bundle again")
    if not np.isfinite(output).all():
        raise not_finite(graph, f" in {spec.name}", "export the bundle again")
