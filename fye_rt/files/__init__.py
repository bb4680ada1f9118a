"""Files: atomic results, locks, and the user's folders."""

from fye_rt.files.home import cache_folder, ensure_home, place_for_matplotlib, temporary_cache
from fye_rt.files.locks import alone, locked
from fye_rt.files.results import (
    atomic_file,
    atomic_folder,
    followed,
    refuse_pointer,
    remove_left_over,
    sha256,
    temporary,
    write_json,
)

__all__ = [
    "alone",
    "atomic_file",
    "atomic_folder",
    "cache_folder",
    "ensure_home",
    "followed",
    "locked",
    "place_for_matplotlib",
    "refuse_pointer",
    "remove_left_over",
    "sha256",
    "temporary",
    "temporary_cache",
    "write_json",
]
