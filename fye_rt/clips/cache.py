"""A cache of what consecutive clips share: encoded portraits and motions."""

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar

# landmarks and encoding count as one each; an encoded portrait of 512x512 takes about 100 MB, or, with PyTorch on a GPU
# in half precision, 50 MB there
MOST_PORTRAITS = 4
MOST_MOTIONS = 32
MOST_FRAMES = 20_000  # of several motions together; a frame takes 25 kB, until `fye_rt.files.rows` puts it on the disk

T = TypeVar("T")


class ClipCache:
    """Keeps the most recently used portraits and motions, so that they are made only once."""

    def __init__(self) -> None:
        self._portraits: OrderedDict[Hashable, Any] = OrderedDict()
        self._motions: OrderedDict[Hashable, Any] = OrderedDict()

    def portrait(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return a portrait's cached result under `key`, or make it; `key` covers all that the result depends on."""
        result: T = _remembered(self._portraits, key, make)
        while len(self._portraits) > MOST_PORTRAITS:
            self._portraits.popitem(last=False)
        return result

    def motion(self, path: Path, key: Hashable, make: Callable[[], T], frames: Callable[[T], int]) -> T:
        """Return a motion file's cached result as long as the file does not change, or make it.

        `key` is everything else that the result depends on, `make` reads the file, and `frames` counts the frames that
        a result keeps in memory.
        """
        try:
            facts = os.stat(path)
        except OSError:  # a missing file: `make` says so
            return make()
        whole = (os.fspath(path), facts.st_size, facts.st_mtime_ns, facts.st_ino, key)
        result: T = _remembered(self._motions, whole, make)
        while len(self._motions) > MOST_MOTIONS or (
            len(self._motions) > 1 and sum(map(frames, self._motions.values())) > MOST_FRAMES
        ):
            self._motions.popitem(last=False)
        return result


def _remembered(cache: OrderedDict[Hashable, Any], key: Hashable, make: Callable[[], Any]) -> Any:
    if key not in cache:
        cache[key] = make()
    cache.move_to_end(key)
    return cache[key]
