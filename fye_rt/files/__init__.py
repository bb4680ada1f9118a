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
from fye_rt.files.strict_json import parse_json, shown

__all__ = [
    "alone",
    "atomic_file",
    "atomic_folder",
    "cache_folder",
    "ensure_home",
    "followed",
    "locked",
    "parse_json",
    "place_for_matplotlib",
    "refuse_pointer",
    "remove_left_over",
    "sha256",
    "shown",
    "temporary",
    "temporary_cache",
    "write_json",
]
