import importlib.util
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from fye_rt.cli import main
from fye_rt.landmarks import load_points
from fye_rt.landmarks.points_file import NAMES, REQUIRED, VERTICES
from fye_rt.landmarks.rotation import matrix_to_euler

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
# what a browser loads when it opens a page: links in the text are not among them
LOADED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?(\S+?)[\"'\s>]|<link\b[^>]*\bhref=[\"']?(\S+?)[\"'\s>]"
)
LOADED_BY_STYLES = re.compile(r"url\([\"']?(\w+://[^)]*)|@import\s+[\"'](\w+://[^\"']*)")


def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("command_line", DOCS / "hooks" / "command_line.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_line_page_has_every_command_and_every_option() -> None:
    module = hook()
    page = "\n".join(module.commands()).removeprefix("## ")
    sections = dict(section.split("\n", 1) for section in page.split("\n## "))
    group: Any = typer.main.get_command(main.app)
    assert list(sections) == [f"fye {name}" for name in group.commands]
    for name, command in group.commands.items():
        section = sections[f"fye {name}"]
        if name in module.ELSEWHERE:
            continue
        for parameter in command.params:
            if parameter.param_type_name == "argument":
                assert parameter.metavar in section.split("[OPTIONS]")[0], f"fye {name}: {parameter.metavar}"
                continue
            for flag in (*parameter.opts, *parameter.secondary_opts):
                assert f"`{flag}`" in section, f"fye {name}: {flag}"


def test_commands_with_their_own_options_have_pages() -> None:
    page = DOCS / hook().PAGE
    assert page.is_file() and hook().MARK in page.read_text()
    assert hook().ELSEWHERE
    for link in hook().ELSEWHERE.values():
        target = re.search(r"\((.*?)(#.*)?\)", link)
        assert target and (page.parent / target[1]).is_file()


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_loads_nothing_from_the_network(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        for match in LOADED.finditer(page.read_text()):
            url = match[1] or match[2]
            assert not re.match(r"\w+:|//", url) or url.startswith("data:"), f"{page.name} loads {url}"
    styles = sorted((tmp_path / "site").rglob("*.css"))
    assert styles
    for style in styles:
        remote = LOADED_BY_STYLES.search(style.read_text())
        assert not remote or remote[0].startswith("url(data:"), f"{style.name} loads {remote and remote[0]}"
    python = (tmp_path / "site" / "reference" / "python.html").read_text()
    for name in ("Animator", "PortraitState", "Options", "Forecast", "Bundle", "Clip", "Motion", "OutOfMemoryError"):
        assert f'.{name}"' in python, f"{name} is not on the page"


def test_the_readme_s_links_lead_to_files() -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / "README.md").read_text())
    assert len(targets) > 5
    for target in targets:
        assert re.match(r"https://", target) or (ROOT / target).exists(), target


def test_the_guide_to_drawings_names_every_point_and_its_template_is_a_face(landmarker: Path) -> None:
    page = (DOCS / "guide" / "drawings.md").read_text()
    required = set(re.findall(r"`(\w+)`", "".join(line for line in page.splitlines() if "| Required:" in line)))
    assert required == set(REQUIRED)
    assert set(NAMES) <= set(re.findall(r"`(\w+)`", page))
    picture = (DOCS / "pictures" / "points.svg").read_text()
    assert set(VERTICES) <= set(re.findall(r">(\w+)</text>", picture))
    motion = load_points(DOCS / "guide" / "points.json", landmarker=landmarker)
    assert abs(matrix_to_euler(motion.pose[:, :3, :3])).max() < 1.0  # degrees: it looks at you, upright


def test_every_call_of_the_architecture_page_is_in_the_code() -> None:
    rows = re.findall(r"^\| (Where .*?\?) \| (.*) \|$", (DOCS / "architecture.md").read_text(), re.MULTILINE)
    assert len(rows) == 6
    for question, answer in rows:
        chains = re.findall(r"`[\w/.]+: \w+`(?: -> `[\w/.]+: \w+`)*", answer)
        calls = sum(chain.count(" -> ") for chain in chains)
        assert chains and calls <= (4 if "TensorRT" in question else 3), question
        for chain in chains:
            steps = [step.strip("`").split(": ") for step in chain.split(" -> ")]
            for path, name in steps:
                text = (ROOT / "fye_rt" / path).read_text()
                assert re.search(rf"^(?:def|class) {name}\b", text, re.MULTILINE), f"{path} has no {name}"
            for (caller, _), (_, name) in itertools.pairwise(steps):
                assert re.search(rf"\b{name}\b", (ROOT / "fye_rt" / caller).read_text()), f"{caller} has no {name}"


def test_every_test_that_the_page_of_files_names_is_there() -> None:
    page = (DOCS / "guide" / "files.md").read_text()
    names = re.findall(r"`(test_\w+(?:\.py|\.{3})?)`", page)
    text = ""
    for name in names:  # each test follows its file
        if name.endswith(".py"):
            text = (ROOT / "tests" / "fye_rt" / "media" / name).read_text()
        else:
            end = "" if name.endswith("...") else r"\("
            assert re.search(rf"^def {name.removesuffix('...')}{end}", text, re.MULTILINE), name
    assert len(names) > 30
