"""Ctrl-C, SIGTERM and SIGHUP stop a command; it clears up, and keeps what is finished."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fye_rt import media
from fye_rt.animator import Animator
from fye_rt.cli.main import main
from fye_rt.landmarks import Motion
from tests.fye_rt.command_line import FAST, LANDMARKS, PORTRAIT, ROOT, TINY, python

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}

# a process that gets signals in the middle of its work
STRUCK = """
import os, signal, sys
from fye_rt.cli.main import main
from fye_rt.clips import write
from fye_rt.animator import Animator
if int(signal.SIGINT) in NUMBERS:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts without one
def struck(function):
    def call(*arguments, **options):
        result = function(*arguments, **options)
        for number in NUMBERS:
            os.kill(os.getpid(), number)
        return result
    return call
WHERE
sys.exit(main())
"""
IN_ANIMATE = "Animator.decode_pixels = struck(Animator.decode_pixels)"
IN_STREAM = """
write_stream = write.write_stream
write.write_stream = lambda *arguments: write_stream(*arguments[:-1], struck(arguments[-1]))
"""


def struck(
    where: str, numbers: tuple[int, ...], *arguments: object, before: Callable[[], object] | None = None
) -> subprocess.CompletedProcess[str]:
    code = STRUCK.replace("NUMBERS", repr([int(number) for number in numbers])).replace("WHERE", where)
    return python("-c", code, *arguments, preexec_fn=before)


@pytest.mark.slow
@pytest.mark.parametrize("numbers", [*((number,) for number in CODES), (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM)])
def test_a_stopped_clip_leaves_no_file_and_no_message(numbers: tuple[signal.Signals, ...], tmp_path: Path) -> None:
    arguments = ("animate", PORTRAIT, LANDMARKS, "-o", tmp_path / "out.mp4", *FAST, "--compare")
    result = struck(IN_ANIMATE, numbers, *arguments)  # a second signal does not stop the clearing up
    assert (result.returncode, result.stdout, result.stderr) == (CODES[numbers[0]], "", "")
    assert not list(tmp_path.iterdir())


def test_a_command_under_nohup_survives_sighup(tmp_path: Path) -> None:
    arguments = ("animate", PORTRAIT, LANDMARKS, "-o", tmp_path / "out.mp4", *FAST)
    result = struck(
        IN_ANIMATE, (signal.SIGHUP,), *arguments, before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    )
    assert result.returncode == 0, result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


@pytest.mark.slow
@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
@pytest.mark.usefixtures("opencv")
def test_a_stopped_stream_is_playable(number: signal.Signals, motion: Motion, portrait: Motion, tmp_path: Path) -> None:
    inputs, out = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    out.mkdir()
    motion.save(inputs / "motion.npz")
    portrait.save(inputs / "own.npz")
    arguments = (PORTRAIT, inputs / "motion.npz", "-o", out / "out.mp4", "--bundle", TINY, "--steps", 1, "--stream")
    size = ("--window-size", 4, "--window-overlap", 1, "--size", "64x64", "--portrait-landmarks", inputs / "own.npz")
    result = struck(IN_STREAM, (number,), "animate", *arguments, *size)
    assert (result.returncode, result.stderr) == (CODES[number], "")
    assert [path.name for path in out.iterdir()] == ["out.mp4"]
    frames = [frame for _, frame in media.read_video(out / "out.mp4")]
    assert 0 < len(frames) < len(motion) and f"{len(frames)} frames" in result.stdout
    assert np.std(frames[0]) > 1


def test_stopped_landmarks_leave_no_file(tmp_path: Path) -> None:
    where = "from fye_rt.clips import driving\ndriving.read_motion = struck(lambda *_: None)"
    result = struck(where, (signal.SIGTERM,), "landmarks", PORTRAIT, "-o", tmp_path / "m.npz")
    assert (result.returncode, result.stdout, result.stderr) == (143, "", "")
    assert not list(tmp_path.iterdir())


def test_main_called_from_python_leaves_signal_handlers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = [signal.getsignal(number) for number in CODES]
    seen: list[object] = []

    def look(*_: object, **__: object) -> None:
        seen.extend(signal.getsignal(number) for number in CODES)
        raise KeyboardInterrupt

    monkeypatch.setattr(Animator, "decode_pixels", look)
    assert main(["animate", str(PORTRAIT), str(LANDMARKS), "-o", str(tmp_path / "out.mp4"), *FAST]) == 130
    assert seen == handlers


def test_main_of_its_own_process_restores_signal_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = [signal.getsignal(number) for number in CODES]
    monkeypatch.setattr(sys, "argv", ["fye", "--version"])
    assert main() == 0
    assert [signal.getsignal(number) for number in CODES] == handlers


def parents() -> dict[int, int]:
    """Parents of all processes but those that wait for their parent to hear of their end."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            found[int(entry.name)] = int(parent)
    return found


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc, to see which processes there are")
@pytest.mark.parametrize("how", ["Ctrl-C to all", "SIGTERM to the command", "SIGTERM to all", "kill -9"])
def test_workers_end_with_their_batch_and_leave_no_clip_without_its_record(how: str, tmp_path: Path) -> None:
    jobs, out = tmp_path / "jobs.jsonl", tmp_path / "out"
    line = '{{"portrait": "{}", "motion": "{}", "name": "j{}", "seed": {}}}\n'
    jobs.write_text("".join(line.format(PORTRAIT, LANDMARKS, number, number) for number in range(40)))
    options = ("--bundle", str(TINY), "--steps", "3", "--forecast", "off", "--threads", "1", "--workers", "2")
    command = [sys.executable, "-m", "fye_rt", "batch", str(jobs), "-o", str(out), *options]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        until(lambda: len(list(out.glob(".j*.mp4"))) == 2 and list(out.glob("j*.mp4")))
        workers = {number for number, parent in parents().items() if parent == process.pid}
        assert len(workers) >= 2
        match how:
            case "Ctrl-C to all":
                os.killpg(process.pid, signal.SIGINT)
            case "SIGTERM to the command":
                process.terminate()
            case "SIGTERM to all":
                os.killpg(process.pid, signal.SIGTERM)
            case "kill -9":
                process.kill()
        said = process.communicate(timeout=120)
    assert process.returncode == {"Ctrl-C to all": 130, "kill -9": -9}.get(how, 143)
    assert said == ("", "")
    until(lambda: not workers & parents().keys())
    clips, records = list(out.glob("j*.mp4")), {path.stem for path in (out / "records").glob("*.json")}
    assert 0 < len(clips) < 40 and {clip.stem for clip in clips} <= records
    if how == "kill -9":
        short = tmp_path / "short.jsonl"
        short.write_text(jobs.read_text().splitlines()[0])
        assert main(["batch", str(short), "-o", str(out), *options[:-2], "--quiet"]) == 0
    assert not [path for path in out.rglob(".*") if path.name != ".lock"]
