"""Measure how to open graphs: time and memory of engine options, changed one at a time.

Each option has its own process, which opens the six graphs of a guided clip. The growth of its anonymous memory is
compared with the graphs' weights in float32. Then its evaluations alternate with those of the chosen options.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fye_bench.arguments import Rounds, benchmark, option, run
from fye_bench.speed.memory import anonymous
from fye_bench.speed.summary import measure_rows, ratio, spread, summary
from fye_bench.speed.worker import Worker
from fye_bench.speed.workload import Workload, denoiser_inputs, describe_bundle
from fye_rt import backends
from fye_rt.bundle import Bundle
from fye_rt.engine import Arrays, Engine, Settings

GRAPHS = ("image_encoder", "vae_encoder", "reference", "guider", "denoiser", "vae_decoder")
THREADS = 2
CHOSEN = "chosen"

Change = Callable[[Any], None]  # of an onnxruntime.SessionOptions


def _entry(key: str, value: str) -> Change:
    return lambda options: options.add_session_config_entry(key, value)


def _attribute(name: str, value: object) -> Change:
    return lambda options: setattr(options, name, value)


def _level(name: str) -> Change:
    level = "graph_optimization_level"
    return lambda options: setattr(options, level, getattr(type(getattr(options, level)), name))


# changes to `fye_rt.backends.onnxruntime.session_options`
CHANGES: dict[str, Change] = {
    "1 thread": _attribute("intra_op_num_threads", 1),
    "default threads": _attribute("intra_op_num_threads", 0),
    "arena off": _attribute("enable_cpu_mem_arena", False),
    "memory pattern off": _attribute("enable_mem_pattern", False),
    "prepacking off": _entry("session.disable_prepacking", "1"),
    "initializers in the arena": _entry("session.use_device_allocator_for_initializers", "0"),
    "no graph optimisation": _level("ORT_DISABLE_ALL"),
    "basic graph optimisation": _level("ORT_ENABLE_BASIC"),
    "extended graph optimisation": _level("ORT_ENABLE_EXTENDED"),
    "dynamic block base 4": _entry("session.dynamic_block_base", "4"),
    "spinning off": _entry("session.intra_op.allow_spinning", "0"),
    "spinning between runs": _entry("session.force_spinning_stop", "0"),
    "denormals flushed": _entry("session.set_denormal_as_zero", "1"),
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """An engine to measure; `option` is `CHOSEN` or one of `CHANGES`."""

    bundle: Path
    backend: str
    compute: str
    option: str = CHOSEN


_engines: dict[str, Engine] = {}
_inputs: Arrays = {}


def open_graph(candidate: Candidate, graph: str) -> float:
    """Open a graph, keep it, and return seconds (in a worker)."""
    bundle = Bundle.load(candidate.bundle, verify=False)
    start = time.perf_counter()
    if candidate.option == CHOSEN:
        settings = Settings(compute=candidate.compute, threads=THREADS)
        _engines[graph] = backends.load(candidate.backend)(bundle, graph, settings)
    else:
        _engines[graph] = _open_changed(bundle.file(graph, candidate.backend), CHANGES[candidate.option])
    return time.perf_counter() - start


def _open_changed(file: Path, change: Change) -> Engine:
    import onnxruntime

    from fye_rt.backends.onnxruntime import OnnxRuntimeEngine, session_options

    onnxruntime.set_default_logger_severity(3)  # it warns of every changed entry
    options = session_options(THREADS)
    change(options)
    return OnnxRuntimeEngine(file, options)


def keep_inputs(inputs: Arrays) -> None:
    """Keep inputs of the denoiser for `evaluate`, and warm it up (in a worker)."""
    _inputs.update(inputs)
    evaluate()


def evaluate() -> float:
    """Evaluate the denoiser once and return seconds (in a worker)."""
    start = time.perf_counter()
    _engines["denoiser"].run(_inputs)
    return time.perf_counter() - start


def predict(inputs: Arrays) -> Arrays:
    """Evaluate the denoiser once and return its outputs (in a worker)."""
    return _engines["denoiser"].run(inputs)


def measure_opening(candidate: Candidate, worker: Worker, graphs: Sequence[str] = GRAPHS) -> dict[str, Any]:
    """Open graphs one after another, and compare the growth of anonymous memory with their weights in float32."""
    bundle = Bundle.load(candidate.bundle, verify=False)
    worker.call(backends.load, candidate.backend)  # importing libraries is no part of opening
    seconds, added, peak, by_graph = 0.0, 0, 0, {}
    for graph in graphs:
        opening, growth = worker.watch(open_graph, candidate, graph)
        seconds += opening
        peak = max(peak, added + growth.peak)
        added += growth.added
        by_graph[graph] = {"weights": bundle.weight_bytes(graph), "added": growth.added, "peak": growth.peak}
    weights = sum(bundle.weight_bytes(graph) for graph in graphs)
    return {
        "open_seconds": seconds,
        "weights_bytes": weights,
        "added_bytes": added,
        "added": added / weights,
        "peak": peak / weights,
        "graphs": by_graph,
    }


def measure(candidates: Sequence[Candidate], rounds: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each candidate; evaluations are compared with those of the first one."""
    reference: Worker | None = None
    with ExitStack() as stack:
        for candidate in candidates:
            bundle = Bundle.load(candidate.bundle, verify=False)
            with ExitStack() as closing:
                worker = closing.enter_context(Worker())
                row = measure_opening(candidate, worker)
                inputs = denoiser_inputs(bundle, Workload())
                before = anonymous(worker.pid)
                worker.call(keep_inputs, inputs)
                if reference is None:
                    reference = worker
                    stack.push(closing.pop_all())
                pairs = [(reference.call(evaluate), worker.call(evaluate)) for _ in range(rounds)]
                row |= {
                    "evaluation": summary([seconds for _, seconds in pairs]),
                    "speedup": ratio(*zip(*pairs, strict=True)),
                    "added_by_running_bytes": anonymous(worker.pid) - before,
                }
            engine = {"storage": bundle.precision, "backend": candidate.backend, "compute": candidate.compute}
            yield engine | {"option": candidate.option} | row


