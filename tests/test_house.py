"""The house: how large it is, and which way its imports go."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "fye_rt"
FLAT_FILES, FLAT_LINES, LONGEST = 22, 3200, 350
OURS = {"fye_bench", "fye_engines", "fye_export", "fye_kernels", "fye_torch", "fye_training"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in ROOT.rglob("*.py")}


def imports(path: Path) -> Iterator[str]:
    """Modules that a file imports anywhere: at the top, in functions, and for type checkers alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)


def named(path: Path) -> Iterator[str]:
    """Modules that a file names as text, to import them by name: "module" or "module:attribute"."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            module = node.value.partition(":")[0]
            if module in MODULES or (root(module) in OURS and module.replace(".", "").isidentifier()):
                yield module


def root(module: str) -> str:
    return module.partition(".")[0]


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, or none."""
    finished: set[str] = set()

    def walk(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in finished:
            return []
        for other in sorted(graph[module]):
            if round_trip := walk(other, [*path, module]):
                return round_trip
        finished.add(module)
        return []

    return next((found for module in sorted(graph) if (found := walk(module, []))), [])


def test_the_top_level_of_the_runtime_stays_short() -> None:
    lines = {path.name: len(path.read_text().splitlines()) for path in ROOT.glob("*.py")}
    assert len(lines) <= FLAT_FILES, sorted(lines)
    assert sum(lines.values()) <= FLAT_LINES, lines


def test_no_source_file_is_long() -> None:
    lines = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    assert {name: count for name, count in lines.items() if count > LONGEST} == {}


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    graph = {name: {*imports(path), *named(path)} & set(MODULES) - {name} for name, path in MODULES.items()}
    graph["fye_rt"] = set()  # it names what users import, and nothing of ours imports it for more than its version
    assert circle(graph) == []


def test_the_import_check_finds_a_cycle() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize("name", sorted(MODULES))
def test_the_runtime_imports_neither_torch_nor_another_package_of_ours(name: str) -> None:
    assert set(map(root, imports(MODULES[name]))) & {"torch", *OURS} == set()


def test_only_commands_and_backends_name_other_packages_as_text() -> None:
    naming = {name for name, path in MODULES.items() if any(each in OURS for each in map(root, named(path)))}
    assert {name for name in naming if not name.startswith(("fye_rt.cli.", "fye_rt.backends"))} == set()
