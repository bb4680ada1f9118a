"""Runs tests/smoke.py at both ends of every range that pyproject.toml declares: `make test-versions`.

Each end has an environment of its own under build/versions, made again when what it depends on has changed. Needs
nothing but Python itself.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "versions"
NEWER = ("3.14", "3.13", "3.12")  # Pythons that are looked for, the newest first
LAST = 40  # lines of an installation that fails
TOLD: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[[^\]]*\])?(?P<range>.*)")


@dataclass(frozen=True, slots=True)
class End:
    """One end of all ranges, on one Python."""

    name: str  # of its folder, and in what is printed
    python: str  # the interpreter
    install: tuple[str, ...]  # arguments of pip install, run in the checkout's folder
    constraints: tuple[str, ...]  # of pip


def lowest(project: dict[str, Any]) -> list[str]:
    """The floor of every range of a pyproject.toml, build and extras included: `name==X` for `name>=X`.

    Raises:
        ValueError: a requirement without a floor, or one package with two.
    """
    floors: dict[str, str] = {}
    lines = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    lines += [line for extra in project["project"]["optional-dependencies"].values() for line in extra]
    for line in lines:
        if line.startswith(f"{project['project']['name']}["):
            continue
        match = REQUIREMENT.fullmatch(line.replace(" ", ""))
        limits = match["range"].split(",") if match else []
        floor = next((limit.removeprefix(">=") for limit in limits if limit.startswith(">=")), None)
        if match is None or floor is None:
            raise ValueError(f"{line!r} has no floor; write name>=X")
        if floors.setdefault(match["name"], floor) != floor:
            raise ValueError(f"{match['name']} has two floors, {floors[match['name']]} and {floor}")
    return [f"{name}=={floor}" for name, floor in floors.items()]


def documented(readme: str) -> tuple[str, ...]:
    """What the README's `pip install` of a clone installs.

    Raises:
        ValueError: it has no such line.
    """
    match = re.search(r"^ +pip install '(\.\[[a-z,]+\])'$", readme, re.MULTILINE)
    if match is None:
        raise ValueError("the README has no line like: pip install '.[export]'")
    return (match[1],)


def ends(torch: str) -> Iterator[End]:
    """The ends that can be tried here; says which cannot, and why."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    line = documented((ROOT / "README.md").read_text())
    floors = tuple(floor for floor in lowest(project) if not floor.startswith("torch=="))
    oldest = find_python("3.11")
    if oldest is None:
        print("skipped: both ends on Python 3.11, which is not here", flush=True)
    else:
        yield End("lowest-3.11", oldest, (".[export,landmarks,openvino,heif,bench]", "pytest"), (*floors, torch))
        yield End("newest-3.11", oldest, (*line, ".[heif]", "pytest"), (torch,))
    newest = next((name for name in NEWER if find_python(name)), None)
    if newest is None:
        print(f"skipped: the newest Python; none of {', '.join(NEWER)} is here", flush=True)
    else:
        # without export: where PyTorch's own index is not asked, its wheel for this Python has CUDA's gigabytes
        python = find_python(newest) or ""
        yield End(f"newest-{newest}", python, (".[landmarks,openvino,heif]", "pytest"), ())


