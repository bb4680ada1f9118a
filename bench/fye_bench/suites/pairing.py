"""Who is paired with what, and in which order: any first pairs are spread evenly over families and kinds."""

from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from heapq import heappop, heapreplace
from typing import NamedTuple


class Plan(NamedTuple):
    """A pair to be.

    Attributes:
        portrait: its name.
        motion: its name.
        mode: "self" or "cross".
    """

    portrait: str
    motion: str
    mode: str


def crossings(
    portraits: Mapping[str, str], motions: Mapping[str, str], own: Collection[tuple[str, str]] = ()
) -> Iterator[Plan]:
    """All pairs of a portrait and somebody else's motion, best ones first: every portrait once, then once again, ...

    A family's portraits take the kinds in turn, and the portraits that take a kind take its motions in turn.

    Args:
        portraits: the family of each.
        motions: the kind of each.
        own: (portrait, motion) that are no such pairs: a face drives itself.
    """
    by_kind: dict[str, list[str]] = {}
    for name, kind in motions.items():
        by_kind.setdefault(kind, []).append(name)
    own = set(own)
    taken: Counter[str] = Counter()  # by kind
    together: Counter[tuple[str, str]] = Counter()  # by family and kind
    left = {portrait: {kind: _Turn(of_kind) for kind, of_kind in by_kind.items()} for portrait in portraits}
    waiting = _in_turn(portraits)
    while waiting:
        for portrait in waiting:
            family, kinds = portraits[portrait], left[portrait]
            while kinds:
                kind = min(kinds, key=lambda kind: (together[family, kind], taken[kind]))
                motion = kinds[kind].next(taken[kind])
                if motion is None:
                    del kinds[kind]
                elif (portrait, motion) not in own:
                    taken[kind] += 1
                    together[family, kind] += 1
                    yield Plan(portrait, motion, "cross")
                    break
        waiting = [portrait for portrait in waiting if left[portrait]]


def spread(plans: Sequence[Plan], portraits: Mapping[str, str], motions: Mapping[str, str]) -> list[Plan]:
    """The same pairs in an order of which any first ones are spread evenly.

    The family that was shown least comes next, and of it the kind that was shown least, as long as there are any left;
    of that, the mode that lags behind its share.

    Args:
        plans: pairs; those of one family, kind and mode keep their order.
        portraits: the family of each.
        motions: the kind of each.
    """
    queues: dict[str, dict[str, dict[str, deque[Plan]]]] = {}
    for plan in plans:
        kinds = queues.setdefault(portraits[plan.portrait], {})
        kinds.setdefault(motions[plan.motion], {}).setdefault(plan.mode, deque()).append(plan)
    modes = Counter(plan.mode for plan in plans)
    of_kind: Counter[str] = Counter()
    of_both: Counter[tuple[str, str]] = Counter()
    of_mode: Counter[str] = Counter()
    families = [(0, place, family) for place, family in enumerate(queues)]
    ordered: list[Plan] = []
    while families:
        shown, place, family = families[0]
        kinds = queues[family]
        kind = min(kinds, key=lambda kind: (of_kind[kind], of_both[family, kind]))
        waiting = kinds[kind]
        mode = max(waiting, key=lambda mode: modes[mode] * (len(ordered) + 1) - of_mode[mode] * len(plans))
        ordered.append(waiting[mode].popleft())
        of_kind[kind] += 1
        of_both[family, kind] += 1
        of_mode[mode] += 1
        if not waiting[mode]:
            del waiting[mode]
        if not waiting:
            del kinds[kind]
        if kinds:
            heapreplace(families, (shown + 1, place, family))
        else:
            heappop(families)
    return ordered


class _Turn:
    """One portrait's way through the motions of a kind, each once, from wherever it begins."""

    __slots__ = ("_done", "_motions", "_start")

    def __init__(self, motions: Sequence[str]) -> None:
        self._motions, self._start, self._done = motions, -1, 0

    def next(self, start: int) -> str | None:
        """The next one; the first is number `start`, counted around. None after all."""
        if self._start < 0:
            self._start = start
        if self._done == len(self._motions):
            return None
        self._done += 1
        return self._motions[(self._start + self._done - 1) % len(self._motions)]


def _in_turn(groups: Mapping[str, str]) -> list[str]:
    """The names, one of each group after another."""
    members: dict[str, int] = {}
    places: list[tuple[int, int, str]] = []
    order: dict[str, int] = {}
    for name, group in groups.items():
        members[group] = members.get(group, -1) + 1
        places.append((members[group], order.setdefault(group, len(order)), name))
    return [name for *_, name in sorted(places)]
