"""Profile one evaluation of the denoiser, operator by operator.

`profile` runs in a worker process. Profilers slow an evaluation down a little, so only the shares count.
"""

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fye_bench.speed.pipeline import BASELINE, Pipeline, Variant
from fye_bench.speed.workload import Workload, denoiser_inputs
from fye_rt.bundle import Bundle
from fye_rt.engine import Arrays, Settings

_RUNS = 5  # evaluations, after one to warm up
Profile = list[dict[str, Any]]


def profile(variant: Variant, workload: Workload, bundle: Path, checkpoint: Path) -> Profile:
    """List operators as {operator, seconds, share, calls} per evaluation, the largest first."""
    if variant.backend == BASELINE:
        return _torch(Pipeline(variant, workload, bundle, checkpoint), workload)
    opened = Bundle.load(bundle, verify=False)
    inputs = denoiser_inputs(opened, workload)
    if variant.backend == "openvino":
        return _openvino(opened, inputs, variant.compute, workload.threads)
    return _onnxruntime(opened, inputs, workload.threads)


def _table(events: Iterable[tuple[str, float, int]], evaluations: int) -> Profile:
    """Sum up the (operator, seconds, calls) of some evaluations."""
    seconds: dict[str, float] = defaultdict(float)
    calls: dict[str, float] = defaultdict(float)
    for operator, duration, count in events:
        seconds[operator] += duration / evaluations
        calls[operator] += count / evaluations
    total = sum(seconds.values())
    return [
        {"operator": name, "seconds": seconds[name], "share": seconds[name] / total, "calls": round(calls[name])}
        for name in sorted(seconds, key=seconds.__getitem__, reverse=True)
    ]


def _onnxruntime(bundle: Bundle, inputs: Arrays, threads: int) -> Profile:
    import onnxruntime

    from fye_rt.backends.onnxruntime import session_options

    options = session_options(threads)
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        file = bundle.file("denoiser", "onnxruntime")
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        for _ in range(1 + _RUNS):
            session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text())
    runs = [event["ts"] for event in events if event["name"] == "model_run"]
    counted = sorted(runs)[-_RUNS]
    return _table(
        [
            (event["args"]["op_name"], event["dur"] / 1e6, 1)
            for event in events
            if event["cat"] == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= counted
        ],
        _RUNS,
    )


def _openvino(bundle: Bundle, inputs: Arrays, compute: str, threads: int) -> Profile:
    import openvino

    from fye_rt.backends.openvino import open_engine

    engine: Any = open_engine(bundle, "denoiser", Settings(compute=compute, threads=threads))
    engine._config["PERF_COUNT"] = "YES"  # it compiles in its first run
    engine.run(inputs)
    events = []
    for _ in range(_RUNS):
        engine.run(inputs)
        events += [
            (node.node_type, node.real_time.total_seconds(), 1)
            for node in engine._request.profiling_info
            if node.status == openvino.ProfilingInfo.Status.EXECUTED
        ]
    return _table(events, _RUNS)


def _torch(pipeline: Pipeline, workload: Workload) -> Profile:
    from torch.profiler import ProfilerActivity, profile

    stages, inputs = pipeline.stages, pipeline.inputs
    portrait = stages.encode_portrait(inputs.image, inputs.clip_pixels)
    motion = stages.encode_motion(inputs.landmark_images)
    stages.denoise(portrait, motion, pipeline.noise, workload.options(steps=1))
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        stages.denoise(portrait, motion, pipeline.noise, workload.options(steps=_RUNS))
    averages = [(row.key, row.self_cpu_time_total / 1e6, row.count) for row in profiler.key_averages()]
    return _table(averages, _RUNS * workload.windows())
