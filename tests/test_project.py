import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from packaging.requirements import Requirement

import fye_rt
from fye_rt.cli.main import app
from tests import versions

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = [ROOT / folder for folder in PROJECT["tool"]["scikit-build"]["wheel"]["packages"].values()]
MODULES = [path for package in PACKAGES for path in sorted(package.rglob("*.py"))]


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def requirements(*extras: str) -> list[Requirement]:
    optional = PROJECT["project"]["optional-dependencies"]
    lines = PROJECT["project"]["dependencies"] + [line for extra in extras for line in optional[extra]]
    return [Requirement(line) for line in lines]


def test_the_package_and_the_distribution_have_one_version() -> None:
    assert fye_rt.__version__ == PROJECT["project"]["version"]


def test_every_package_of_the_tree_is_in_the_wheel() -> None:
    roots = [ROOT / root for root in PROJECT["tool"]["pytest"]["ini_options"]["pythonpath"]]
    found = {init.parent for root in roots for init in root.glob("fye_*/__init__.py")}
    assert found == set(PACKAGES)


def needed_by_the_command_line() -> set[Path]:
    """All of fye_rt, and what it names anywhere, in imports or as text, one module after the other."""
    names = {module_name(path): path for path in MODULES}
    needed: set[Path] = set()
    unread = [path for name, path in names.items() if name.startswith("fye_rt")]
    while unread:
        path = unread.pop()
        if path in needed:
            continue
        needed.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            mentioned: set[str] = set()
            if isinstance(node, ast.Import):
                mentioned = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                mentioned = {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                mentioned = {node.value}
            unread += [names[name] for name in mentioned & names.keys()]
    return needed


def module_name(path: Path) -> str:
    package = next(package for package in PACKAGES if package in path.parents)
    return ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")


def test_the_wheel_leaves_out_what_no_command_needs_and_nothing_else() -> None:
    left_out: set[Path] = set()
    for entry in PROJECT["tool"]["scikit-build"]["wheel"]["exclude"]:
        package, _, rest = entry.partition("/")
        path = next(folder for folder in PACKAGES if folder.name == package) / rest
        left_out |= {path} if path.is_file() else set(path.rglob("*.py"))
    modules = {path for path in MODULES if path.name != "__init__.py"}
    assert {path for path in left_out if path.name != "__init__.py"} == modules - needed_by_the_command_line()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_public_module_has_a_docstring(path: Path) -> None:
    if path.name.startswith("_") and path.name not in ("__init__.py", "__main__.py"):
        return
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


def test_no_tracked_file_is_over_20_megabytes() -> None:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listing.stdout.split("\0") if name]
    assert len(files) > 500 and not [file for file in files if file.is_file() and file.stat().st_size > 20_000_000]


def test_importing_the_runtime_imports_only_a_few_of_its_modules() -> None:
    code = "import sys; before = set(sys.modules); import fye_rt; print(*set(sys.modules) - before)"
    loaded = run(code).split()
    packages = {name.partition(".")[0] for name in loaded}
    assert packages - set(sys.stdlib_module_names) == {"fye_rt"}
    assert len([name for name in loaded if name.startswith("fye_rt")]) <= 5


def test_no_module_of_the_runtime_needs_torch_to_import() -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in MODULES
        if ROOT / "fye_rt" in path.parents
        and not path.name.startswith(("__main__", "openvino", "torch"))  # a backend is its package
    ]
    absent = "torch triton diffusers transformers openvino tensorrt mediapipe cuda fye_export fye_bench fye_rt._native"
    run(
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({absent!r}.split()))\n"
        f"for name in {names!r}: importlib.import_module(name)"
    )


def test_the_array_operations_work_without_the_native_module() -> None:
    output = run(
        "import sys; sys.modules['fye_rt._native'] = None\n"
        "import numpy as np; from fye_rt import arrays\n"
        "ones = np.ones(3, np.float32)\n"
        "print(arrays.weighted_sum([ones, ones], [0.5, 0.25]), arrays.to_uint8(ones / 2))"
    )
    assert output == "[0.75 0.75 0.75] [127 127 127]\n"


def test_the_core_dependencies_hold_no_torch_and_one_opencv() -> None:
    names = [requirement.name for requirement in requirements()]
    assert "torch" not in names
    assert [name for name in names if name.startswith("opencv")] == ["opencv-contrib-python"]


def test_every_pinned_version_lies_in_its_range() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    every = requirements(*PROJECT["project"]["optional-dependencies"])
    for requirement in every:
        if requirement.name in pins:
            assert requirement.specifier.contains(pins[requirement.name]), requirement
    unpinned = {requirement.name for requirement in every} - set(pins)
    assert unpinned <= {"fye-rt", "tensorrt-cu13", "packaging"}, "pin these in constraints.txt"


def test_documented_install_commands_name_existing_extras() -> None:
    extras = set(PROJECT["project"]["optional-dependencies"])
    seen = 0
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        text = document.read_text()
        assert not re.search(r"pip install '?fye-rt", text), f"{document.name}: nothing is published yet"
        for listed in re.findall(r"pip install '\.\[([^\]]*)\]'", text):
            assert set(listed.split(",")) <= extras, f"{document.name}: {listed}"
            seen += 1
    assert seen >= 5


def test_the_lowest_versions_are_those_that_pyproject_states() -> None:
    floors = dict(line.split("==") for line in versions.lowest(PROJECT))
    every = requirements(*PROJECT["project"]["optional-dependencies"])
    every += [Requirement(line) for line in PROJECT["build-system"]["requires"]]
    assert floors.keys() == {requirement.name for requirement in every} - {"fye-rt"}
    for requirement in every:
        assert requirement.name == "fye-rt" or requirement.specifier.contains(floors[requirement.name]), requirement
    versions.documented((ROOT / "README.md").read_text())


@pytest.mark.parametrize("line", ["numpy", "numpy<3", "numpy==2.1", "numpy!=2.2,<3", "numpy>=2"])
def test_a_package_without_a_floor_or_with_two_is_refused(line: str) -> None:
    project = {"name": "fye-rt", "dependencies": [line], "optional-dependencies": {"a": ["numpy>=2.1"]}}
    with pytest.raises(ValueError, match=r"two floors, 2 and 2\.1" if line == "numpy>=2" else "write name>=X"):
        versions.lowest({"build-system": {"requires": []}, "project": project})


def test_the_command_line_entry_point_exists() -> None:
    module, _, name = PROJECT["project"]["scripts"]["fye"].partition(":")
    run(f"import {module}; assert callable({module}.{name})")


def test_every_documented_command_and_option_exists() -> None:
    commands = typer.main.get_command(app).commands
    seen = 0
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for line in re.findall(r"^ {4}fye .*$|`fye [a-z][^`]*`", document.read_text(), re.MULTILINE):
            words = line.strip("` ").partition("  #")[0].split()
            if len(words) < 2 or commands[words[1]].context_settings.get("ignore_unknown_options"):
                continue  # reads its own options
            known = {option for parameter in commands[words[1]].params for option in parameter.opts}
            named = {word.partition("=")[0] for word in words if word.startswith("-")}
            assert named <= known, f"{document.name}: {line}"
            seen += 1
    assert seen > 20
