"""Fixtures of plans."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fye_rt.plans import PlanCache, PlanKey
from tests.fye_rt.command_line import ROOT
from tests.fye_rt.plans.sample import CONTENT, KEY


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    return PlanCache(tmp_path / "plans")


@pytest.fixture
def folder(cache: PlanCache) -> Path:
    """The folder of a plan that was published."""
    return cache.publish(KEY, CONTENT, {"seconds": 12.5})


class Python:
    """Processes that work on a cache beside this one; each is killed after a minute."""

    prelude = """
import json, os, sys, time
from pathlib import Path
from fye_rt.errors import BackendError
from fye_rt.plans import PlanCache, PlanKey
cache, key, argument = PlanCache(Path(sys.argv[1])), PlanKey.from_json(json.loads(sys.argv[2])), sys.argv[3]
"""

    def __init__(self, cache: PlanCache) -> None:
        self._cache = cache
        self._started: list[tuple[subprocess.Popen[str], threading.Timer]] = []

    def __call__(self, script: str, key: PlanKey = KEY, argument: str = "") -> subprocess.Popen[str]:
        given = [str(self._cache.root), json.dumps(key.to_json()), argument]
        command = [sys.executable, "-c", self.prelude + script, *given]
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        timer = threading.Timer(60, process.kill)
        timer.start()
        self._started.append((process, timer))
        return process

    def end(self) -> None:
        for process, timer in self._started:
            timer.cancel()
            process.kill()
            with process:  # closes its pipes
                pass


@pytest.fixture
def python(cache: PlanCache) -> Iterator[Python]:
    started = Python(cache)
    yield started
    started.end()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()
