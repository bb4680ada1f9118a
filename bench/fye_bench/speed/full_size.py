"""Export, verify and run the full-size model on this machine, and measure time, memory and disk of every step.

Weights are random, so the frames are noise. It needs 20 GB of memory, 12 GB of disk below --work, and half an hour on
two cores. Each step has its own process, one after another; files in --work are replaced.
"""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from fye_bench import arguments
from fye_bench.arguments import one_of, option
from fye_bench.environment import environment
from fye_bench.speed import session_options
from fye_bench.speed.memory import peak_resident
from fye_bench.speed.process import run
from fye_bench.speed.session_options import Candidate
from fye_bench.speed.worker import Worker
from fye_bench.speed.workload import Workload, denoiser_inputs
from fye_rt import files, media
from fye_rt.bundle import Bundle, shipped_bundles
from fye_rt.cli import terminal

LIMIT = 20_000_000_000  # bytes of memory that no step may exceed
EVALUATED = Workload(frames=2, size=(512, 512))
ANIMATED = Workload(frames=2, size=(256, 256), steps=2)
COMPARED = Workload(frames=2, size=(128, 128))
AGREEMENT = 1e-4  # of the largest prediction: float32 in another order of additions, through a hundred layers


@arguments.command("python -m fye_bench.speed.full_size")
def main(
    context: typer.Context,
    work: Annotated[Path, option("DIR", "Folder for checkpoint, bundle and results.")],
    checkpoint: Annotated[Path | None, option("DIR", "Use this checkpoint instead of writing one.")] = None,
    config: Annotated[
        str, option("full|tiny", "Model; tiny tries this script.", parser=one_of(("full", "tiny")))
    ] = "full",
    json: arguments.Json = None,
) -> int:
    """Export, verify and run the full-size model, and measure time, memory and disk of every step.

    The exit code is 1 if a step took more than 20 GB of memory, or two backends disagree.
    """
    result: dict[str, Any] = {"command": context.obj, "environment": environment(), "config": config, "steps": {}}
    for name, facts in _steps(work, checkpoint, config):
        result["steps"][name] = facts
        terminal.say(
            f"{name:<12}{facts['seconds'] / 60:>7.1f} min{facts['peak_memory_bytes'] / 1e9:>8.2f} GB of memory"
            f"{facts['peak_anonymous_bytes'] / 1e9:>8.2f} GB of it anonymous"
        )
    folders = {"checkpoint": checkpoint or work / "checkpoint", "bundle": work / "bundle"}
    result["disk_bytes"] = {
        name: sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        for name, folder in folders.items()
    }
    result["peak_memory_bytes"] = max(facts["peak_memory_bytes"] for facts in result["steps"].values())
    result["memory_limit_bytes"] = LIMIT
    terminal.say(", ".join(f"{name} {size / 1e9:.2f} GB on disk" for name, size in result["disk_bytes"].items()))
    if json is not None:
        files.write_json(json, result)
    difference = result["steps"]["compare"]["difference"]
    terminal.say(f"torch differs from onnxruntime by {difference:.1e} of the largest prediction")
    return int(result["peak_memory_bytes"] > LIMIT or difference > AGREEMENT)


def _steps(work: Path, checkpoint: Path | None, config: str) -> Iterator[tuple[str, dict[str, Any]]]:
    work.mkdir(parents=True, exist_ok=True)
    bundle = work / "bundle"

    def python(name: str, *words: object) -> tuple[str, dict[str, Any]]:
        return name, asdict(run(["-m", *map(str, words)], work / f"{name}.log"))

    if checkpoint is None:
        checkpoint = work / "checkpoint"
        shutil.rmtree(checkpoint, ignore_errors=True)
        yield python("write", "fye_export.random_checkpoint", checkpoint, "--config", config, "--dtype", "fp16")
    yield python("export", "fye_rt", "export", checkpoint, "-o", bundle, "--precision", "fp16")
    yield python("verify", "fye_rt", "verify", bundle)
    portrait, landmarks = _pictures(work)
    timings = work / "animate.json"
    step = python(
        "animate",
        *("fye_rt", "animate", portrait, landmarks, "-o", work / "animate.mp4", "--bundle", bundle),
        *("--steps", ANIMATED.steps, "--json", timings),
    )
    step[1]["report"] = json.loads(timings.read_text())
    yield step
    yield "evaluate", _evaluate(bundle)
    yield "compare", _compare(bundle)


def _pictures(work: Path) -> tuple[Path, Path]:
    """Write a portrait and a folder of landmark images, which need no landmark model."""
    portrait, landmarks = work / "portrait.png", work / "landmarks"
    landmarks.mkdir(exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (*ANIMATED.size, 3), np.uint8)
    media.write_image(portrait, noise)
    for path in media.pictures_in(shipped_bundles() / "demo" / "people" / "landmarks")[: ANIMATED.frames]:
        media.write_image(landmarks / path.name, media.fit_image(media.read_image(path), *ANIMATED.size))
    return portrait, landmarks


def _evaluate(bundle: Path) -> dict[str, Any]:
    """Evaluate the denoiser once, with both halves of guidance."""
    inputs = denoiser_inputs(Bundle.load(bundle, verify=False), EVALUATED)
    candidate = Candidate(bundle, "onnxruntime", "fp32")
    with Worker() as worker:
        opening = session_options.measure_opening(candidate, worker, ["denoiser"])
        _, growth = worker.watch(session_options.keep_inputs, inputs)
        seconds = worker.call(session_options.evaluate)
        return {
            "frames": EVALUATED.frames,
            "size": EVALUATED.size,
            "opening": opening,
            "seconds": seconds,
            "peak_memory_bytes": peak_resident(worker.pid),
            "peak_anonymous_bytes": growth.before + growth.peak,
        }


def _compare(bundle: Path) -> dict[str, Any]:
    """Compare one evaluation with two backends, one process after the other."""
    inputs = denoiser_inputs(Bundle.load(bundle, verify=False), COMPARED)
    predictions, seconds, resident, anonymous = [], 0.0, 0, 0
    for backend in ("onnxruntime", "torch"):
        with Worker() as worker:
            opened, growth = worker.watch(session_options.open_graph, Candidate(bundle, backend, "fp32"), "denoiser")
            start = time.perf_counter()
            predictions.append(worker.call(session_options.predict, inputs))
            seconds += opened + time.perf_counter() - start
            resident = max(resident, peak_resident(worker.pid))
            anonymous = max(anonymous, growth.before + growth.peak)
    exact, outputs = predictions
    return {
        "frames": COMPARED.frames,
        "size": COMPARED.size,
        "seconds": seconds,
        "peak_memory_bytes": resident,
        "peak_anonymous_bytes": anonymous,
        "difference": max(
            float(np.abs(outputs[name] - exact[name]).max() / np.abs(exact[name]).max()) for name in exact
        ),
    }


if __name__ == "__main__":
    arguments.run(main)