def find_python(wanted: str) -> str | None:
    """An interpreter of version `wanted` ("3.13"): this one, one on PATH, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path("~/.pyenv").expanduser())
    candidates = [sys.executable, shutil.which(f"python{wanted}"), shutil.which("python3")]
    candidates += sorted(map(str, pyenv.glob(f"versions/{wanted}.*/bin/python")), reverse=True)
    for candidate in filter(None, candidates):
        # pyenv puts commands on PATH that only say that they are not switched on
        code = "import sys, venv; print(sys.version_info[:2] == %r and sys._base_executable)"
        command = [candidate, "-c", code % (tuple(map(int, wanted.split("."))),)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode == 0 and result.stdout.strip() != "False":
            return result.stdout.strip()
    return None


def sources() -> str:
    """A digest of all that an installation is built from."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = [*project["tool"]["scikit-build"]["wheel"]["packages"].values(), "kernels/native", "engines/bundles"]
    files = [ROOT / "pyproject.toml", ROOT / "CMakeLists.txt"]
    files += [file for folder in folders for file in (ROOT / folder).rglob("*") if "__pycache__" not in file.parts]
    digest = hashlib.sha256()
    for file in sorted(file for file in files if file.is_file()):
        digest.update(f"{file.relative_to(ROOT)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def prepare(end: End) -> Path:
    """The interpreter of an environment where fye-rt is installed as a user installs it; made only if need be."""
    folder = FOLDER / end.name
    python = folder / "bin" / "python"
    key = hashlib.sha256(repr((end, (ROOT / "pyproject.toml").read_text())).encode()).hexdigest()
    source = sources()
    stamp = folder / "key.txt"
    was = stamp.read_text().split() if stamp.is_file() else []
    if was == [key, source]:
        return python
    constraints = FOLDER / f"{end.name}.txt"
    if was[:1] != [key]:
        shutil.rmtree(folder, ignore_errors=True)
        FOLDER.mkdir(parents=True, exist_ok=True)
        constraints.write_text("\n".join(end.constraints) + "\n")
        subprocess.run([end.python, "-m", "venv", folder], check=True, **TOLD)
        what = list(end.install)
    else:
        stamp.unlink()
        what = ["--force-reinstall", "--no-deps", "."]
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--no-input", "-q", "install", "--no-compile"]
    # the variables hold for the environment that a wheel is built in, too
    kept = {"PIP_CONSTRAINT": str(constraints), "PIP_BUILD_CONSTRAINT": str(constraints)}
    subprocess.run([*pip, *what], cwd=ROOT, env=os.environ | kept, check=True, **TOLD)
    stamp.write_text(f"{key}\n{source}\n")
    return python


def attempt(end: End, arguments: Sequence[str]) -> tuple[dict[str, str], bool, str]:
    """The versions that an end has, whether tests/smoke.py passes there, and what was said."""
    start = time.monotonic()
    try:
        python = prepare(end)
    except subprocess.CalledProcessError as error:
        return {}, False, "\n".join([*error.stdout.splitlines()[-LAST:], str(error)])
    ready = f"ready after {time.monotonic() - start:.0f} s"
    # away from the settings of the checkout's own pytest
    command = [python, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-c", os.devnull, "--noconftest"]
    command += ["--rootdir", FOLDER, "--import-mode=importlib", "-W", "ignore", "--durations=3"]
    command += [ROOT / "tests" / "smoke.py", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    told = subprocess.run(command, cwd=FOLDER, env=environment, check=False, **TOLD)
    code = "import importlib.metadata as m\nfor d in m.distributions(): print(d.metadata['Name'].lower(), d.version)"
    packages = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    return dict(line.split() for line in packages), told.returncode == 0, f"{ready}\n{told.stdout}"


def table(tried: dict[str, dict[str, str]]) -> Iterator[str]:
    """The versions of what pyproject.toml names, a column for each environment."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    names = [floor.partition("==")[0] for floor in lowest(project)]
    yield f"{'':<24}" + "".join(f"{end:>16}" for end in tried)
    for name in names:
        versions = [packages.get(name, "-") for packages in tried.values()]
        if set(versions) != {"-"}:
            yield f"{name:<24}" + "".join(f"{version:>16}" for version in versions)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", default="torch==2.13.0", help="which PyTorch goes with Python 3.11")
    parser.add_argument("--only", default="", help="the ends whose name begins so")
    parser.add_argument("--fresh", action="store_true", help="make the environments again: the newest may have changed")
    parser.add_argument("arguments", nargs="*", help="for pytest")
    options = parser.parse_args()
    if options.fresh:
        shutil.rmtree(FOLDER, ignore_errors=True)
    chosen = [end for end in ends(options.torch) if end.name.startswith(options.only)]
    tried, failed = {}, []
    with ThreadPoolExecutor(2) as both:  # what one downloads, the other need not wait for
        for end, (packages, passed, report) in zip(
            chosen, both.map(lambda end: attempt(end, options.arguments), chosen), strict=True
        ):
            print(f"== {end.name}: pip install {' '.join(end.install)}\n{report}", flush=True)
            tried[end.name] = packages
            if not passed:
                failed.append(end.name)
    print(*table(tried), sep="\n")
    print(f"failed: {', '.join(failed)}" if failed else f"all of {len(tried)} environments work")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
