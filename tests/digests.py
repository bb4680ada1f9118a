"""Digests of the frames of every kind of clip, to compare two checkouts that should make the same frames.

    python -m tests.digests --checkout ../before -o before.json
    python -m tests.digests --compare before.json

A checkout is run by the Python in its .venv, with the bundles and inputs of this one. Digests hold on one
machine with one set of packages. Exit code 1 if any differs.
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

import av
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


def digests(checkout: Path) -> Iterator[tuple[str, str]]:
    """The name of each clip, and the SHA-256 of its decoded frames: two checkouts may write other metadata."""
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
                    _run(checkout, "animate", *files, "--backend", backend, *TINY, *settings.split())
                    yield f"{backend}, {kind}: {name}", _frames_sha256(out)
        kept = ("--resume", Path(place, "kept"), "--steps", 4, "--window-overlap", 3)
        for name in ("made for a resume", "resumed"):
            files = (PEOPLE / "portrait.png", *drawn, "-o", out)
            _run(checkout, "animate", *files, "--backend", "onnxruntime", *TINY, *kept)
            yield f"onnxruntime, landmark images: {name}", _frames_sha256(out)


def _run(checkout: Path, *arguments: object) -> None:
    environment = os.environ | {"PYTHONPATH": f"{checkout}:{checkout / 'export'}:{checkout / 'kernels'}"}
    command = [str(checkout / ".venv" / "bin" / "python"), "-m", "fye_rt", *map(str, arguments), "--quiet"]
    subprocess.run(command, cwd=checkout, env=environment, check=True, capture_output=True)


def _frames_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with av.open(str(path)) as video:
        for frame in video.decode(video=0):
            digest.update(repr((frame.pts, frame.time_base)).encode() + frame.to_ndarray(format="rgb24").tobytes())
    return digest.hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.digests")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--checkout", type=Path, default=ROOT, metavar="FOLDER")
    parser.add_argument("--compare", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    before = json.loads(arguments.compare.read_text()) if arguments.compare else {}
    found, differ = {}, 0
    for name, digest in digests(arguments.checkout.resolve()):
        found[name] = digest
        same = before.get(name, digest) == digest
        differ += not same
        print(f"{digest[:16]}  {name}{'' if same else ': DIFFERS'}", flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{len(found)} clips, {differ} differ")
    return bool(differ or before.keys() - found.keys())


if __name__ == "__main__":
    sys.exit(main())
