"""Render pages of one file each from the templates, style and script of `page/`."""

import base64
import hashlib
import math
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fye_bench.metrics.table import METRICS, SECTIONS
from fye_rt.files import atomic_file

if TYPE_CHECKING:
    from jinja2 import Environment

_PAGE = Path(__file__).parent / "page"
DASH, MINUS, TIMES = "\N{EN DASH}", "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"


def write_page(path: Path, template: str, context: Mapping[str, Any]) -> None:
    """Render a template of `page/` with its values escaped; the file appears whole or not at all.

    Raises:
        OutputError: the file could not be written.
    """
    style, script = ((_PAGE / name).read_text(encoding="utf-8") for name in ("style.css", "sort.js"))
    # the page may run only this script, load no file, and send nothing
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    page = _environment().get_template(template).render(style=style, script=script, script_digest=digest, **context)
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {"METRICS": METRICS, "SECTIONS": SECTIONS, "DASH": DASH}
    environment.filters |= {name: _typeset(text) for name, text in _TEXTS.items()}
    return environment


def seconds(value: float | None) -> str:
    """Format a duration with two or three significant digits; "-" where it is unknown."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s" if value < 100 else f"{value:.0f} s"


def memory(value: float | None) -> str:
    """Format bytes as MB or GB; "-" where they are unknown."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value / 1e6:.0f} MB" if value < 1e9 else f"{value / 1e9:.2f} GB"


_TEXTS: Mapping[str, Callable[..., str]] = {
    "value": lambda value, name: METRICS[name].text(value),
    "change": lambda value, name: METRICS[name].text(value, "+", 1),
    "percent": lambda value: f"{100 * value:+.2f} %",
    "seconds": seconds,
    "memory": memory,
    "number": lambda value, decimals=1: f"{value:.{decimals}f}",
    "times": lambda value: f"{value:.2f}{TIMES}",
}


def _typeset(text: Callable[..., str]) -> Callable[..., str]:
    """Wrap a formatter: a minus sign in place of the hyphen, and a dash for an unknown number."""

    def typeset(value: float | None, *arguments: Any) -> str:
        known = value is not None and math.isfinite(value)
        return text(value, *arguments).replace("-", MINUS) if known else DASH

    return typeset
