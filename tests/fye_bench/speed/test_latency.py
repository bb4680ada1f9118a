"""`fye bench` times what it says, on the model that it says."""

import json
from collections import Counter
from pathlib import Path

import pytest

from fye_bench.speed import latency, model
from fye_bench.speed.latency import main
from fye_bench.speed.pipeline import STAGES, Variant
from fye_bench.speed.workload import Workload
from fye_export.config import ModelConfig
from fye_export.random_checkpoint import PRESETS
from fye_rt.cli import main as command_line
from fye_rt.errors import BackendError, BundleError, OptionError, OutputError


@pytest.fixture
def pair(golden_bundle: Path, golden_checkpoint: Path) -> list[str]:
    return ["--bundle", str(golden_bundle), "--checkpoint", str(golden_checkpoint)]


@pytest.mark.slow
def test_a_benchmark_result_has_every_documented_field(
    pair: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "result.json"
    arguments = [*pair, "--backend", "onnxruntime", "--frames", "2", "--size", "64x72", "--steps", "3", "--rounds", "4"]
    assert main([*arguments, "--threads", "1", "--profile", "--json", str(file)]) == 0
    result = json.loads(file.read_text())

    environment, workload = result["environment"], result["workload"]
    assert environment["cpu"]["model"] and environment["packages"]["torch"]
    assert environment["threads"] == 1
    assert (workload["frames"], workload["size"], workload["latent_size"]) == (2, [64, 72], [8, 9])
    assert (workload["steps"], workload["windows"]["number"], workload["network_evaluations"]) == (3, 1, 3)
    assert workload["precision"] == {"storage": "fp32", "compute": ["fp32", "fp32"]}
    assert workload["model"]["parameters"]["denoiser"] > 1_000_000

    baseline, runtime = result["variants"]["baseline"], result["variants"]["onnxruntime fp32"]
    for variant in (baseline, runtime):
        assert list(variant["stages"]) == list(STAGES)
        for stage in variant["stages"].values():
            assert set(stage) == {"n", "mean", "p50", "p95", "p99"} and stage["n"] == 4
            assert 0 < stage["p50"] <= stage["p95"] <= stage["p99"]
        assert variant["first_frame"]["p50"] > variant["stages"]["denoise_step"]["p50"]
        assert variant["frames_per_second"] == pytest.approx(2 / variant["end_to_end"]["p50"])
        assert variant["peak_memory_bytes"] > variant["peak_anonymous_bytes"] > 20e6
    for speedup in runtime["speedup"].values():
        assert 0 < speedup["min"] <= speedup["median"] <= speedup["max"]
    assert {(s["min"], s["max"]) for s in baseline["speedup"].values()} == {(1, 1)}
    # the same clip: rounding is all that differs
    assert runtime["difference"]["latents"]["max_abs"] < 1e-3
    assert runtime["difference"]["frames"]["max_abs"] < 2e-3

    for operators in result["operators"].values():
        assert sum(row["share"] for row in operators) == pytest.approx(1)
        assert operators[0]["seconds"] >= operators[-1]["seconds"]
    assert {"Conv", "Gemm"} <= {row["operator"] for row in result["operators"]["onnxruntime fp32"]}

    table = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table] == ["seconds", "baseline", "onnxruntime"]


def test_the_default_clip_of_the_benchmark_is_the_documented_one() -> None:
    assert Workload() == Workload(frames=8, size=(128, 128), steps=30, threads=2)
    options = Workload().options()
    assert (options.guidance, options.seed, options.forecast, Workload().windows()) == (3.5, 0, "off", 1)
    mid: ModelConfig = PRESETS[model.PRESET]
    assert mid.unet.block_out_channels == (64, 128, 256, 256)
    assert (mid.unet.heads, mid.unet.cross_attention_dim, mid.image_encoder.tokens) == (8, 768, 257)


def test_a_bundle_that_is_missing_or_does_not_fit_its_checkpoint_is_refused(
    pair: list[str], tiny_bundle: Path, tmp_path: Path
) -> None:
    for arguments, error, message in (
        (pair[:2], OptionError, "belong together"),
        (["--bundle", str(tiny_bundle), *pair[2:]], OptionError, "was not exported from"),
        (["--bundle", str(tmp_path / "none"), *pair[2:]], BundleError, "is not a bundle"),
    ):
        with pytest.raises(error, match=message):
            main(arguments)


def test_a_result_that_could_not_be_written_is_refused_before_the_work(pair: list[str], tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="choose a folder"):
        main([*pair, "--json", str(tmp_path / "none" / "result.json")])


def test_a_precision_that_a_backend_lacks_is_refused(pair: list[str]) -> None:
    with pytest.raises(BackendError, match="onnxruntime computes in fp32 here, not in bf16"):
        main([*pair, "--backend", "onnxruntime", "--compute", "bf16"])


@pytest.mark.parametrize(
    "arguments",
    [
        *([option, "0"] for option in ("--threads", "--rounds", "--frames", "--steps")),
        *(["--size", "128"], ["--size", "100x100"], ["--backend", "tpu"], ["--frames", "many"], ["--speed", "9"]),
    ],
    ids=" ".join,
)
def test_a_wrong_option_is_one_line_and_code_2_before_any_work(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "find_model", lambda *_: pytest.fail("work has begun"))
    assert command_line.main(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fye: ") and error.count("\n") == 1
    assert arguments[0].removeprefix("--") in error or arguments[1] in error


def test_every_variant_begins_equally_many_rounds() -> None:
    variants = [Variant("baseline"), Variant("onnxruntime"), Variant("openvino", "bf16")]
    orders = [latency._rotated(variants, turn) for turn in range(6)]
    assert all(set(order) == set(variants) for order in orders)
    assert set(Counter(order[0] for order in orders).values()) == {2}
