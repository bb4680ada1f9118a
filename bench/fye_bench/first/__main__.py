"""Run every stage, each in a process of its own with a time limit; no failure stops the others.

    python -m fye_bench.first --out DIR                 all stages on this GPU, in 590 seconds at most
    python -m fye_bench.first --out DIR --small         every stage's code on a small model, on any machine
    python -m fye_bench.first --out DIR --only kernels,model --seconds 300
    python -m fye_bench.first --out DIR --stage kernels     one stage, in this process

DIR/results.jsonl gets a line for every part of a stage as soon as it ends, and one for the stage with part null:
{"stage", "part", "status": "ok", "failed", "timeout" or "skipped", "seconds", and the result or "error"}. DIR/first.log
gets the stages' output, DIR/tiles.json the fastest tiles, which later stages use. All stages run; the exit code is 1 if
one failed.
"""

import argparse
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from fye_bench.first.record import Record, append

# the most useful stages first, with the seconds that each needs on an H200; together they fill a run
STAGES = {
    "environment": 40.0,
    "cubins": 45.0,
    "correctness": 75.0,
    "suite": 70.0,
    "kernels": 110.0,
    "model": 165.0,
    "profile": 45.0,
    "mini": 40.0,
}
SECONDS = 590.0
TILES = "tiles.json"
_LINES = 25  # last lines of a failed stage's output, which its result shows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all stages, or one of them; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fye_bench.first", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the results")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="limit of all stages together (%(default)s)")
    parser.add_argument("--only", default=",".join(STAGES), metavar="STAGES", help="some of %(default)s")
    parser.add_argument("--limit", action="append", default=[], metavar="STAGE=SECONDS", help="time limit of a stage")
    parser.add_argument("--small", action="store_true", help="small shapes and a small model: does everything run?")
    parser.add_argument("--stage", choices=STAGES, help="run one stage in this process")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.stage is not None:
        if options.small:
            importlib.import_module("torch").set_num_threads(1)  # threads cost more than small sums
        record = Record(options.out, options.stage)
        importlib.import_module(f"fye_bench.first.{options.stage}").run(record, options.out, options.small)
        return 1 if record.failed else 0
    chosen = options.only.split(",")
    try:
        limits = {name: float(seconds) for name, _, seconds in (text.partition("=") for text in options.limit)}
    except ValueError:
        parser.error(f"--limit {' '.join(options.limit)} is not valid; allowed: STAGE=SECONDS")
    if unknown := [name for name in (*chosen, *limits) if name not in STAGES]:
        parser.error(f"no stage is called {unknown[0]!r}; there are: {', '.join(STAGES)}")
    start = (sys.executable, "-m", "fye_bench.first", "--out", str(options.out), *["--small"] * options.small)
    commands = {name: (*start, "--stage", name) for name in STAGES if name in chosen}
    return run(commands, options.out, options.seconds, STAGES, limits)


def run(
    commands: Mapping[str, Sequence[str]],
    out: Path,
    seconds: float,
    budgets: Mapping[str, float],
    limits: Mapping[str, float] | None = None,
) -> int:
    """Run commands one after another, even if some of them fail.

    A stage gets its share of the remaining time, by its budget and those of the stages after it. So later stages share
    the time that earlier ones leave over, or lack.

    Args:
        commands: command of each stage, by its name.
        out: folder of the results and the log.
        seconds: time limit of all stages together.
        budgets: seconds that each stage needs.
        limits: upper bounds of some stages' shares in seconds.

    Returns:
        1 if a stage failed or took too long, else 0.
    """
    end = time.monotonic() + seconds
    names, statuses = list(commands), {}
    for number, name in enumerate(names):
        left = max(0.0, end - time.monotonic())
        limit = left * budgets[name] / sum(budgets[later] for later in names[number:])
        limit = min(limit, (limits or {}).get(name, limit))
        start = time.monotonic()
        status, result = _stage(commands[name], out, limit)
        taken = time.monotonic() - start
        append(out, {"stage": name, "part": None, "status": status, "seconds": taken, "limit": limit, **result})
        print(f"{name:<12} {status:<8} {taken:6.1f} s of {limit:.0f}", flush=True)
        statuses[name] = status
    return 0 if set(statuses.values()) <= {"ok"} else 1


def _stage(command: Sequence[str], out: Path, limit: float) -> tuple[str, dict[str, object]]:
    """Run one stage; returns its status, and a failure's reason and last output."""
    environment = dict(os.environ)
    if (out / TILES).exists():
        environment["FYE_TILES"] = str((out / TILES).absolute())
    with (out / "first.log").open("ab") as log:
        before = log.tell()
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:  # the processes that it started end too
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
    if code == 0:
        return "ok", {}
    said = (out / "first.log").read_bytes()[before:].decode(errors="replace").splitlines()[-_LINES:]
    status = "timeout" if code is None else "failed"
    reason = f"stopped after {limit:.1f} s" if code is None else f"exit code {code}"
    return status, {"error": reason, "said": "\n".join(said)}


if __name__ == "__main__":
    sys.exit(main())
