"""Measure the cost of 8 bits: every graph's errors against float32, and quality on the suite with a quantised denoiser.

Ranges are measured on drawn portraits that the suite never shows, errors on held-out ones among them, both while clips
are made as users make them. Everything runs on the CPU with ONNX Runtime, which computes between QuantizeLinear and
DequantizeLinear in floating point. The results therefore show the error of 8 bits, and not an engine's speed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import onnx_ir as ir

from fye_bench.arguments import benchmark, option, run
from fye_bench.environment import OtherLoad, environment
from fye_bench.metrics import truth
from fye_bench.metrics.images import psnr
from fye_bench.metrics.judge import Judge, Scores, change, summarise
from fye_bench.metrics.statistics import mean
from fye_bench.metrics.truth import CASES, Image, calibration_clips, suite
from fye_bench.speed.workload import describe_bundle
from fye_bench.studies.making import Made, make
from fye_engines import quantize
from fye_engines.checking import FIRST_TIMESTEP, compare, exact_engine, random_inputs
from fye_engines.precision import PRODUCTS, set_precision
from fye_engines.quantize import BASE, KINDS, Ranges
from fye_rt.animator import Animator
from fye_rt.bundle import GRAPHS, Bundle, symbols
from fye_rt.cli import terminal
from fye_rt.engine import CPU_PIXELS, Arrays, Engine, Settings
from fye_rt.options import Options
from fye_rt.settings import DEFAULT_FORECAST

THREADS = 1
PRECISIONS = (BASE, *KINDS)
MEASURED, HELD_OUT = 4, 2  # numbers of clips: for ranges, and for errors
CLIP_FRAMES, CLIP_STEPS = 8, 8  # size of such a clip; every step is evaluated
CALLS = 2 * CLIP_STEPS  # most runs of a graph from which its error is measured
DENOISER = "denoiser"


class Simulated(Engine):
    """A graph in another precision, on the CPU."""

    compute = BASE
    pixels = CPU_PIXELS

    def __init__(self, bundle: Bundle, onnx: bytes) -> None:
        self._session = quantize.session(bundle, onnx, THREADS)
        self._low = {each.name for each in self._session.get_inputs() if each.type == "tensor(float16)"}
        self._outputs = [each.name for each in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, Any]) -> Arrays:
        """Run the graph; see `fye_rt.engine.Engine`."""
        cast = {name: array.astype(np.float16) if name in self._low else array for name, array in inputs.items()}
        return dict(zip(self._outputs, self._session.run(self._outputs, cast), strict=True))


class Mixed(Animator):
    """An animator in float32 with another denoiser."""

    def __init__(self, bundle: Bundle, denoiser: Engine) -> None:
        super().__init__(bundle, "onnxruntime", threads=THREADS)
        opened = self.graphs.open

        def open_engine(bundle: Bundle, graph: str, settings: Settings) -> Engine:
            return denoiser if graph == DENOISER else opened(bundle, graph, settings)

        self.graphs.open = open_engine


def lowered(bundle: Bundle, graph: str, precision: str, ranges: Ranges) -> tuple[bytes, dict[str, float]]:
    """Return a graph in one of PRECISIONS, with its number of products and the share of its weights in 8 bits."""
    model = ir.load(bundle.file(graph))
    set_precision(model, BASE)
    chosen = quantize.places(model) if precision in KINDS else []
    stored = [node for node in model.graph if node.op_type in PRODUCTS - {"Attention"}]
    facts = {
        "products": len(stored),
        "with_8_bits": len(chosen),
        "weights_with_8_bits": _numbers(chosen) / _numbers(stored),
    }
    if precision in KINDS:
        quantize.quantize(model, ranges, precision)
    return ir.to_proto(model).SerializeToString(deterministic=True), facts


def _numbers(products: Sequence[ir.Node]) -> int:
    shapes = [quantize.stored(node.inputs[1]).shape for node in products]
    return sum(int(np.prod(shape.numpy())) for shape in shapes if shape is not None)


def errors(bundle: Bundle, graph: str, ranges: Ranges, held: Sequence[Arrays]) -> Iterator[dict[str, Any]]:
    """Yield the distance of each precision to float32, over all outputs of all calls."""
    exact = exact_engine(bundle, graph)
    calls = [*held, random_inputs(bundle, graph, symbols(CLIP_FRAMES, *bundle.size))]
    expected = [exact.run(inputs) for inputs in calls]
    first = [number for number, inputs in enumerate(held) if inputs.get("timestep", [0])[0] == FIRST_TIMESTEP]
    for precision in PRECISIONS:
        onnx, facts = lowered(bundle, graph, precision, ranges)
        engine = Simulated(bundle, onnx)
        distances = [compare(engine.run(inputs), outputs) for inputs, outputs in zip(calls, expected, strict=True)]
        yield {
            "graph": graph,
            "precision": precision,
            **facts,
            "calls": len(held),
            **_summary(distances[:-1]),
            "first_step": _summary([distances[number] for number in first]) if first else None,
            "random_inputs": _summary(distances[-1:]),
        }


def _summary(calls: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Summarise the distances of all outputs of some calls."""
    rms, cosines = ([output[name] for call in calls for output in call.values()] for name in ("relative_rms", "cosine"))
    return {"relative_rms": {"median": median(rms), "most": max(rms)}, "cosine": {"least": min(cosines)}}


