"""Times of frames, made to rise strictly, whatever a file states."""

import itertools
from collections.abc import Iterable, Sequence
from fractions import Fraction

import numpy as np

from fye_rt.errors import InputError

CLOCK = Fraction(1, 90_000)  # tick of written clips, s: suits the usual frame rates exactly, others within 6 us
MAX_TIME = 86_400  # a day, in seconds
MIN_RATE, MAX_RATE = Fraction(1, 10), Fraction(1000)
MOST_REORDERED = 16  # frames that H.264 and HEVC may hold back

Stated = tuple[int | None, int | None]


def clock_tick(time: float | Fraction) -> int:
    """Round a time in seconds to a tick of a written clip."""
    return round(time / CLOCK)


def check_time(index: int, time: float, last: int) -> int:
    """Return the tick of a frame's time in a written clip.

    Args:
        index: the frame's number, for messages.
        time: seconds.
        last: tick of the previous frame; -1 for the first.

    Raises:
        InputError: the tick is not after `last`, or the time is not between 0 and a day.
    """
    if not 0 <= time < MAX_TIME:
        raise InputError(f"the time of frame {index}, {time} s, is not valid; allowed: 0 to {MAX_TIME}")
    tick = clock_tick(time)
    if tick <= last:
        raise InputError(
            f"the time of frame {index}, {time} s, is not 1/90000 s after the frame before it; increase it"
        )
    return tick


def check_times(times: Iterable[float]) -> None:
    """Raise InputError, as `check_time`, for times that a clip cannot be written with, before its frames are made."""
    last = -1
    for index, time in enumerate(times):
        last = check_time(index, time, last)


def mended(stated: Sequence[Stated]) -> list[int]:
    """Return strictly rising ticks for frames in the order in which they are shown.

    Args:
        stated: for each frame, the tick at which the file shows it and the tick at which its decoder returns it.

    Returns:
        The shown ticks if they rise; else the decoder's if they rise, as FFmpeg does where a container such as AVI has
        no others; else the shown ticks sorted, if they are only exchanged; else even steps where a tick does not rise.
    """
    shown, decoded = (_extended(ticks) for ticks in zip(*stated, strict=True))
    for ticks in (shown, decoded):
        if None not in ticks and all(b > a for a, b in itertools.pairwise(ticks)):  # type: ignore[operator]
            return ticks  # type: ignore[return-value]
    known = [tick for tick in shown if tick is not None]
    if len(known) == len(set(known)) == len(shown):
        order = np.argsort(known)
        if np.abs(order - np.arange(len(order))).max() <= MOST_REORDERED:
            return sorted(known)
    step = _step(known)
    result: list[int] = []
    for tick in shown:
        last = result[-1] if result else None
        if tick is None or (last is not None and tick <= last):
            tick = 0 if last is None else last + step
        result.append(tick)
    return result


def nominal_rate(stated: Fraction | None, ticks: Sequence[int], tick: Fraction) -> Fraction:
    """Return the stated rate if the times confirm it within 1 %, else the measured rate; 0.1 to 1000."""
    span = (ticks[-1] - ticks[0]) * tick
    measured = (len(ticks) - 1) / span if span > 0 else None
    if not stated or (measured is not None and abs(stated / measured - 1) >= Fraction(1, 100)):
        stated = (measured or Fraction(25)).limit_denominator(1001)
    return min(max(stated, MIN_RATE), MAX_RATE)


def varies(ticks: Sequence[int]) -> bool:
    """Return whether ticks are unevenly spaced."""
    steps = np.diff(np.array(ticks, np.float64))
    if len(steps) == 0:
        return False
    # a coarse clock (1 ms in Matroska) rounds even spacing to neighbouring ticks
    return bool(np.abs(steps - np.median(steps)).max() > max(1.5, 0.05 * float(np.median(steps))))


def _extended(ticks: Sequence[int | None]) -> list[int | None]:
    """Continue ticks evenly at the end, where a decoder without further packets returns frames without ticks."""
    result = list(ticks)
    step = _step([tick for tick in ticks if tick is not None])
    ends = next((k for k in range(len(result), 0, -1) if result[k - 1] is not None), len(result))
    for k in range(ends, len(result)):
        result[k] = result[k - 1] + step  # type: ignore[operator]
    return result


def _step(ticks: Sequence[int]) -> int:
    """Return the median rising step, at least 1."""
    steps = np.diff(np.array(ticks, np.int64))
    steps = steps[steps > 0]
    return int(np.median(steps)) if len(steps) else 1
