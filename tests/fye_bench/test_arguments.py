import json
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest

from fye_bench import arguments
from fye_bench.arguments import benchmark, command, one_of, option
from fye_rt.cli.arguments import REQUEST, takes_request
from fye_rt.cli.main import main as fye
from fye_rt.errors import OptionError, OutputError


@benchmark("fye try")
def main(
    names: Annotated[list[str] | None, option("NAME", "Names.", parser=one_of(("a", "b")))] = None,
    count: Annotated[int, option("N", "A number.", min=1)] = 1,
) -> dict[str, Any]:
    """Return what was said."""
    return {"names": names, "count": count}


def test_a_result_is_written_with_its_command_line(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    line = ["--names", "a", "b", "--count", "3", "--names", "b", "--json", str(path)]
    assert main(line) == 0
    assert json.loads(path.read_text()) == {"command": ["fye", "try", *line], "names": ["a", "b", "b"], "count": 3}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--names", "a", "c"], "'--names': 'c' is not valid; allowed: 'a', 'b'; see: fye try --help"),
        (["--count", "0"], "--count.*1; see: fye try --help"),
        (["--json", "result.txt"], "must end in .json"),
        (["more"], r"Got unexpected extra argument.* \(more\); see: fye try --help"),
    ],
)
def test_a_wrong_argument_of_a_benchmark_is_one_line(line: list[str], said: str) -> None:
    with pytest.raises(OptionError, match=said) as error:
        main(line)
    assert "\n" not in str(error.value)


def test_a_result_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="choose a folder"):
        main(["--json", str(tmp_path / "missing" / "result.json")])


def test_benchmarks_take_the_clip_options_of_fye_animate(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[dict[str, Any]] = []

    @command("fye try")
    @takes_request("portrait_landmarks")
    def clip(settings: dict[str, Any]) -> int:
        seen.append(settings)
        return 3

    assert clip(["--steps", "4", "--no-last-step"]) == 3
    names = set(REQUEST) - {"portrait_landmarks"}
    assert set(seen[0]) == names and {name for name in names if seen[0][name] is not None} == {"steps", "last_step"}
    assert clip(["--help"]) == 0
    said = capsys.readouterr().out
    assert all("--" + name.replace("_", "-") in said for name in names)


@pytest.mark.parametrize(
    "line", [["eval", "suite", "-o", "run"], ["bench", "forecast", "log.jsonl"], ["bench", "windows"]], ids=" ".join
)
@pytest.mark.parametrize("setting", ["--crop=face", "--face=left", "--feather=0", "--audio=none", "--start=1"])
def test_settings_that_measurements_do_not_use_are_refused(
    setting: str, line: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fye([*line, setting]) == 2
    assert f"No such option: {setting.partition('=')[0]}" in capsys.readouterr().err


def test_ctrl_c_ends_a_benchmark_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    @command("fye try")
    def stopped() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["try"])
    with pytest.raises(SystemExit) as end:
        arguments.run(stopped)
    assert end.value.code == 130
