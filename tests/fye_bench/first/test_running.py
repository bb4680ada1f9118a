"""Stages are run one after another, whatever becomes of them, and what they learn is written at once."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fye_bench.first import __main__ as first
from fye_bench.first.record import Record

ROOT = Path(__file__).parents[3]
BUDGETS = dict.fromkeys(("a", "b", "c", "d", "e"), 10.0)
WRITING = """
import sys, time
from pathlib import Path
from fye_bench.first.record import Record
with Record(Path(sys.argv[1]), "b").part("early") as result:
    result["number"] = 7
time.sleep(3600)
"""


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


def test_a_stage_that_fails_dies_or_hangs_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), str(ROOT / "bench"))))
    commands = {
        "a": python("print('so far'); raise SystemExit(3)"),
        "b": python(WRITING, tmp_path),
        "c": python("import os; os.abort()"),
        "d": python("1 / 0"),
        "e": python("print('done')"),
    }

    class Popen(subprocess.Popen[bytes]):
        """The one that hangs has written something when its time is over."""

        def wait(self, timeout: float | None = None) -> int:
            if timeout is None or self.args != commands["b"]:
                return super().wait(timeout)
            while "early" not in (tmp_path / "results.jsonl").read_text():
                time.sleep(0.01)
            raise subprocess.TimeoutExpired(self.args, timeout)

    monkeypatch.setattr(first.subprocess, "Popen", Popen)
    assert first.run(commands, tmp_path, 3600, BUDGETS, {"b": 20.0}) == 1
    whole = {line["stage"]: line for line in lines(tmp_path) if line["part"] is None}
    statuses = {name: line["status"] for name, line in whole.items()}
    assert statuses == {"a": "failed", "b": "timeout", "c": "failed", "d": "failed", "e": "ok"}
    assert whole["a"]["said"] == "so far" and whole["a"]["error"] == "exit code 3"
    assert whole["b"]["error"] == "stopped after 20.0 s" and "ZeroDivisionError" in whole["d"]["said"]
    (early,) = (line for line in lines(tmp_path) if line["part"] == "early")
    assert early["status"] == "ok" and early["number"] == 7


def test_a_stage_is_stopped_when_its_time_is_over(tmp_path: Path) -> None:
    assert first.run({"a": python("import time; time.sleep(3600)")}, tmp_path, 3600, BUDGETS, {"a": 0.1}) == 1
    (line,) = lines(tmp_path)
    assert line["status"] == "timeout" and line["limit"] == 0.1


def test_a_stage_takes_its_child_processes_with_it(tmp_path: Path) -> None:
    code = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
open(sys.argv[1], "w").write(str(child.pid))
"""
    first.run({"a": python(code, tmp_path / "pid")}, tmp_path, 3600, BUDGETS)
    pid = int((tmp_path / "pid").read_text())
    for _ in range(600):  # until whoever adopted it has seen it end
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} outlived its stage")


def test_spare_time_goes_to_later_stages_and_missing_time_is_taken_from_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, limits = [0.0], []
    monkeypatch.setattr(first.time, "monotonic", lambda: clock[0])

    def stage(command: list[str], out: Path, limit: float) -> tuple[str, dict[str, object]]:
        limits.append(limit)
        clock[0] += {"quick": 2.0, "slow": limit, "endless": 200.0}[command[0]]
        return "ok", {}

    monkeypatch.setattr(first, "_stage", stage)
    budgets = {"a": 10.0, "b": 20.0, "c": 30.0}
    assert first.run({name: ["slow"] for name in budgets}, tmp_path, 30, budgets) == 0
    assert limits == [5, 10, 15] and clock == [30]  # half of what they need
    limits.clear()
    first.run({"a": ["quick"], "b": ["slow"], "c": ["slow"]}, tmp_path, 60, budgets, {"b": 15})
    assert limits == [10, 15, 43] and clock == [90]
    limits.clear()
    first.run({"a": ["endless"], "b": ["slow"], "c": ["slow"]}, tmp_path, 60, budgets)
    assert limits == [10, 0, 0]


def test_measured_tiles_are_used_by_later_stages(tmp_path: Path) -> None:
    write = python("import sys; open(sys.argv[1], 'w').write('{}')", tmp_path / first.TILES)
    ask = python("import os, sys; sys.exit(os.environ.get('FYE_TILES') != sys.argv[1])", tmp_path / first.TILES)
    assert first.run({"a": ask}, tmp_path, 3600, BUDGETS) == 1
    assert first.run({"a": write, "b": ask}, tmp_path, 3600, BUDGETS) == 0


def test_a_part_that_fails_is_one_line_and_the_next_one_runs(tmp_path: Path) -> None:
    record = Record(tmp_path, "stage")
    with record.part("first") as result:
        result["seen"] = 1
        raise RuntimeError("out of memory")
    with record.part("second") as result:
        result |= {"error_of_largest": 0.5, "right": False}
    with record.part("third") as result:
        result |= {"seconds": "not the clock's", "right": True}
    record.skip("fourth", "there is no GPU")
    assert record.failed == ["first", "second"]
    found = lines(tmp_path)
    assert [line["status"] for line in found] == ["failed", "failed", "ok", "skipped"]
    assert found[0]["error"] == "RuntimeError: out of memory" and found[0]["seen"] == 1
    assert found[0]["where"].startswith(__file__) and found[1]["error"] and "right" not in found[1]
    assert isinstance(found[2]["seconds"], float) and found[3]["reason"] == "there is no GPU"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "kernels,nothing"], "no stage is called 'nothing'; there are: environment, cubins"),
        (["--limit", "nothing=3"], "no stage is called 'nothing'"),
        (["--limit", "mini=long"], "--limit mini=long is not valid; allowed: STAGE=SECONDS"),
    ],
)
def test_an_unknown_stage_or_limit_is_refused(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        first.main(["--out", str(tmp_path), *arguments])
    assert exit_.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "results.jsonl").exists()


@pytest.mark.slow
def test_every_stage_imports_without_optional_packages() -> None:
    code = f"""
import builtins, importlib, sys
from importlib.machinery import PathFinder
ABSENT = {{
    "av", "mediapipe", "typer", "rich", "platformdirs", "cv2", "openvino", "ray", "skimage", "matplotlib", "cuda",
    "tensorrt",
}}
class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in ABSENT else PathFinder.find_spec(name, path, target)
sys.meta_path = [Bare if finder is PathFinder else finder for finder in sys.meta_path]
bring = builtins.__import__
def bare(name, importer=None, *more, **others):  # diffusers itself needs filelock
    if name == "filelock" and (importer or {{}}).get("__name__", "").startswith("fye_"):
        raise ModuleNotFoundError(f"No module named {{name!r}}")
    return bring(name, importer, *more, **others)
builtins.__import__ = bare
for module in ("first.__main__", "speed.gpu", "speed.kernels"):
    assert callable(importlib.import_module("fye_bench." + module).main)
for stage in {tuple(first.STAGES)}:
    assert callable(importlib.import_module("fye_bench.first." + stage).run)
"""
    folders = ("", "export", "kernels", "engines", "bench")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(str(ROOT / folder) for folder in folders)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
