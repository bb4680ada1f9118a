"""What clips made one after another share: their portraits, encoded, and their motions, read."""

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar

MOST_PORTRAITS = 4  # landmarks and encoding are one each; an encoded portrait of 512x512 has about 100 MB
MOST_MOTIONS = 32
MOST_FRAMES = 20_000  # of all motions together; a frame has 25 kB

T = TypeVar("T")


class ClipCache:
    """Remembers the last portraits and motions; what is asked for again is not made again."""

    def __init__(self) -> None:
        self._portraits: OrderedDict[Hashable, Any] = OrderedDict()
        self._motions: OrderedDict[Hashable, Any] = OrderedDict()

    def portrait(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives for a portrait, remembered by `key`, which tells apart all that it depends on."""
        found: T = _remembered(self._portraits, key, make)
        while len(self._portraits) > MOST_PORTRAITS:
            self._portraits.popitem(last=False)
        return found

    def motion(self, path: Path, key: Hashable, make: Callable[[], T], frames: Callable[[T], int]) -> T:
        """What `make` gives for a motion's file, as long as that doesn't change.

        Args:
            path: the file.
            key: what else it depends on.
            make: reads it.
            frames: how many frames the result keeps in memory.
        """
        try:
            facts = os.stat(path)
        except OSError:  # missing: reading it says so
            return make()
        whole = (os.fspath(path), facts.st_size, facts.st_mtime_ns, facts.st_ino, key)
        found: T = _remembered(self._motions, whole, make)
        while len(self._motions) > MOST_MOTIONS or sum(map(frames, self._motions.values())) > MOST_FRAMES:
            self._motions.popitem(last=False)
        return found


def _remembered(kept: OrderedDict[Hashable, Any], key: Hashable, make: Callable[[], Any]) -> Any:
    if key not in kept:
        kept[key] = make()
    kept.move_to_end(key)
    return kept[key]
