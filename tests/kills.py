"""Commands are killed at random moments, then run to their end and compared with runs that nobody disturbed.

    python -m tests.kills [--kills 40] [--seed N] [--work NAME ...]

Whatever the moment: the results are the same bytes, no hidden file is left, and no process lives on.
"""

import argparse
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fye_rt.landmarks import Motion

ROOT = Path(__file__).resolve().parents[1]
BUNDLES = ROOT / "engines" / "bundles"
PEOPLE = BUNDLES / "demo" / "people"
FAST = ("--bundle", str(BUNDLES / "tiny"), "--forecast", "off", "--threads", "1")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
PATIENCE = 1200.0  # seconds for what ends within a few, or a few minutes on a busy machine

Content = Mapping[str, bytes]


@dataclass(frozen=True)
class Work:
    """A command that is killed."""

    name: str
    arguments: Callable[[Path], Sequence[object]]  # of `fye`, by the folder it writes into
    results: Sequence[str]  # by which its runs are compared: patterns of their names in that folder

    def start(self, folder: Path) -> "subprocess.Popen[bytes]":
        """Start it, in a session of its own, with Ctrl-C in force."""
        return subprocess.Popen(
            [sys.executable, "-m", "fye_rt", *map(str, self.arguments(folder))],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'export'}", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def content(self, folder: Path) -> Content:
        files = (path for pattern in self.results for path in folder.glob(pattern) if path.is_file())
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def works(inputs: Path) -> list[Work]:
    """What is killed; `inputs` is an empty folder for files that the commands read."""
    driving, own, jobs = inputs / "driving.npz", inputs / "own.npz", inputs / "jobs.jsonl"
    motion = recorded_motion()
    motion.save(driving)
    motion[:1].save(own)
    line = '{{"portrait": "{}", "motion": "{}", "name": "j{}", "seed": {}}}\n'
    pictures = PEOPLE / "portrait.png", PEOPLE / "landmarks"
    jobs.write_text("".join(line.format(*pictures, number, number) for number in range(6)))
    live, batch = ("--stream", "--size", "64x64", "--portrait-landmarks", own), ("--workers", 2, *FAST, "--steps", 2)

    def clip(out: Path, *inputs: Path) -> Sequence[object]:
        pieces = ("--window-size", 4, "--window-overlap", 1, "--steps", 2)
        return ("animate", *inputs, "-o", out / "out.mp4", *FAST, *pieces)

    return [
        Work("resume", lambda out: (*clip(out, *pictures), "--resume", out / "kept"), ["out.mp4", "kept/*.npz"]),
        Work("stream", lambda out: (*clip(out, pictures[0], driving), *live), ["out.mp4"]),
        Work("batch", lambda out: ("batch", jobs, "-o", out / "batch", *batch), ["batch/*.mp4", "batch/results.jsonl"]),
    ]


def export_work(inputs: Path) -> Work:
    """An export of the golden checkpoint; it needs PyTorch."""
    from tests import golden_files

    golden_files.write_checkpoint(inputs / "checkpoint")
    size = ("--size", "64x64")
    return Work("export", lambda out: ("export", inputs / "checkpoint", "-o", out / "bundle", *size), ["bundle/*"])


