"""What is written beside a result cannot cost it."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fye_rt import media
from fye_rt.clips import write
from fye_rt.clips.clip import Playback, Rendering
from fye_rt.errors import OutputError
from fye_rt.media import VideoWriter
from fye_rt.timings import Timings
from tests.fye_rt.command_line import FAST, LANDMARKS, PORTRAIT, Fye, in_a_process, python
from tests.fye_rt.faults import failing

IMAGE = np.full((64, 64, 3), 90, np.uint8)


def rendering(frames: int = 3) -> Rendering:
    landmarks = np.stack([IMAGE] * frames)
    return Rendering(Playback(fps=10), IMAGE, landmarks, (), iter([landmarks]), Timings())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("failing", ["open", "a frame", "the end"])
def test_a_comparison_that_fails_costs_no_clip(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    encode = VideoWriter._encode

    def full(self: VideoWriter, *arguments: Any) -> None:
        if self._path.name == "beside.mp4" and self._added == {"a frame": 2, "the end": 3}[failing]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        encode(self, *arguments)

    if failing == "open":
        (tmp_path / "beside.mp4").mkdir()
    else:
        monkeypatch.setattr(VideoWriter, "_encode", full)
    write.write_clip(rendering(), tmp_path / "out.mp4", tmp_path / "beside.mp4", None)
    assert media.probe_video(tmp_path / "out.mp4").frames == 3
    (warning,) = caplog.messages
    assert "beside.mp4" in warning and warning.endswith(f"{tmp_path / 'out.mp4'} is complete")
    assert [path for path in names(tmp_path) if path != "beside.mp4"] == ["out.mp4"]


def test_a_clip_that_fails_leaves_no_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = VideoWriter._encode

    def full(self: VideoWriter, *arguments: Any) -> None:
        if self._path.name == "out.mp4":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        encode(self, *arguments)

    monkeypatch.setattr(VideoWriter, "_encode", full)
    with pytest.raises(OutputError, match=r"cannot write .*out.mp4: No space left"):
        write.write_clip(rendering(), tmp_path / "out.mp4", tmp_path / "beside.mp4", None)
    assert names(tmp_path) == []


def test_a_sheet_and_a_report_that_fail_cost_no_clip(fye: Fye, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "write_text", failing(errno.EDQUOT))
    monkeypatch.setattr("PIL.Image.Image.save", failing(errno.EDQUOT))
    out = tmp_path / "out.mp4"
    also = ("--contact-sheet", tmp_path / "sheet.png", "--json", tmp_path / "report.json")
    assert "2 frames" in fye("animate", PORTRAIT, LANDMARKS, "-o", out, *FAST, *also)
    lines = [line for line in fye.err.splitlines() if "is complete" in line]
    assert ["sheet.png" in lines[0], "report.json" in lines[1]] == [True, True]
    assert names(tmp_path) == ["out.mp4"] and media.probe_video(out).frames == 2


REFUSING = """
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>
int chmod(const char *path, mode_t mode) { errno = EPERM; return -1; }
int fchmod(int file, mode_t mode) { errno = EPERM; return -1; }
int fchmodat(int folder, const char *path, mode_t mode, int flags) { errno = EPERM; return -1; }
int fsync(int file) { errno = EINVAL; return -1; }
int fdatasync(int file) { errno = EINVAL; return -1; }
int flock(int file, int operation) { errno = ENOLCK; return -1; }
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None or sys.platform != "linux", reason="needs a C compiler, on Linux")
def test_a_file_system_without_access_rights_fsync_and_locks_gets_its_clips(tmp_path: Path) -> None:
    (tmp_path / "refusing.c").write_text(REFUSING)
    library = tmp_path / "refusing.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "refusing.c"], check=True)
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text(f'{{"portrait": "{PORTRAIT}", "motion": "{LANDMARKS}", "name": "a"}}\n')
    result = in_a_process("batch", jobs, "-o", tmp_path / "out", *FAST, LD_PRELOAD=str(library))
    assert result.returncode == 0, result.stderr
    (warning,) = result.stderr.splitlines()
    assert "cannot be locked" in warning
    assert names(tmp_path / "out") == ["a.mp4", "records", "results.jsonl", "summary.json"]


def test_a_signal_waits_for_the_end_of_uninterrupted_work() -> None:
    code = """
import os, signal
from fye_rt.clips.write import uninterrupted
signal.signal(signal.SIGINT, signal.default_int_handler)
done = []
try:
    with uninterrupted():
        os.kill(os.getpid(), signal.SIGINT)
        done.append("work")
    done.append("more")
except KeyboardInterrupt:
    print(done, signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""
    result = python("-c", code)
    assert result.stdout == "['work'] True\n", result.stderr
