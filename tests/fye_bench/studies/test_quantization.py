"""What the benchmark of 8 bits writes: errors against float32, and clips against those of float32."""

import functools
import json
from pathlib import Path

import pytest

from fye_bench.studies import quantization
from fye_engines.quantize import BASE, BOUNDS
from fye_rt import backends
from fye_rt.bundle import Bundle
from fye_rt.engine import Engine, Settings
from fye_rt.errors import OutputError

GRAPH = "image_encoder"  # opens in a second; ONNX Runtime takes ten for a denoiser in float16


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """One graph, which stands for the denoiser too, and clips of two frames; what is open in float32 stays open."""
    changed = {"GRAPHS": (GRAPH,), "DENOISER": GRAPH, "PRECISIONS": (BASE, "int8")}
    changed |= {"MEASURED": 1, "HELD_OUT": 1, "CLIP_FRAMES": 2, "CLIP_STEPS": 1}
    changed["suite"] = functools.partial(quantization.suite, frames=2)
    for name, value in changed.items():
        monkeypatch.setattr(quantization, name, value)
    load, opened = backends.load, dict[str, Engine]()

    def load_once(name: str) -> backends.Open:
        def open_engine(bundle: Bundle, graph: str, settings: Settings) -> Engine:
            if graph not in opened:
                opened[graph] = load(name)(bundle, graph, settings)
            return opened[graph]

        return open_engine

    monkeypatch.setattr(backends, "load", load_once)


@pytest.mark.slow
def test_the_quantization_study_writes_errors_and_clips_of_each_precision(
    short: None, tiny_bundle: Path, tmp_path: Path, opencv: None
) -> None:
    file = tmp_path / "quantization.json"
    assert quantization.main(["--bundle", str(tiny_bundle), "--cases", "1", "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    exact, low = result["errors"]
    assert [(row["graph"], row["precision"]) for row in (exact, low)] == [(GRAPH, BASE), (GRAPH, "int8")]
    assert exact["with_8_bits"] == 0 < low["with_8_bits"] < low["products"] == exact["products"]
    assert exact["weights_with_8_bits"] == 0 < low["weights_with_8_bits"] < 1
    least, most = BOUNDS["int8"]
    for row in (exact, low):
        assert row["calls"] == 1 and row["first_step"] is None  # it is given no timestep
        for found in (row, row["random_inputs"]):
            assert found["cosine"]["least"] >= least and 0 < found["relative_rms"]["most"] <= most
    assert exact["relative_rms"]["most"] < low["relative_rms"]["most"]
    assert [one["precision"] for one in result["quality"]] == [BASE, "int8"]
    for one in result["quality"]:
        assert len(one["distances"]) == 1 and one["distance"]["mean"] == pytest.approx(one["distances"][0])
        assert {"psnr", "ssim"} <= one["change"].keys()
    assert result["quality"][1]["distances"] < result["quality"][0]["distances"]
    assert result["fp32"]["network_evaluations"] > 0 and "psnr" in result["fp32"]["summary"]
    assert result["workload"]["cases"] == 1 and result["workload"]["models"][0]["digest"]


def test_an_output_that_cannot_be_written_is_refused_before_the_study(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="choose a folder that exists"):
        quantization.main(["--bundle", str(tiny_bundle), "--json", str(tmp_path / "missing" / "made.json")])