def run(all_works: Sequence[Work], kills: int, seed: int, folder: Path, tell: Callable[[str], object]) -> list[str]:
    """Kill works by turns, at random moments, in an empty folder; returns what went wrong, a line each."""
    moments, faults = random.Random(seed), list[str]()
    undisturbed: dict[str, tuple[float, Content]] = {}
    for work in all_works:
        (folder / work.name / "whole").mkdir(parents=True)
        (folder / work.name / "killed").mkdir()
        start = time.monotonic()
        code = ended(work.start(folder / work.name / "whole"))
        undisturbed[work.name] = time.monotonic() - start, work.content(folder / work.name / "whole")
        if code or not undisturbed[work.name][1]:
            faults.append(f"{work.name}: exit code {code} without being killed")
    signals = (SIGNALS[sum(divmod(k, len(all_works))) % len(SIGNALS)] for k in itertools.count())  # each meets all
    for number, work, kind in zip(range(kills), itertools.cycle(all_works), signals, strict=False):
        out = folder / work.name / "killed"
        before, wait = strays(out), moments.uniform(0, undisturbed[work.name][0])
        process = work.start(out)
        time.sleep(wait)
        # Ctrl-C is for all processes of a terminal
        os.killpg(process.pid, kind) if kind == signal.SIGINT else process.send_signal(kind)
        code = ended(process)
        tell(f"{number + 1}: {work.name}, {kind.name} after {wait:.2f} s: exit code {code}")
        if code not in (0, -kind, 128 + kind):
            faults.append(f"{number + 1}: {work.name}, {kind.name}: exit code {code}")
        if living := survivors(process.pid):
            faults.append(f"{number + 1}: {work.name}, {kind.name}: {living} live on")
        if kind != signal.SIGKILL and (left := strays(out) - before):
            faults.append(f"{number + 1}: {work.name}, {kind.name}: {sorted(left)} left")
        faults += [f"{number + 1}: {work.name}, {kind.name}: {name} has no record" for name in without_record(out)]
    for work in all_works:
        out = folder / work.name / "killed"
        process = work.start(out)
        code = ended(process)
        tell(f"{work.name}, to its end: exit code {code}")
        there, wanted = work.content(out), undisturbed[work.name][1]
        if code or there != wanted:
            other = sorted(name for name in {*there, *wanted} if there.get(name) != wanted.get(name))
            faults.append(f"{work.name}: exit code {code} at the end, {other} differ")
        if left := strays(out):
            faults.append(f"{work.name}: {sorted(left)} left at the end")
        if living := survivors(process.pid):
            faults.append(f"{work.name}: {living} live on at the end")
    return faults


def ended(process: "subprocess.Popen[bytes]") -> int:
    try:
        return process.wait(PATIENCE)
    finally:
        process.kill()


def strays(folder: Path) -> set[str]:
    """Hidden files and folders; a lock's file stays, but is none."""
    return {str(path.relative_to(folder)) for path in folder.rglob(".*") if path.name != ".lock"}


def without_record(folder: Path) -> Iterable[str]:
    batch = folder / "batch"
    return [clip.name for clip in batch.glob("j*.mp4") if not (batch / "records" / f"{clip.stem}.json").exists()]


def survivors(session: int) -> list[str]:
    """Processes of a session that do not end within seconds."""
    deadline = time.monotonic() + PATIENCE / 20
    while (living := _living(session)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return living


def _living(session: int) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, of = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(of) == session and state != "Z":
                found.append(f"{entry.name} ({(entry / 'cmdline').read_text()[:60]})")
        except OSError:
            continue
    return found


def recorded_motion() -> Motion:
    names = {"points": "lmks", "mesh": "lmks3d", "pose": "trans_mat", "blendshapes": "bs"}
    with np.load(ROOT / "tests" / "data" / "landmarks" / "landmarks.npz") as archive:
        arrays = {name: archive[f"tmpl_{recorded}"] for name, recorded in names.items()}
    frames = len(arrays["points"])
    times, valid = np.arange(frames) / 7.0, np.ones(frames, np.bool_)
    return Motion(**arrays, times=times, fps=7.0, source_size=(256, 256), valid=valid)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kills")
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--work", action="append", help="resume, stream, batch or export; repeat it; by default all")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory() as place:
        inputs = Path(place, "inputs")
        inputs.mkdir()
        chosen = [work for work in (*works(inputs), export_work(inputs)) if work.name in (given.work or [work.name])]
        faults = run(chosen, given.kills, given.seed, Path(place, "out"), lambda line: print(line, flush=True))
    print(*faults, f"{given.kills} kills, {len(faults)} faults", sep="\n")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