@benchmark("python -m fye_bench.speed.session_options")
def main(
    bundle: Annotated[list[Path], option("DIR", "Bundle to open; repeatable.")], rounds: Rounds = 7
) -> dict[str, Any]:
    """Measure time and memory of engine options, changed one at a time."""
    candidates = []
    for path in bundle:
        candidates += [Candidate(path, "onnxruntime", "fp32", option) for option in (CHOSEN, *CHANGES)]
        candidates += [Candidate(path, "openvino", compute) for compute in backends.computes("openvino")]
    workload = {
        "graphs": GRAPHS,
        "evaluation": {"frames": Workload().frames, "size": Workload().size},
        "models": [describe_bundle(Bundle.load(path)) for path in bundle],
    }
    header = (
        f"{'storage':<8}{'engine':<12}{'compute':<8}{'option':<28}{'open':>7}{'added':>8}{'peak':>7}"
        f"{'run adds':>10}{'evaluation':>12}{'relative speed':>21}"
    )

    def line(row: Mapping[str, Any]) -> str:
        return (
            f"{row['storage']:<8}{row['backend']:<12}{row['compute']:<8}{row['option']:<28}"
            f"{row['open_seconds']:>5.1f} s{row['added']:>7.2f}x{row['peak']:>6.2f}x"
            f"{row['added_by_running_bytes'] / 1e6:>7.0f} MB{row['evaluation']['p50']:>10.3f} s"
            f"{spread(row['speedup']):>21}"
        )

    return measure_rows("options", measure(candidates, rounds), header, line, THREADS, workload)


if __name__ == "__main__":
    run(main)
