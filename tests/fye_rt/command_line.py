"""Running `fye` in tests."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fye_rt.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = ROOT / "engines" / "bundles"
TINY = BUNDLES / "tiny"
PORTRAIT = BUNDLES / "demo" / "people" / "portrait.png"
LANDMARKS = BUNDLES / "demo" / "people" / "landmarks"
FAST = ("--bundle", str(TINY), "--steps", "1", "--frames", "2")


class Fye:
    """Runs `fye` in this process and keeps what it said."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *arguments: object) -> str:
        """The standard output of a run that succeeds."""
        code = main([str(argument) for argument in arguments])
        out, self.err = self._capture.readouterr()
        assert code == 0, self.err
        return out

    def refuses(self, *arguments: object) -> str:
        """The one line of a run that ends with a user's mistake."""
        code = main([str(argument) for argument in arguments])
        out, err = self._capture.readouterr()
        assert (code, out) == (2, "") and err.startswith("fye: ") and err.count("\n") == 1, (code, out, err)
        return err


def python(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments in the root of the checkout, or where `options` of a process say."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, **{"cwd": ROOT, "check": False} | options, capture_output=True, text=True)


def in_a_process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return python("-m", "fye_rt", *arguments, env=os.environ | environment)
