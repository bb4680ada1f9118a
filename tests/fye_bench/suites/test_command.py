"""`fye suite` makes, checks and shows suites; a mistake is one line and code 2."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fye_bench.suites.suite import Suite
from fye_rt import media
from fye_rt.cli.main import main
from tests.fye_bench.suites.suite_files import written

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "development" / "suites.md"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[str], list[str]]:
    code = main(["suite", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err.splitlines()


def test_a_drawn_suite_is_checked_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "suite"
    sizes = ("--portraits", 3, "--motions", 2, "--frames", 2, "--size", "64x72", "--quiet")
    code, out, err = run(capsys, "drawn", folder, *sizes)
    assert (code, err) == (0, []) and out == [f"{folder}: 3 portraits, 2 motions, 5 pairs (2 self, 3 cross)"]
    assert media.read_image(next((folder / "portraits").glob("*.png"))).shape == (64, 72, 3)
    code, out, err = run(capsys, "check", folder)
    assert (code, err) == (0, []) and out == [f"{folder}: 8 files are what they were, 5 pairs"]
    code, out, err = run(capsys, "show", folder)
    suite = Suite.load(folder)
    assert code == 0 and out[0] == "drawn: 3 portraits, 2 motions, 5 pairs" and suite.digest in out[2]
    shown = {line[:16].strip(): line[16:].strip() for line in out[3:]}
    assert shown["portraits"] == "cartoons 1, people 1, sculptures 1" and shown["motions"] == "calm 1, talking 1"
    assert shown["pairs by mode"] == "cross 3, self 2" and shown["pairs by truth"] == "drawn 5"
    assert shown["licences"] == "Apache-2.0 5"


def test_fye_suite_check_prints_every_fault_and_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path)
    (tmp_path / "a.png").unlink()
    (tmp_path / "nod.npz").write_bytes(b"another")
    code, out, err = run(capsys, "check", tmp_path)
    assert (code, out) == (2, []) and len(err) == 2
    assert "a.png does not exist" in err[0] and "nod.npz is not the file" in err[1]


def test_fye_suite_show_needs_no_files_of_the_suite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path)
    (tmp_path / "a.png").unlink()
    code, out, _ = run(capsys, "show", tmp_path)
    assert code == 0 and any(line.split(maxsplit=3)[:3] == ["pairs", "by", "truth"] for line in out)


def make(folder: Path) -> None:
    for name in ("portraits", "videos"):
        (folder / name).mkdir(parents=True)
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    media.write_image(folder / "portraits" / "a.png", image)
    media.write_image(folder / "portraits" / "b.png", image)
    media.write_video(folder / "videos" / "a.mp4", [image, image], 25.0)


def test_fye_suite_init_prints_the_files_that_it_leaves_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path)
    (tmp_path / "portraits" / "c.png").write_text("none")
    landmarks = ("--family", "people", "--kind", "talking", "--source", "here", "--licence", "CC0", "--pairs", "all")
    code, out, err = run(capsys, "init", tmp_path, *landmarks)
    assert code == 0 and out == [f"{tmp_path}: 2 portraits, 1 motions, 2 pairs (1 self, 1 cross)"]
    assert any("c.png" in line for line in err) and any("a, b are the same file" in line for line in err)
    suite = Suite.load(tmp_path)
    assert suite.portraits["b"].family == "people" and suite.motions["a"].kind == "talking"


def test_fye_suite_needs_no_torch(tmp_path: Path) -> None:
    make(tmp_path)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from fye_bench.suites.command import main\n"
        "for command in ('init', 'check', 'show'): assert main([command, sys.argv[1]]) == 0\n"
        "assert main(['drawn', sys.argv[1] + '/drawn', '--portraits', '1', '--motions', '1', '--frames', '1']) == 0"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        *map(str.split, ("", "burn", "init", "init none", "drawn .", "check none", "show none --pairs all")),
        *(["init", ".", *wrong] for wrong in (["--pairs", "0"], ["--pairs", "some"], ["--licence", "a\nb"])),
        *(["drawn", "new", *wrong] for wrong in (["--size", "large"], ["--portraits", "0"])),
    ],
    ids=" ".join,
)
def test_a_wrong_argument_of_fye_suite_is_one_line_and_code_2(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "something").touch()
    code, out, err = run(capsys, *arguments)
    said = [line for line in err if "nobody has looked for faces" not in line]
    assert (code, out) == (2, []) and len(said) == 1 and said[0].startswith("fye: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["something"]


def test_the_documentation_of_fye_suite_has_every_option_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    page = PAGE.read_text()
    for command in ("init", "drawn", "check", "show"):
        assert main(["suite", command, "--help"]) == 0
        known = set(re.findall(r"--[a-z]+", capsys.readouterr().out)) - {"--help", "--quiet"}
        lines = re.findall(rf"^ {{4}}fye suite {command} .*(?:\n {{10,}}.*)*", page, re.MULTILINE)
        assert lines and set(re.findall(r"--[a-z]+", " ".join(lines))) == known
