import importlib
import json
import math
from pathlib import Path

import pytest
import torch

from fye_bench.speed import kernels
from fye_kernels import aot


def test_every_kernel_has_a_plain_twin_a_test_and_a_benchmark_of_its_name() -> None:
    package = Path(kernels.geglu.__file__).parent
    compiled = {variant.kernel.fn.__module__ for variant in aot.variants("sm_80")}
    names = {file.stem for file in package.glob("*.py") if "\n@triton.jit\n" in file.read_text()}
    assert names == set(kernels.KERNELS)
    for name in names:
        module = importlib.import_module(f"fye_kernels.{name}")
        assert module.__name__ in compiled
        assert callable(getattr(module, name)) and callable(module.reference)
        assert Path(__file__).with_name(f"test_{name}.py").is_file()


@pytest.mark.slow
def test_the_kernel_benchmark_runs_every_kernel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kernels.main(["--small", "--rounds", "2", "--json", str(tmp_path / "kernels.json")]) == 0
    rows = json.loads((tmp_path / "kernels.json").read_text())["kernels"]
    names = {"reference_attention", "temporal_attention", "forecast_step", "norm_silu", "geglu", "to_uint8"}
    assert {row["kernel"] for row in rows} == names
    assert all(row["floor"] > 0 for row in rows)
    assert {row["kernel"] for row in rows if row["padded_rate"]} == {"reference_attention"}
    assert all("share" in row["promised"] for row in rows if row["kernel"] in ("forecast_step", "norm_silu"))
    assert len(capsys.readouterr().out.splitlines()) == len(rows)


def test_a_kernel_with_a_wrong_result_fails_the_benchmark(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kernels.main(["--small", "--only", "geglu"]) == 0
    right = kernels.geglu.geglu
    monkeypatch.setattr(kernels.geglu, "geglu", lambda x: 1.01 * right(x))
    assert kernels.main(["--small", "--only", "geglu"]) == 1
    assert "geglu at 2x8x64 is 1.0e-02 away from float32" in capsys.readouterr().err
    monkeypatch.setattr(kernels.geglu, "geglu", lambda x: torch.nan * x[..., : x.shape[-1] // 2])
    assert kernels.main(["--small", "--only", "geglu"]) == 1


def test_a_missed_promise_of_a_kernel_is_named() -> None:
    bench = kernels.Bench("cpu", torch.float16, 1)
    x = torch.ones(4)
    row = bench.row("a", "4", {"a": lambda: x, "b": lambda: x}, x, kernels.Work(bytes=64.0), "b", faster=1.2, share=0.5)
    assert row.missed == ["faster"] and (row.faster, row.share, row.padded_rate) == (1.0, 64.0, 0.0)


def test_attention_is_compared_with_the_best_of_sdpa_with_concatenation(
    device: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    milliseconds = {
        "kernel": 2.0,
        "flash": 4.0,
        "cudnn": 3.0,
        "efficient": 9.0,
        "default": 5.0,
        "two parts, flash": 1.0,
    }

    def times(bench: kernels.Bench, runs: dict[str, kernels.Run], failed: object = None) -> dict[str, list[float]]:
        return {name: [milliseconds.get(name, 1.0) / 1e3] for name in runs}

    monkeypatch.setattr(kernels.Bench, "times", times)
    (row, _) = kernels.reference_attention_rows(kernels.Bench(device, torch.float16, 1), small=True)
    assert "two parts, flash" in row.milliseconds and row.rival == "best of SDPA with concatenation"
    assert row.faster == pytest.approx((3.0 if device == "cuda" else 5.0) / 2.0)
    assert kernels.main(["--small", "--only", "reference_attention"]) == 0
    assert f" {row.faster:.2f}x best of SDPA with concatenation " in capsys.readouterr().out


def test_useful_operations_are_told_from_those_on_padding(device: str) -> None:
    (row, _) = kernels.reference_attention_rows(kernels.Bench(device, torch.float16, 1), small=True)
    seconds = row.milliseconds["kernel"] / 1e3
    # 2 + 2 frames of 24 tokens, 8 heads of 40: 24 keys for one half and 48 for the other, two products of multiply-adds
    assert row.rate == pytest.approx(2 * 2 * 2 * 24 * 320 * (24 + 48) / 1e12 / seconds)
    # 128 rows, two passes of 16 keys for either segment, 48 of a head
    assert row.padded_rate == pytest.approx(2 * 2 * 2 * 128 * 8 * 48 * 3 * 32 / 1e12 / seconds)


def test_a_competitor_that_fails_is_named_and_the_kernel_is_timed() -> None:
    bench = kernels.Bench("cpu", torch.float16, 1)
    x = torch.ones(4)

    def refuse() -> torch.Tensor:
        raise RuntimeError("No available kernel")

    row = bench.row(
        "a", "4", {"a": lambda: x, "b": lambda: x, "c": refuse}, x, kernels.Work(bytes=64.0), "b", faster=1.2
    )
    assert dict(row.failed) == {"c": "RuntimeError: No available kernel"} and row.faster == 1.0
    alone = bench.row("a", "4", {"a": lambda: x, "c": refuse}, x, kernels.Work(bytes=64.0), "b", share=0.5)
    assert math.isnan(alone.faster) and alone.missed == []
    with pytest.raises(RuntimeError, match="No available kernel"):
        bench.times({"c": refuse})
