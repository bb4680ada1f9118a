"""Spatial attention never holds a matrix of scores, which grows with the fourth power of the picture's side."""

from pathlib import Path

import pytest

from fye_bench.speed import session_options
from fye_bench.speed.session_options import Candidate
from fye_bench.speed.worker import Worker
from fye_bench.speed.workload import Workload, denoiser_inputs
from fye_rt.bundle import Bundle

FRAME = Workload(frames=1, size=(512, 512))
# float32 scores of one attention at the first level: 4 heads, 64x64 queries, with the portrait's twice as many keys
SCORES = 4 * 4 * 64**2 * (2 * 64**2)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_evaluation_at_512x512_takes_less_memory_than_one_matrix_of_scores(engine: str, tiny_bundle: Path) -> None:
    pytest.importorskip(engine)
    inputs = denoiser_inputs(Bundle.load(tiny_bundle), FRAME)
    with Worker() as worker:
        worker.call(session_options.open_graph, Candidate(tiny_bundle, engine, "fp32"), "denoiser")
        # 9 MB with ONNX Runtime; 251 MB with OpenVINO, 221 MB of it for compiling; one matrix is 537 MB
        _, growth = worker.watch(session_options.keep_inputs, inputs)
    assert 0 < growth.peak < SCORES
