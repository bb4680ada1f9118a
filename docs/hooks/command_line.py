"""Fill the command-line page with the commands of `fye`, from the definitions behind `fye COMMAND --help`."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from fye_rt.cli.main import app

PAGE = "reference/command-line.md"
MARK = "<!-- commands -->"
# commands that parse their own subcommands and options, with the pages that document them
ELSEWHERE = {
    "suite": "[Suites](../development/suites.md)",
    "eval": "[Evaluation](../development/evaluation.md)",
    "bench": "[Development](../development/index.md#benchmarks)",
}


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in the command-line page; MkDocs calls this for every page."""
    if page.file.src_uri != PAGE:
        return markdown
    return markdown.replace(MARK, "\n".join(commands()))


def commands() -> Iterator[str]:
    """Yield the Markdown lines of a section for each command."""
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        yield f"## fye {name}\n"
        yield f"{_text(command.help)}\n"
        if name in ELSEWHERE:
            yield f"Subcommands and options: {ELSEWHERE[name]}.\n"
            continue
        arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
        options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
        needed = [f"{option.opts[0]} {_metavar(option)}" for option in options if option.required]
        yield f"    fye {name} {' '.join([*map(_metavar, arguments), *needed, '[OPTIONS]'])}\n"
        described = [argument for argument in arguments if argument.help]
        yield from _table("argument", ((f"`{_metavar(argument)}`", argument) for argument in described))
        yield from _table("option", ((_flags(option), option) for option in options))


def _table(title: str, rows: Iterator[tuple[str, Any]]) -> Iterator[str]:
    lines = [f"| {name} | {_cell(parameter)} |" for name, parameter in rows]
    if lines:
        yield from (f"| {title} | |", "|---|---|", *lines, "")


def _cell(parameter: Any) -> str:
    text = _text(parameter.help or "")
    parts = [text if text.endswith(".") or not text else f"{text}."]
    if parameter.required:
        parts.append("Required.")
    default = parameter.default
    if isinstance(default, str | int | float | Path) and not isinstance(default, bool):
        parts.append(f"Default: `{default}`.")
    return " ".join(filter(None, parts)).replace("|", "\\|")


def _flags(option: Any) -> str:
    names = ", ".join(f"`{flag}`" for flag in (*option.opts, *option.secondary_opts))
    return names if option.is_flag else f"{names} `{_metavar(option)}`".replace("|", "\\|")


def _metavar(parameter: Any) -> str:
    if parameter.metavar:
        return str(parameter.metavar)
    return {int: "N", float: "X"}.get(type(parameter.default), "VALUE")


def _text(words: str) -> str:
    """Convert a help text to Markdown, one line per paragraph."""
    paragraphs = re.split(r"\n\s*\n", words.strip())
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
