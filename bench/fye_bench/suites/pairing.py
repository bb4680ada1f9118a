"""Choose pairs and their order: the first N are spread evenly over families and kinds, for every N."""

from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from heapq import heappop, heapreplace
from itertools import zip_longest
from typing import NamedTuple


class Pairing(NamedTuple):
    """A portrait and the motion that drives it.

    Attributes:
        portrait: name of the portrait.
        motion: name of the motion.
        mode: "self" or "cross".
    """

    portrait: str
    motion: str
    mode: str


def crossings(
    portraits: Mapping[str, str], motions: Mapping[str, str], own: Collection[tuple[str, str]] = ()
) -> Iterator[Pairing]:
    """Yield all pairs of a portrait and another face's motion: every portrait once, then once again, and so on.

    A family's portraits take the kinds in turn, and the portraits that take a kind take its motions in turn.

    Args:
        portraits: the family of each.
        motions: the kind of each.
        own: (portrait, motion) of faces that drive themselves, which are left out.
    """
    by_kind: dict[str, list[str]] = {}
    for name, kind in motions.items():
        by_kind.setdefault(kind, []).append(name)
    own = set(own)
    taken: Counter[str] = Counter()  # by kind
    together: Counter[tuple[str, str]] = Counter()  # by family and kind

    def turn(kind: str) -> Iterator[str]:
        """Yield a kind's motions, each once, from the one whose turn it is when a portrait first asks."""
        first, of_kind = taken[kind], by_kind[kind]
        yield from (of_kind[(first + k) % len(of_kind)] for k in range(len(of_kind)))

    left = {portrait: {kind: turn(kind) for kind in by_kind} for portrait in portraits}
    waiting = _in_turn(portraits)
    while waiting:
        for portrait in waiting:
            family, kinds = portraits[portrait], left[portrait]
            while kinds:
                kind = min(kinds, key=lambda kind: (together[family, kind], taken[kind]))
                motion = next(kinds[kind], None)
                if motion is None:
                    del kinds[kind]
                elif (portrait, motion) not in own:
                    taken[kind] += 1
                    together[family, kind] += 1
                    yield Pairing(portrait, motion, "cross")
                    break
        waiting = [portrait for portrait in waiting if left[portrait]]


def spread(pairs: Sequence[Pairing], portraits: Mapping[str, str], motions: Mapping[str, str]) -> list[Pairing]:
    """Order pairs so that the first N are spread evenly, for every N.

    The next pair is of the family used least, in it of the kind used least, and of that the mode furthest behind its
    share.

    Args:
        pairs: those of one family, kind and mode keep their order.
        portraits: the family of each.
        motions: the kind of each.
    """
    queues: dict[str, dict[str, dict[str, deque[Pairing]]]] = {}
    for pair in pairs:
        kinds = queues.setdefault(portraits[pair.portrait], {})
        kinds.setdefault(motions[pair.motion], {}).setdefault(pair.mode, deque()).append(pair)
    modes = Counter(pair.mode for pair in pairs)
    of_kind: Counter[str] = Counter()
    of_both: Counter[tuple[str, str]] = Counter()
    of_mode: Counter[str] = Counter()
    families = [(0, place, family) for place, family in enumerate(queues)]
    ordered: list[Pairing] = []
    while families:
        shown, place, family = families[0]
        kinds = queues[family]
        kind = min(kinds, key=lambda kind: (of_kind[kind], of_both[family, kind]))
        waiting = kinds[kind]
        mode = max(waiting, key=lambda mode: modes[mode] * (len(ordered) + 1) - of_mode[mode] * len(pairs))
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


def _in_turn(groups: Mapping[str, str]) -> list[str]:
    """Order names so that groups take turns."""
    members: dict[str, list[str]] = {}
    for name, group in groups.items():
        members.setdefault(group, []).append(name)
    return [name for names in zip_longest(*members.values()) for name in names if name is not None]
