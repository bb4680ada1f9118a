"""What cannot be printed costs no result, whatever standard output and standard error are."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fye_rt import media
from fye_rt.cli import terminal
from fye_rt.errors import OutputError
from tests.fye_rt.command_line import FAST, LANDMARKS, PORTRAIT, ROOT, python

needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


def fye(redirection: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """`fye` as a shell starts it."""
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "fye_rt", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, check=False)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
@pytest.mark.parametrize("name", ["выход.mp4", "caf\udce9.mp4", "肖像.mp4", "😀\udcff.mp4"])
def test_every_file_name_can_be_printed(encoding: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = {"stdout": io.BytesIO(), "stderr": io.BytesIO()}
    for stream, content in raw.items():
        monkeypatch.setattr(sys, stream, io.TextIOWrapper(content, encoding))
    terminal.say(name)
    terminal.note(name)
    said = raw["stdout"].getvalue().decode(encoding)
    assert said == name + "\n" or ("\\" in said and said.endswith(".mp4\n"))
    assert raw["stderr"].getvalue().startswith(b"fye: ")


@needs_full
def test_a_full_stdout_becomes_a_note(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with open(os.open("/dev/full", os.O_WRONLY), "w", closefd=True) as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        terminal.say("out.mp4: 3 frames")
        with pytest.raises(OutputError, match="cannot write to stdout \\(No space left on device\\)"):
            terminal.show("cpu")
        terminal.settle()
    assert "out.mp4: 3 frames" in capsys.readouterr().err


def test_a_closed_pipe_is_no_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as pipe, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", pipe)
        terminal.say("a")
        terminal.show("b")
        terminal.settle()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("closed", [True, False])
def test_a_missing_stream_stops_nothing(
    stream: str, closed: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = io.StringIO()
    gone.close()
    monkeypatch.setattr(sys, stream, gone if closed else None)
    with terminal.working() as bars:
        bars("denoise", 1, 2)
        terminal.say("a")
        terminal.show("b")
        terminal.note("c")
    terminal.settle()
    assert capsys.readouterr() == (("", "fye: c\n") if stream == "stdout" else ("a\nb\n", ""))


def test_progress_bars_survive_a_closed_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class HungUp(io.StringIO):
        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stderr", HungUp())
    with terminal.working() as bars:
        for done in range(3):
            bars("denoise", done, 3)
        terminal.note("a")
    assert bars.totals == {"denoise": 3}


@pytest.mark.slow
def test_a_clip_is_made_without_any_standard_stream(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    result = fye(">&- 2>&- <&-", "animate", PORTRAIT, LANDMARKS, "-o", out, *FAST, "--json", tmp_path / "report.json")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    assert len(list(media.read_video(out))) == 2
    assert json.loads((tmp_path / "report.json").read_text())["frames"] == 2


@needs_full
@pytest.mark.slow
def test_a_full_stdout_costs_no_clip(tmp_path: Path) -> None:
    out = tmp_path / "клип.mp4"
    result = fye(">/dev/full", "animate", PORTRAIT, LANDMARKS, "-o", out, *FAST, PYTHONIOENCODING="ascii")
    assert result.returncode == 0 and media.probe_video(out).frames == 2
    said = result.stderr.decode().splitlines()
    assert "cannot write to stdout" in said[-1] and "2 frames" in said[-1]
    assert all(line.startswith("fye: ") for line in said)


@needs_full
def test_version_and_help_fail_in_one_line_on_a_full_stdout() -> None:
    result = fye(">/dev/full", "--version")
    assert (result.returncode, result.stderr) == (2, b"fye: cannot write to stdout (No space left on device)\n")
    help_text = fye(">/dev/full", "--help")
    assert help_text.returncode == 2 and help_text.stderr.count(b"\n") == 1


def test_a_closed_pipe_ends_the_command_quietly() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "fye_rt", "--version"]
    result = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (result.returncode, result.stderr) == (0, b"")


HOMELESS = """
import pwd, sys
def nobody(user):
    raise KeyError(user)
pwd.getpwuid = nobody  # as for a user of a container that no list of users has
from fye_rt.cli.main import main
sys.exit(main())
"""


def homeless(home: str | None, place: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HOME", "XDG", "MPL", "FYE"))}
    environment = kept | {"TMPDIR": str(place)} | ({} if home is None else {"HOME": home})
    return python("-c", HOMELESS, *arguments, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("home", [None, "/proc/no/home"])
def test_doctor_works_for_a_user_without_a_home(home: str | None, tmp_path: Path) -> None:
    result = homeless(home, tmp_path, "doctor")
    assert (result.returncode, result.stderr) == (0, "")
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("landmarker"))
    assert "face_landmarker.task is not at" in line


@pytest.mark.slow
@pytest.mark.parametrize("home", [None, "/proc/no/home"])
def test_landmarks_are_found_for_a_user_without_a_home(home: str | None, landmarker: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("skimage.data").astronaut()
    media.write_image(tmp_path / "a.png", image)
    arguments = ("landmarks", tmp_path / "a.png", "-o", tmp_path / "m.npz", "--landmarker", landmarker, "--quiet")
    result = homeless(home, tmp_path, *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    assert not (ROOT / "~").exists()