def measure_graph(
    bundle: Bundle, graph: str, measured: Sequence[tuple[Image, Image]], held: Sequence[tuple[Image, Image]]
) -> tuple[Ranges, list[dict[str, Any]]]:
    """Measure a graph's ranges and its errors."""
    options = bundle.resolve(Options(steps=CLIP_STEPS, guidance=1.0 if graph == "denoiser_cond" else None))
    inputs = quantize.record(bundle, graph, measured, options, THREADS)
    ranges = quantize.calibrate(bundle, graph, inputs, THREADS)
    options = replace(options, seed=MEASURED)  # held-out noise
    others = list(islice(quantize.record(bundle, graph, held, options, THREADS), CALLS))
    return ranges, list(errors(bundle, graph, ranges, others))


def quality(
    bundle: Bundle, ranges: Ranges, options: Options, cases: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Score the suite in float32, and its change, case by case, with the denoiser in another precision."""
    drawn = list(suite(cases, bundle.size))
    judge = Judge()

    def score(animator: Animator) -> tuple[list[Made], list[Scores]]:
        with animator:
            clips = [
                make(animator, animator.encode_portrait(case.portrait), animator.encode_motion(case.landmarks), options)
                for case in drawn
            ]
        return clips, [judge.compare(case, clip.frames) for case, clip in zip(drawn, clips, strict=True)]

    exact, scores = score(Animator(bundle, "onnxruntime", threads=THREADS))
    terminal.say(f"suite, fp32: {cases} cases, {exact[0].evaluations} evaluations each")
    rows = []
    for precision in PRECISIONS:
        clips, others = score(Mixed(bundle, Simulated(bundle, lowered(bundle, DENOISER, precision, ranges)[0])))
        distances = [psnr(clip.frames, full.frames) for clip, full in zip(clips, exact, strict=True)]
        distance = mean(distances)
        rows.append(
            {"precision": precision, "distance": distance, "distances": distances, "change": change(others, scores)}
        )
        terminal.say(f"suite, {precision}: {distance['mean']:.1f} dB from fp32, least {min(distances):.1f} dB")
    return {"network_evaluations": exact[0].evaluations, "summary": summarise(scores)}, rows


@benchmark("python -m fye_bench.studies.quantization")
def main(
    bundle: Annotated[Path, option("DIR", "Bundle to quantise.")],
    also: Annotated[list[Path] | None, option("DIR", "Bundle whose errors alone are measured; repeatable.")] = None,
    cases: Annotated[int, option("N", "Cases of the suite.", min=1, max=1000)] = CASES,
) -> dict[str, Any]:
    """Measure the cost of 8 bits: errors of every graph, and quality with a quantised denoiser."""
    model, *more = [Bundle.load(path) for path in (bundle, *(also or []))]
    options = model.resolve(Options(forecast=DEFAULT_FORECAST))
    result: dict[str, Any] = {
        "environment": environment(THREADS),
        "workload": {
            "models": [describe_bundle(each) for each in (model, *more)],
            "ranges": {
                "first_identity": truth.FIRST_CALIBRATION,
                "clips": MEASURED,
                "held_out": HELD_OUT,
                "frames": CLIP_FRAMES,
                "steps": CLIP_STEPS,
            },
            "suite": {"first_identity": truth.FIRST_IDENTITY, "stride": truth.STRIDE},
            "cases": cases,
            "frames": truth.FRAMES,
            "size": list(model.size),
            **options.as_dict(),
        },
        "errors": [],
    }
    others = OtherLoad()
    terminal.say(f"{'graph':<15}{'precision':<11}{'8 bits':>10}{'RMS, median':>13}{'most':>9}{'cosine':>10}")
    for each in (model, *more):
        clips = list(calibration_clips(MEASURED + HELD_OUT, each.size, CLIP_FRAMES))
        for graph in GRAPHS:
            ranges, rows = measure_graph(each, graph, clips[:MEASURED], clips[MEASURED:])
            if each is model and graph == DENOISER:
                denoiser = ranges
            for row in rows:
                result["errors"].append({"model": each.digest, **row})
                rms = row["relative_rms"]
                terminal.say(
                    f"{graph:<15}{row['precision']:<11}{row['with_8_bits']:>5} /{row['products']:>3}"
                    f"{rms['median']:>13.4f}{rms['most']:>9.4f}{row['cosine']['least']:>10.5f}"
                )
    result["fp32"], result["quality"] = quality(model, denoiser, options, cases)
    result["environment"]["other_processes_cores"] = others.cores()
    return result


if __name__ == "__main__":
    run(main)
