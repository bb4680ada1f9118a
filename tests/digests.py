"""Digests of every kind of clip, to compare two checkouts of which neither should change what the other makes.

    python -m tests.digests -o before.json           in one checkout
    python -m tests.digests --compare before.json    in the other

Digests hold on one machine with one set of packages. Exit code 1 if any differs.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fye_rt.media import read_image, write_image
from tests.kills import PEOPLE, ROOT, recorded_motion

TINY = ("--bundle", ROOT / "engines" / "bundles" / "tiny", "--threads", 1, "--size", "64x64", "--window-size", 4)
CLIPS = {
    "blended": "--windows context --window-overlap 2 --steps 4 --forecast off",
    "blended, tiles": "--windows tiles --window-overlap 2 --steps 4 --forecast off",
    "blended, reference": "--windows reference --window-overlap 1 --steps 4 --forecast off",
    "blended, without guidance": "--windows context --window-overlap 2 --steps 4 --guidance 1",
    "blended, masked": "--windows context --window-overlap 2 --steps 12 --forecast paper --face-mask",
    "blended, taylor": "--windows context --window-overlap 2 --steps 8 --forecast taylor --order 2 --quantity v",
    "blended, adaptive": "--windows context --window-overlap 2 --steps 8 --forecast adaptive",
    "blended, dpm": "--windows context --window-overlap 2 --steps 4 --solver dpm",
    "progressive": "--window-overlap 3 --steps 4 --forecast off",
    "progressive, defaults": "--window-overlap 3",
    "progressive, without guidance": "--window-overlap 3 --steps 4 --guidance 1",
    "progressive, adaptive": "--window-overlap 3 --steps 8 --forecast adaptive",
    "progressive, masked": "--window-overlap 3 --steps 12 --forecast paper --face-mask",
    "progressive, unipc, shared noise": "--window-overlap 3 --steps 4 --solver unipc --shared-noise 0.5",
    "progressive, low memory": "--window-overlap 3 --steps 4 --low-memory",
    "streamed": "--stream --window-overlap 1 --steps 4 --forecast off",
    "streamed, without guidance": "--stream --window-overlap 1 --steps 4 --guidance 1",
    "streamed, adaptive": "--stream --window-overlap 2 --steps 8 --forecast adaptive",
}
BACKENDS = ("onnxruntime", "openvino", "torch")


def digests() -> Iterator[tuple[str, str]]:
    """The name of each clip, and the SHA-256 of its file."""
    with tempfile.TemporaryDirectory() as place:
        driving, own = Path(place, "driving.npz"), Path(place, "own.npz")
        motion = recorded_motion()
        motion.save(driving)
        motion[:1].save(own)
        moved = (driving, "--portrait-landmarks", own)
        drawn = (Path(place, "landmarks"),)
        drawn[0].mkdir()
        for path in sorted((PEOPLE / "landmarks").iterdir()):
            write_image(drawn[0] / path.name, np.ascontiguousarray(read_image(path)[1::3, 1::3]))
        for backend in BACKENDS:
            for name, settings in CLIPS.items():
                for kind, source in {"motion": moved, "landmark images": drawn}.items():
                    if "--stream" in settings and source is drawn:
                        continue
                    out = Path(place, "out.mp4")
                    files = (PEOPLE / "portrait.png", *source, "-o", out)
                    _run("animate", *files, "--backend", backend, *TINY, *settings.split())
                    yield f"{backend}, {kind}: {name}", _sha256(out)
        kept = ("--resume", Path(place, "kept"), "--steps", 4, "--window-overlap", 3)
        for name in ("made for a resume", "resumed"):
            _run("animate", PEOPLE / "portrait.png", *drawn, "-o", out, "--backend", "onnxruntime", *TINY, *kept)
            yield f"onnxruntime, landmark images: {name}", _sha256(out)


def _run(*arguments: object) -> None:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'export'}:{ROOT / 'kernels'}"}
    command = [sys.executable, "-m", "fye_rt", *map(str, arguments), "--quiet"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.digests")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--compare", type=Path, metavar="FILE")
    given = parser.parse_args()
    before = json.loads(given.compare.read_text()) if given.compare else {}
    found, differ = {}, 0
    for name, digest in digests():
        found[name] = digest
        same = before.get(name, digest) == digest
        differ += not same
        print(f"{digest[:16]}  {name}{'' if same else ': DIFFERS'}", flush=True)
    if given.output:
        given.output.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{len(found)} clips, {differ} differ")
    return bool(differ or before.keys() - found.keys())


if __name__ == "__main__":
    sys.exit(main())
