"""Fixtures of plans."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fye_rt.plans import PlanCache, PlanKey
from tests.fye_rt.command_line import ROOT
from tests.fye_rt.plans.sample import CONTENT, KEY

Python = Callable[..., "subprocess.Popen[str]"]
PRELUDE = """
import json, os, sys, time
from pathlib import Path
from fye_rt.errors import BackendError
from fye_rt.plans import PlanCache, PlanKey
cache, key, argument = PlanCache(Path(sys.argv[1])), PlanKey.from_json(json.loads(sys.argv[2])), sys.argv[3]
"""


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    return PlanCache(tmp_path / "plans")


@pytest.fixture
def folder(cache: PlanCache) -> Path:
    """The folder of a plan that was published."""
    return cache.publish(KEY, CONTENT, {"seconds": 12.5})


@pytest.fixture
def python(cache: PlanCache) -> Iterator[Python]:
    """Starts processes that work on a cache beside this one; each is killed after a minute."""
    started: list[tuple[subprocess.Popen[str], threading.Timer]] = []

    def start(script: str, key: PlanKey = KEY, argument: str = "") -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PRELUDE + script, str(cache.root), json.dumps(key.to_json()), argument]
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append((process, threading.Timer(60, process.kill)))
        started[-1][1].start()
        return process

    yield start
    for process, timer in started:
        timer.cancel()
        process.kill()
        with process:  # closes its pipes
            pass


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()
