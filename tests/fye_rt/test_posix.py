"""What only POSIX has is a nicety: without its modules and functions, the runtime imports and animates.

This is no Windows, which fye-rt has not been tried on; it finds what would not even start there.
"""

from pathlib import Path

import pytest

from fye_rt import media
from tests.fye_rt.command_line import LANDMARKS, PORTRAIT, ROOT, TINY, python

WITHOUT = """
import importlib, multiprocessing, os, shutil, signal, subprocess, sys, tempfile
import numpy  # asks Linux for its version
from pathlib import Path

MODULES = {"fcntl", "grp", "posix_ipc", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}
FUNCTIONS = '''
    chown chroot confstr fchmod fchown fork forkpty getegid geteuid getgid getgroups getloadavg getpgid getpgrp
    getpriority getuid initgroups killpg lchown mkfifo mknod nice openpty posix_spawn pread pwrite sched_getaffinity
    sched_setaffinity sendfile setegid seteuid setgid setpgid setpriority setsid setuid statvfs sync sysconf uname wait3
    wait4 O_CLOEXEC O_DIRECTORY O_NOCTTY O_NOFOLLOW O_NONBLOCK O_SYNC
'''.split()
SIGNALS = "SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGUSR1 SIGUSR2 SIGXFSZ".split()

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for name in MODULES:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Absent())
for holder, names in ((os, FUNCTIONS), (signal, [*SIGNALS, "alarm", "setitimer", "pthread_sigmask", "sigwait"])):
    for name in names:
        if hasattr(holder, name):
            delattr(holder, name)
"""


def run(code: str, *arguments: object) -> str:
    result = python("-c", WITHOUT + code, *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_a_portrait_is_animated_without_what_only_posix_has(tmp_path: Path) -> None:
    code = "from fye_rt.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    options = ("--bundle", TINY, "--steps", 1, "--forecast", "off", "--frames", 2, "--json", tmp_path / "a.json")
    run(code, "animate", PORTRAIT, LANDMARKS, "-o", tmp_path / "a.mp4", *options)
    assert len(list(media.read_video(tmp_path / "a.mp4"))) == 2


def test_every_module_imports_without_what_only_posix_has() -> None:
    folder = ROOT / "fye_rt"
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(folder.rglob("*.py"))
        if not path.name.startswith(("__main__", "openvino", "torch"))  # a backend is its package
    ]
    assert len(names) > 50
    run("for name in sys.argv[1:]:\n    importlib.import_module(name)", *names)


def test_a_folder_is_written_into_without_locks(tmp_path: Path) -> None:
    code = """
from fye_rt.files import alone, atomic_file
folder = Path(sys.argv[1])
with alone(folder):
    with atomic_file(folder / "a.json") as hidden:
        hidden.write_text("whole")
with alone(folder):
    print((folder / "a.json").read_text())
"""
    assert run(code, tmp_path) == "whole\n"


def test_a_plan_cache_is_refused_where_nothing_can_keep_it_private(tmp_path: Path) -> None:
    code = """
from fye_rt.errors import FyeError
from fye_rt.plans import PlanCache
try:
    PlanCache(Path(sys.argv[1])).write_timing("sm_90", "10", b"timing")
except FyeError as error:
    print(error)
"""
    assert "use Linux or a POSIX system" in run(code, tmp_path)
