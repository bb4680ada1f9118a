"""`fye bench quality` says what it promises of a bundle, and compares two runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fye_bench.metrics.models import identity_by
from fye_bench.metrics.truth import cases, draw
from fye_bench.quality import command
from fye_bench.quality.report import METRICS, VARIANTS
from fye_bench.quality.run import RESULT
from fye_rt import media
from fye_rt.cli import commands, main
from fye_rt.errors import InputError, OutputError

SHORT = ["--cases", "2", "--frames", "2", "--steps", "1", "--threads", "1", "--quiet"]


@pytest.fixture(scope="module")
def run(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with result.json, sheet.png and a kept run."""
    folder = tmp_path_factory.mktemp("quality")
    files = ["--json", str(folder / "result.json"), "--sheet", str(folder / "sheet.png"), "--save", str(folder / "run")]
    assert main.main(["bench", "quality", "--bundle", str(tiny_bundle), *SHORT, *files]) == 0
    return folder


@pytest.fixture(scope="module")
def result(run: Path) -> Any:
    return json.loads((run / "result.json").read_text())


def test_the_result_has_environment_workload_summaries_and_cases(result: Any) -> None:
    assert {"date", "commit", "cpu", "packages"} <= result["environment"].keys()
    workload = result["workload"]
    assert (workload["cases"], workload["frames"], workload["steps"], workload["seed"]) == (2, 2, 1, 0)
    assert workload["network_evaluations"] == 2
    assert set(result["stages"]) == {"encode_portrait", "encode_motion", "denoise", "decode"}
    assert set(result["summary"]) == {"all", "people", "cartoons", "calm", "talking"}
    for group in result["summary"].values():
        assert set(group) == set(VARIANTS)
        for metrics in group.values():
            assert set(metrics) >= METRICS.keys() - {"lpips", "identity_cosine"}
            for estimate in metrics.values():
                assert estimate["mean"] is None or estimate["low"] <= estimate["high"]
    everyone = result["summary"]["all"]
    assert everyone["true"]["psnr"]["mean"] == 100 and everyone["true"]["ssim"]["mean"] == pytest.approx(1)
    # the bundle's weights are random
    assert everyone["made"]["psnr"]["mean"] < everyone["copied"]["psnr"]["mean"]
    scores = [case["scores"]["made"]["l1"] for case in result["cases"]]
    assert everyone["made"]["l1"]["mean"] == pytest.approx(np.mean(scores))


def test_the_sheet_shows_every_case(run: Path) -> None:
    side = draw(cases(1)[0], (64, 64), frames=2).portrait.shape[0]
    assert media.read_image(run / "sheet.png").shape[0] >= 3 * side


def test_the_same_run_again_is_at_no_distance(
    run: Path, result: Any, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "again.json"
    arguments = ["--bundle", str(tiny_bundle), *SHORT, "--against", str(run / "run"), "--json", str(path)]
    assert command.main(arguments) == 0
    again = json.loads(path.read_text())
    assert again["summary"] == result["summary"]
    assert again["against"]["distance"]["mean"] == 100
    assert {change["mean"] for change in again["against"]["change"].values()} <= {0.0, None}
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["all", "(2)", "portrait", "copied", "made", "VAE", "ceiling", "true", "frames"]
    assert any(line.startswith("distance to the other run: 100.0 dB") for line in table)


@pytest.mark.parametrize(
    ("change", "said"), [(["--seed", "1"], "seed 0"), (["--frames", "3"], "frames 2"), (["--cases", "3"], "--cases 2")]
)
def test_a_run_of_other_clips_is_refused_before_the_work(
    run: Path, tiny_bundle: Path, change: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_make", lambda *_: pytest.fail("work has begun"))
    with pytest.raises(InputError, match=said):
        command.main(["--bundle", str(tiny_bundle), *SHORT, "--against", str(run / "run"), *change])


def test_a_folder_with_other_things_is_not_replaced(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("keep me")
    with pytest.raises(OutputError, match="choose another with --save"):
        command.main(["--bundle", str(tiny_bundle), *SHORT, "--save", str(tmp_path)])
    assert (tmp_path / "letter.txt").exists()


@pytest.mark.parametrize("content", ["[" * 100_000, '{"workload": 3}', None])
def test_what_is_no_run_is_refused(content: str | None, tiny_bundle: Path, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / RESULT).write_text(content)
    with pytest.raises(InputError, match=r"is not a saved run .* make one with --save"):
        command.main(["--bundle", str(tiny_bundle), *SHORT, "--against", str(tmp_path)])


@pytest.mark.parametrize(
    "arguments",
    [["--cases", "0"], ["--frames", "0"], ["--steps", "0"], ["--beauty", "9"], ["--bundle", "none"]],
    ids=" ".join,
)
def test_a_wrong_option_is_one_line_and_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["bench", "quality", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fye: ") and error.count("\n") == 1


def test_bench_alone_is_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[str, list[str]]] = []

    class Recorded:
        def __init__(self, module: str) -> None:
            self.module = module

        def main(self, arguments: list[str]) -> int:
            called.append((self.module, arguments))
            return 0

    monkeypatch.setattr(commands, "_optional", lambda module, extra: Recorded(module))
    for arguments in ([], ["--rounds", "2"], ["quality"], ["quality", "--cases", "2"]):
        assert main.main(["bench", *arguments]) == 0
    latency, quality = "fye_bench.speed.latency", "fye_bench.quality.command"
    assert called == [(latency, []), (latency, ["--rounds", "2"]), (quality, []), (quality, ["--cases", "2"])]


def test_identity_by_a_network_is_its_cosine_similarity(tmp_path: Path) -> None:
    # features: the mean colour of the aligned face
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["faces", "axes"], ["features"], keepdims=0)],
        "colour",
        [helper.make_tensor_value_info("faces", TensorProto.FLOAT, ["N", 3, 112, 112])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])],
    )
    path = tmp_path / "colour.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    one = draw(cases(1)[0], (128, 128), frames=2)
    measure = identity_by(path)
    same = measure(one, one.portrait[None], one.portrait_face)
    assert same == {"identity_cosine": pytest.approx(1)}
    negative = measure(one, 255 - one.portrait[None], one.portrait_face)
    assert negative == {"identity_cosine": pytest.approx(-1)}


def test_what_is_no_identity_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "face.onnx").write_bytes(b"no network")
    with pytest.raises(InputError, match="not a network"):
        identity_by(tmp_path / "face.onnx")
