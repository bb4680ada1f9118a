"""Draw plots as inline SVG. Colours are classes of the page's style, which has a light and a dark theme."""

import math
from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup

from fye_bench.metrics.statistics import Estimate
from fye_bench.metrics.table import Metric

WIDTH = 360  # of a plot in its own units, which are about a pixel on a page
_LEFT, _RIGHT = 92, 18  # margins
_ROW, _TOP, _BOTTOM = 36, 4, 24
_DOT = 4.2  # diameter
_LANES = (0, 1, -1, 2, -2, 3, -3)  # where dots go that would overlap
_LABEL = 14  # characters of a row's name


def distribution(metric: Metric, rows: Mapping[str, tuple[Sequence[float], Estimate]]) -> Markup:
    """Plot every clip's value as a dot, a row for each group, with the group's mean and its 95 % interval.

    Args:
        metric: the metric that is shown.
        rows: values and their estimate by group; groups without a value are left out.
    """
    rows = {group: row for group, row in rows.items() if row[0] and row[1]["mean"] is not None}
    if not rows:
        return Markup("")
    ticks, place = _axis([value for values, _ in rows.values() for value in values])
    height = _TOP + _ROW * len(rows) + _BOTTOM
    bottom = height - _BOTTOM
    parts = [
        Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{} by group">').format(
            WIDTH, height, metric.title
        )
    ]
    for tick, text in ticks:
        x = place(tick)
        parts.append(Markup('<path class="grid" d="M{} {}V{}"/>').format(_short(x), _TOP, bottom))
        parts.append(Markup('<text class="tick" x="{}" y="{}">{}</text>').format(_short(x), bottom + 15, text))
    for number, (group, (values, estimate)) in enumerate(rows.items()):
        y = _TOP + _ROW * (number + 0.5)
        low, middle, high = (_short(place(estimate[end])) for end in ("low", "mean", "high"))
        name = group if len(group) <= _LABEL else f"{group[: _LABEL - 1]}…"
        parts.append(Markup('<text class="group" x="0" y="{}">{}</text>').format(_short(y + 4), name))
        parts.append(Markup('<path class="interval" d="M{} {}H{}"/>').format(low, _short(y), high))
        parts.append(Markup('<path class="mean" d="M{} {}v18"/>').format(middle, _short(y - 9)))
        parts.append(Markup('<path class="dots" d="{}"/>').format(_dots([place(value) for value in values], y)))
    return Markup("").join([*parts, Markup("</svg>")])


def interval(worse: Mapping[str, float], span: float, verdict: str, limit: float) -> Markup:
    """Plot a 95 % interval on a scale from -span to span, as wide as its cell of a table.

    Args:
        worse: {mean, low, high}; values outside of the scale are drawn at its ends.
        span: above 0.
        verdict: verdict of `acceptance.difference`, which gives the colour.
        limit: largest accepted value, marked by a line; below `span`.
    """

    def percent(value: float) -> str:
        return f"{_short(50 + 50 * min(1.0, max(-1.0, value / span)))}%"

    kind = {"better": "good", "worse": "bad"}.get(verdict, "even")
    low, middle, high = (percent(worse[end]) for end in ("low", "mean", "high"))
    return Markup(
        '<svg class="effect {}" height="18" aria-hidden="true"><line class="zero" x1="50%" x2="50%" y1="0" y2="18"/>'
        '<line class="limit" x1="{limit}" x2="{limit}" y1="0" y2="18"/>'
        '<line class="interval" x1="{}" x2="{}" y1="9" y2="9"/><circle class="mean" cx="{}" cy="9" r="3.5"/></svg>'
    ).format(kind, low, high, middle, limit=percent(limit))


def _axis(values: Sequence[float]) -> tuple[list[tuple[float, str]], Callable[[float], float]]:
    """Return three to five round numbers that span the values, and a map from values to the plot."""
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - max(0.5 * abs(low), 0.5), high + max(0.5 * abs(high), 0.5)
    step = 10 ** math.floor(math.log10((high - low) / 2))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if (high - low) / (factor * step) <= 4)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    exponent = math.floor(math.log10(step))
    digit = step / 10**exponent
    decimals = max(0, -exponent + (abs(digit - round(digit)) > 1e-6))  # 2.5 needs one more
    ticks = [(k * step, f"{k * step:.{decimals}f}") for k in range(first, last + 1)]
    if len(ticks) > 5:
        ticks = ticks[::2]
    scale = (WIDTH - _LEFT - _RIGHT) / (last * step - first * step)
    return ticks, lambda value: _LEFT + (value - first * step) * scale


def _dots(places: Sequence[float], y: float) -> str:
    """Draw dots as lines of no length with round ends, the shortest form."""
    ends = dict.fromkeys(_LANES, -math.inf)
    path = []
    for x in sorted(places):
        free = [lane for lane in _LANES if x - ends[lane] >= _DOT]
        lane = free[0] if free else min(_LANES, key=lambda lane: ends[lane])
        ends[lane] = x
        path.append(f"M{_short(x)} {_short(y + lane * _DOT)}h0")
    return "".join(path)


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
