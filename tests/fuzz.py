"""Damaged inputs, made anew from a seed: every reader and every command refuses them in words of its own.

    python -m tests.fuzz parsers --count 100000 --seed 1
    python -m tests.fuzz commands --count 500 --seed 1

Each case is made from (seed, number) alone; what is found is printed with both, and `--first NUMBER --count 1` makes it
again. Cases run in processes of their own with a limit of time and of address space. Exit code 1 if anything is found.
"""

import argparse
import ctypes
import importlib
import io
import json
import logging
import os
import random
import re
import resource
import select
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import wave
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fye_rt import media
from fye_rt.bundle import MANIFEST, Bundle, sealed
from fye_rt.errors import FyeError
from fye_rt.landmarks import Motion, load_template
from fye_rt.media.checks import Limits
from tests.kills import recorded_motion

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "engines" / "bundles" / "tiny"
PORTRAIT = ROOT / "engines" / "bundles" / "demo" / "people" / "portrait.png"
ROOM = 3 << 29  # bytes of address space that a case may take
PATIENCE = 1200.0  # seconds without an answer, of a demo at every step on a busy machine
GROWTH = 256 << 20  # bytes that a process may keep after many cases
ARENA_MAX = -8  # of mallopt
USUAL = {  # values that options are given, besides small numbers
    "--size": ("64x64", "64x72", "128x64"),
    "--forecast": ("off", "reuse", "taylor", "newton", "calibrated", "adaptive", "balanced", "fast"),
    "--windows": ("context", "reference", "tiles", "progressive"),
    "--solver": ("ddim", "dpm", "unipc"),
    "--quantity": ("v", "x0", "epsilon"),
    "--compute": ("fp32", "bf16", "fp16"),
    "--backend": ("auto", "onnxruntime", "openvino", "tensorrt", "torch", "onnxruntime-cuda"),
    "--guidance": ("1", "3.5", "-1"),
    "--shared-noise": ("0", "0.5", "1"),
    "--tolerance": ("0.1", "1"),
    "--precision": ("fp32", "fp16"),
}
STRANGE = ("0", "-1", "9999999999", "0.5", "1e400", "nan", "x", "", "8x8", "64x", "off", "\udcff")
KINDS = ("png", "jpg", "mp4", "mkv", "gif", "npz", "npy", "wav", "text", "folder", "none", "portrait")  # of inputs
TOGETHER = 400  # cases of one process
LIMITS = Limits(max_pixels=4_000_000, max_frames=100)
ODD = (None, True, -1, 0, 2**31, 2**63, 10**400, 0.5, 1e308, "", "\ud800", "a\0b", "../x", [], {}, [[]], {"": None})
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@dataclass(frozen=True)
class Case:
    """One damaged input, and what gives it to its readers."""

    kind: str  # of the valid file, such as "png"
    run: Callable[[], object]


Make = Callable[[random.Random], Case]


# --- damage


def damaged(rng: random.Random, valid: Sequence[bytes]) -> bytes:
    """One of some valid contents, with one to three kinds of damage."""
    data = bytearray(rng.choice(valid))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not data:
            break
        # headers stand in front: half of the damage is done there
        at = rng.randrange(min(len(data), 512) if rng.random() < 0.5 else len(data))
        match rng.randrange(7):
            case 0:
                for place in (at, *(rng.randrange(len(data)) for _ in range(rng.randrange(6)))):
                    data[place] ^= 1 << rng.randrange(8)
            case 1:
                del data[at:]
            case 2:
                data[at:at] = rng.randbytes(rng.choice((1, 2, 8, 100)))
            case 3:
                del data[at : at + rng.choice((1, 4, 100))]
            case 4:
                other = rng.choice(valid)
                data[at:] = other[rng.randrange(len(other)) :]
            case 5:
                form = rng.choice(("<B", "<H", ">H", "<I", ">I"))
                size = struct.calcsize(form)
                data[at : at + size] = struct.pack(form, rng.choice(NUMBERS) % 256**size)
            case 6:
                data[at : at + 1] = data[at : at + rng.choice((4, 64))] * rng.choice((2, 50))
    return bytes(data)


def damaged_json(rng: random.Random, content: Any) -> Any:
    """JSON with one value or name replaced, removed, or put elsewhere."""
    content = json.loads(json.dumps(content))
    places = list(_places(content))
    for _ in range(rng.choice((1, 1, 2, 4))):
        above, key = rng.choice(places)
        with suppress(KeyError, IndexError):
            match rng.randrange(6):
                case 0 | 1:
                    above[key] = rng.choice(ODD)
                case 2:
                    del above[key]
                case 3:
                    other, name = rng.choice(places)
                    above[key] = json.loads(json.dumps(other[name]))
                case 4:
                    above[key] = _changed(rng, above[key])
                case 5 if isinstance(above, dict):
                    above[rng.choice(("", "x", "version", f"{key}2"))] = above.pop(key)
    return content


def json_text(rng: random.Random, content: Any) -> bytes:
    """Damaged JSON as text, now and then with what JSON does not have."""
    text = json.dumps(damaged_json(rng, content))
    if rng.random() < 0.1:
        text = re.sub(r"\d+", rng.choice(("NaN", "1e999", "-Infinity", "9" * 5000, "[" * 100_000)), text, count=1)
    return text.encode("utf-8", "surrogatepass")


def _changed(rng: random.Random, value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return rng.choice((-value, value + 1, value * 10**6, f"{value}"[:100]))
    if isinstance(value, str):
        at = rng.randrange(len(value) + 1)
        return value[:at] + rng.choice(("", "/", "\n", "é", "%s")) + value[at + 1 :]
    return [value] if rng.random() < 0.5 else list(value)


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(content, dict | list):
        for key in list(content) if isinstance(content, dict) else range(len(content)):
            yield content, key
            yield from _places(content[key])


def rezipped(rng: random.Random, valid: bytes) -> bytes:
    """A zip file whose members are damaged, with their checksums made right again."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(valid)) as source, zipfile.ZipFile(file, "w") as target:
        names = source.namelist()
        chosen = rng.choice(names)
        for name in names:
            content = source.read(name)
            if name != chosen:
                target.writestr(name, content)
            elif rng.random() < 0.9:
                way = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
                target.writestr(rng.choice((name, name, name, f"../{name}")), damaged(rng, [content]), way)
    return file.getvalue()


def rechecked(rng: random.Random, valid: bytes) -> bytes:
    """A PNG whose chunks are damaged, with their checksums made right again."""
    parts, at = [valid[:8]], 8
    while at + 12 <= len(valid):
        length = int.from_bytes(valid[at : at + 4])
        name, body = valid[at + 4 : at + 8], valid[at + 8 : at + 8 + length]
        if rng.random() < 0.4:
            body = damaged(rng, [body or b"\0"])
        parts.append(struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)))
        at += 12 + length
    return b"".join(parts)


# --- valid files


class Valid:
    """Small valid files of every kind, in a folder where cases leave theirs too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rng = np.random.default_rng(0)
        self._picture = np.kron(rng.integers(0, 256, (6, 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
        self.pictures = self._pictures()
        self.videos = self._videos()
        self.sounds = self._sounds()
        self.motions, self.templates = self._motions()
        self.manifest = json.loads((TINY / MANIFEST).read_bytes())
        del self.manifest["sha256"]

    def path(self, name: str) -> Path:
        return self.folder / name

    def _pictures(self) -> dict[str, list[bytes]]:
        from PIL import Image

        image, grey = Image.fromarray(self._picture), Image.fromarray(self._picture[..., 0])
        exif = Image.Exif()
        exif[0x0112] = 6
        made: dict[str, list[bytes]] = {}
        for suffix, how in (
            ("png", ({}, {"exif": exif})),
            ("jpg", ({"exif": exif}, {"progressive": True})),
            ("webp", ({}, {"lossless": True})),
            ("gif", ({}, {"save_all": True, "append_images": [grey]})),
            ("tiff", ({}, {"compression": "tiff_lzw"}, {"compression": "tiff_deflate"})),
            ("bmp", ({},)),
            ("ppm", ({},)),
        ):
            made[suffix] = []
            for settings in how:
                for source in (image, grey, image.quantize(16)) if suffix in ("png", "tiff", "gif") else (image,):
                    file = io.BytesIO()
                    source.save(file, {"jpg": "JPEG"}.get(suffix, suffix.upper()), **settings)
                    made[suffix].append(file.getvalue())
        return made

    def _videos(self) -> dict[str, list[bytes]]:
        import av

        made: dict[str, list[bytes]] = {}
        codecs = {"mp4": "libx264", "mkv": "libx264", "avi": "mpeg4", "ts": "libx264", "gif": "gif"}
        for suffix, codec in codecs.items():
            path = self.path(f"valid.{suffix}")
            with av.open(str(path), "w") as container:
                stream = container.add_stream(codec, rate=25)
                stream.width, stream.height = 64, 48
                stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
                sound = None if codec == "gif" else container.add_stream("aac", rate=16000, layout="mono")
                for shift in range(4):
                    frame = av.VideoFrame.from_ndarray(np.roll(self._picture, 4 * shift, 1), format="rgb24")
                    container.mux(stream.encode(frame))
                container.mux(stream.encode(None))
                if sound is not None:
                    tone = np.sin(np.arange(2560, dtype=np.float32)[None] / 9)
                    heard = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
                    heard.sample_rate = 16000
                    container.mux(sound.encode(heard))
                    container.mux(sound.encode(None))
            made[suffix] = [path.read_bytes()]
        return made

    def _sounds(self) -> list[bytes]:
        file = io.BytesIO()
        with wave.open(file, "wb") as sound:
            sound.setparams((1, 2, 8000, 0, "NONE", ""))
            sound.writeframes((np.sin(np.arange(1600) / 5) * 9000).astype("<i2").tobytes())
        return [file.getvalue()]

    def _motions(self) -> tuple[list[bytes], list[bytes]]:
        import pickle

        motion = recorded_motion()[:2]
        path = self.path("valid.npz")
        motion.save(path)
        frames = [
            {"lmks": p, "lmks3d": m, "trans_mat": t, "bs": b.tolist()}
            for p, m, t, b in zip(motion.points, motion.mesh, motion.pose, motion.blendshapes, strict=True)
        ]
        file = io.BytesIO()
        np.save(file, np.array(frames, dtype=object), allow_pickle=True)
        return [path.read_bytes()], [file.getvalue(), pickle.dumps(frames[0])]


# --- readers


def parsers(valid: Valid) -> dict[str, Make]:
    """What makes a case, by kind; every kind comes equally often."""

    def written(name: str, content: bytes) -> Path:
        path = valid.path(name)
        path.write_bytes(content)
        return path

    def picture(suffix: str, rng: random.Random) -> Case:
        if suffix == "png" and rng.random() < 0.7:
            content = rechecked(rng, rng.choice(valid.pictures[suffix]))
        else:
            content = damaged(rng, valid.pictures[suffix])
        path = written(f"case.{suffix}", content)
        return Case(suffix, lambda: media.read_image(path, LIMITS))

    def video(suffix: str, rng: random.Random) -> Case:
        path = written(f"case.{suffix}", damaged(rng, valid.videos[suffix]))

        def read() -> None:
            info = media.probe_video(path, LIMITS)
            frames = [frame for _, frame in media.read_video(path, LIMITS)]
            media.write_video(valid.path("out.mp4"), frames, info.fps, audio_from=path)

        return Case(suffix, read)

    def sound(rng: random.Random) -> Case:
        path = written("case.wav", damaged(rng, valid.sounds))
        frame = np.zeros((16, 16, 3), np.uint8)
        return Case("wav", lambda: media.write_video(valid.path("out.mp4"), [frame] * 3, 25, audio_from=path))

    def motion(rng: random.Random) -> Case:
        content = damaged(rng, valid.motions) if rng.random() < 0.3 else rezipped(rng, valid.motions[0])
        path = written("case.npz", content)
        return Case("motion", lambda: Motion.load(path))

    def template(rng: random.Random) -> Case:
        path = written("case.npy", damaged(rng, valid.templates))
        return Case("template", lambda: load_template(path))

    def bundle(rng: random.Random) -> Case:
        folder = _linked(TINY, valid.path("bundle"))
        if rng.random() < 0.2:
            text: bytes | str = damaged(rng, [(TINY / MANIFEST).read_bytes()])
        else:
            text = sealed(damaged_json(rng, valid.manifest))
        (folder / MANIFEST).unlink(missing_ok=True)
        (folder / MANIFEST).write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        return Case("bundle", lambda: Bundle.load(folder))

    def jobs(rng: random.Random) -> Case:
        from fye_rt.batch.jobs import read_jobs

        bundle = Bundle.load(TINY, verify=False)
        job = {"name": "a", "portrait": "a.png", "motion": "b.npz", "frames": 2, "size": "64x64", "steps": 3, "seed": 1}
        job |= {"guidance": 3.5, "forecast": {"method": "fixed", "evaluations": 3}, "windows": "context"}
        lines = [json_text(rng, job) for _ in range(3)]
        content = b"\n".join(lines) if rng.random() < 0.7 else damaged(rng, [json.dumps(job).encode()])
        path = written("case.jsonl", content)
        return Case("jobs", lambda: read_jobs(path, {}, bundle))

    def suite(rng: random.Random) -> Case:
        from fye_bench.suites.suite import Suite, faults
        from tests.fye_bench.suites import suite_files

        folder = valid.path("suite")
        folder.mkdir(exist_ok=True)
        manifest = suite_files.content(folder)
        content = json_text(rng, manifest) if rng.random() < 0.8 else damaged(rng, [json.dumps(manifest).encode()])
        (folder / "suite.json").write_bytes(content)
        return Case("suite", lambda: list(faults(Suite.load(folder))))

    def resumed(rng: random.Random) -> Case:
        from fye_rt.clips.resume import PieceFolder

        folder, inputs = valid.path("kept"), {"bundle": "0" * 64, "steps": 3, "forecast": {"method": "off"}}
        shutil.rmtree(folder, ignore_errors=True)
        PieceFolder(folder, inputs)
        file = next(path for path in folder.iterdir() if path.suffix == ".json")
        file.write_bytes(json_text(rng, json.loads(file.read_bytes())))
        return Case("resume", lambda: PieceFolder(folder, inputs).read(0))

    def fitted(rng: random.Random) -> Case:
        from fye_rt.files import sha256
        from fye_rt.forecasts import fitted

        folder = _linked(TINY, valid.path("fitted"))
        jump = {"step": 0, "end": 2, "a": 1.0, "w": [0.5, 0.5]}
        plan = {"steps": 2, "guidance": [1.0, 4.0], "evaluations": 1, "error": 0.1, "jumps": [jump]}
        content = {"format": fitted.FORMAT, "version": fitted.VERSION, "fitted": {}, "plans": [plan]}
        file = folder / fitted.FILE
        file.write_bytes(json_text(rng, content | {"source": valid.manifest["source"]}))
        entry = {fitted.FILE: {"bytes": file.stat().st_size, "sha256": sha256(file)}}
        (folder / MANIFEST).unlink()
        (folder / MANIFEST).write_text(sealed(valid.manifest | {"files": valid.manifest["files"] | entry}))
        return Case("fitted", lambda: fitted.read(Bundle.load(folder)))

    def checkpoint(rng: random.Random) -> Case:
        import torch
        from safetensors.torch import save

        from fye_export import state_dict

        tensors = {"module.conv.weight": torch.ones(4, 3), "module.conv.bias": torch.zeros(4, dtype=torch.float16)}
        suffix = rng.choice(("safetensors", "pth"))
        if suffix == "safetensors":
            content = damaged(rng, [save(tensors)])
        else:
            file = io.BytesIO()
            torch.save({"state_dict": tensors}, file)
            whole = file.getvalue()
            content = damaged(rng, [whole]) if rng.random() < 0.3 else rezipped(rng, whole)
        path = written(f"case.{suffix}", content)
        return Case("checkpoint", lambda: state_dict.read(path, path.name))

    def geometry(rng: random.Random) -> Case:
        from fye_rt.landmarks.geometry import METADATA_NAME, load_geometry

        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(METADATA_NAME, _messages(rng, 3))
        content = rezipped(rng, file.getvalue()) if rng.random() < 0.7 else damaged(rng, [file.getvalue()])
        path = written("case.task", content)
        return Case("geometry", lambda: load_geometry(path))

    makes: dict[str, Make] = {suffix: partial(picture, suffix) for suffix in valid.pictures}
    makes |= {f"video {suffix}": partial(video, suffix) for suffix in valid.videos}
    makes |= {"wav": sound, "motion": motion, "template": template, "bundle": bundle, "jobs": jobs, "suite": suite}
    return makes | {"resume": resumed, "fitted": fitted, "checkpoint": checkpoint, "geometry": geometry}


def _messages(rng: random.Random, depth: int) -> bytes:
    parts = []
    for _ in range(rng.randrange(1, 5)):
        number, kind = rng.randrange(1, 8), rng.choice((0, 2, 2, 5))
        parts.append(bytes([number << 3 | kind]))
        if kind == 2:
            body = _messages(rng, depth - 1) if depth else rng.randbytes(rng.randrange(60))
            parts.append(bytes([len(body) % 128]) + body)
        else:
            parts.append(rng.randbytes(4) if kind == 5 else bytes([rng.randrange(128)]))
    return b"".join(parts)


def _linked(source: Path, folder: Path) -> Path:
    """A copy of a folder whose files are hard links, or copies on another disk."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file in source.iterdir():
        shutil.copyfile(file, folder / file.name) if file.suffix == ".json" else _link(file, folder / file.name)
    return folder


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


# --- commands


def commands(valid: Valid) -> dict[str, Make]:
    """What makes a whole command, by name."""
    modules = ("fye_rt.animator", "fye_rt.backends.onnxruntime", "fye_bench.speed.latency", "fye_engines.plans", "cv2")
    for module in modules:
        with suppress(ImportError):
            importlib.import_module(module)  # once, not in every fork
    landmarks = valid.path("landmarks")
    landmarks.mkdir(exist_ok=True)
    for number in range(2):
        media.write_image(landmarks / f"{number}.png", np.zeros((64, 64, 3), np.uint8))
    valid.path("still.npz").write_bytes(valid.motions[0])

    def file(rng: random.Random) -> str:
        """A file or folder of any kind, damaged or not."""
        kind = rng.choice(KINDS)
        path = valid.path(f"input.{kind}")
        whole = rng.random() < 0.4
        match kind:
            case "folder":
                return str(rng.choice((landmarks, valid.folder, TINY)))
            case "none":
                return str(rng.choice(("", "-", "no\nfile.png", "/dev/null", "a" * 300, str(path))))
            case "portrait":
                return str(PORTRAIT)
            case "npz":
                path.write_bytes(valid.motions[0] if whole else rezipped(rng, valid.motions[0]))
            case "text":
                path.write_bytes(rng.randbytes(40))
            case _:
                samples = {**valid.pictures, **valid.videos, "npy": valid.templates, "wav": valid.sounds}[kind]
                path.write_bytes(samples[0] if whole else damaged(rng, samples))
        return str(path)

    def options(rng: random.Random, names: Sequence[str]) -> list[str]:
        """Up to two options, most of them with a value that could be theirs."""
        flags = ("--stream", "--compare", "--low-memory", "--face-mask", "--quiet", "--fresh", "--prune", "--unknown")
        chosen = []
        for name in rng.sample(names, min(rng.choice((0, 0, 1, 1, 2)), len(names))):
            chosen.append(name)
            if name in flags:
                continue
            usual = USUAL.get(name, ("1", "2", "3"))
            values = usual if rng.random() < 0.6 else (*STRANGE, file(rng))
            chosen.append(rng.choice(values))
        return chosen

    def bundle(rng: random.Random) -> str:
        if rng.random() < 0.8:
            return str(TINY)
        folder = _linked(TINY, valid.path("bundle"))
        (folder / MANIFEST).write_bytes(sealed(damaged_json(rng, valid.manifest)).encode("utf-8", "surrogatepass"))
        return str(folder)

    def output(rng: random.Random, suffix: str) -> str:
        path = valid.path("out")
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return str(path / rng.choice((*8 * [f"out{suffix}"], "out.xyz", "no/out.mp4")))

    quick = ["--steps", "1", "--frames", "2", "--size", "64x64", "--threads", "1", "--forecast", "off", "--quiet"]
    more = ("--steps", "--guidance", "--seed", "--shared-noise", "--forecast", "--evaluations", "--interval")
    more += ("--warm-up", "--quantity", "--order", "--face-mask", "--tolerance", "--solver", "--windows")
    more += ("--window-size", "--size", "--window-overlap", "--compute", "--backend", "--threads", "--frames")
    more += ("--portrait-landmarks", "--resume")
    more += ("--contact-sheet", "--json", "--compare", "--stream", "--low-memory", "--landmarker", "--unknown")

    def animate(rng: random.Random) -> list[str]:
        portrait = file(rng) if rng.random() < 0.5 else str(PORTRAIT)
        motion = str(rng.choice((landmarks, valid.path("still.npz"), file(rng), file(rng))))
        given = ["animate", portrait, motion, "-o", output(rng, ".mp4"), "--bundle", bundle(rng), *quick]
        given += ["--portrait-landmarks", str(valid.path("still.npz"))] if rng.random() < 0.5 else []
        return given + options(rng, more)

    def batch(rng: random.Random) -> list[str]:
        lines = []
        for _ in range(rng.randrange(1, 4)):
            job: dict[str, Any] = {"portrait": str(PORTRAIT), "motion": str(landmarks), "steps": 1, "frames": 2}
            lines.append(json.dumps(damaged_json(rng, job)))
        valid.path("jobs.jsonl").write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
        folder = rng.choice((output(rng, ""), output(rng, ""), str(landmarks)))
        given = ["batch", str(valid.path("jobs.jsonl")), "-o", folder, "--bundle", bundle(rng), *quick]
        names = ("--steps", "--seed", "--windows", "--window-size", "--compute", "--size", "--workers")
        return given + options(rng, names)

    def landmark(rng: random.Random) -> list[str]:
        given = ["landmarks", file(rng), "-o", output(rng, ".npz"), "--quiet", "--frames", "2"]
        return given + options(rng, ("--frames", "--landmarker", "--overlay"))

    def others(rng: random.Random) -> list[str]:
        folder, some = file(rng), lambda *names: options(rng, names)
        suite, studies = ("check", "show", "init", "x", ""), ("quality", "batch", "windows", "x")
        of_plans = ("--size", "--frames", "--level", "--graph")
        lines = (
            ["verify", rng.choice((bundle(rng), folder)), *some("--bundle", "--quiet")],
            ["export", folder, "-o", output(rng, ""), *some("--precision", "--size", "--guidance", "--note")],
            ["build", rng.choice((bundle(rng), folder)), "--dry-run", *some(*of_plans)],
            ["build", "--list", *some("--limit", "--prune")],
            ["suite", rng.choice(suite), folder, *some("--family", "--kind", "--pairs")],
            ["eval", folder, "-o", output(rng, ""), "--bundle", bundle(rng), *some("--pairs", "--frames", "--size")],
            ["bench", rng.choice(studies), "--unknown", *some("--bundle", "--rounds", "--frames")],
            ["bench", "--bundle", bundle(rng), *some("--checkpoint", "--rounds", "--size", "--fresh")],
            ["calibrate", bundle(rng), "--unknown", *some("--portrait", "--motion", "--steps", "--evaluations")],
            ["demo", "-o", output(rng, ".mp4"), "--forecast", "x", *some("--forecast")],
            [rng.choice(("doctor", "--version", "--help", "x", ""))],
        )
        return rng.choice(lines)

    def whole(line: Callable[[random.Random], list[str]], rng: random.Random) -> Case:
        arguments = line(rng)
        return Case(" ".join(map(ascii, ("fye", *arguments))), lambda: _run(arguments, valid.folder))

    lines = {"animate": animate, "batch": batch, "landmarks": landmark, "others": others}
    return {name: partial(whole, line) for name, line in lines.items()}


def _run(arguments: list[str], folder: Path) -> None:
    """Run a command as a process would; raise AssertionError unless it ends as documented."""
    from fye_rt.cli.main import main

    heard = folder / "stderr"
    saved = os.dup(1), os.dup(2), sys.stdout, sys.stderr
    with heard.open("wb") as file, Path(os.devnull).open("w", errors="replace") as nowhere:
        os.dup2(file.fileno(), 2)
        os.dup2(nowhere.fileno(), 1)
        sys.stdout, sys.stderr = nowhere, os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
        try:
            code = main(arguments)
        finally:
            sys.stdout, sys.stderr = saved[2:]
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            os.close(saved[0])
            os.close(saved[1])
    said = heard.read_text(errors="backslashreplace")
    lines = said.splitlines()
    if code not in (0, 1, 2) or "Traceback" in said:
        raise AssertionError(f"exit code {code}: {said}")
    if code and not lines:
        raise AssertionError(f"exit code {code} without a word")
    if strange := [line for line in lines if not line.startswith("fye: ")]:
        raise AssertionError(f"exit code {code}, and: {strange[0]}")


# --- running


@dataclass(frozen=True)
class Finding:
    """A case that did not end as it should."""

    number: int
    kind: str
    what: str


def search(mode: str, seed: int, first: int, count: int) -> list[Finding]:
    """Run `count` cases of a seed from number `first` on; `mode` is "parsers" or "commands"."""
    findings: list[Finding] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        makes = {"parsers": parsers, "commands": commands}[mode](Valid(folder))
        number = first
        while number < first + count:
            last = min(first + count, number + TOGETHER)
            number = _in_a_process(folder, makes, seed, number, last, findings)
    return findings


def _in_a_process(
    folder: Path, makes: dict[str, Make], seed: int, number: int, last: int, findings: list[Finding]
) -> int:
    """Run cases in a fork until `last`, or until it dies; returns the number to go on with."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _serve(writing, folder, makes, seed, number, last)
    os.close(writing)
    at, kind = number, ""
    with os.fdopen(reading, "rb") as pipe:
        pending = b""
        while True:
            if not select.select([pipe], [], [], PATIENCE)[0]:
                os.kill(child, signal.SIGKILL)
                findings.append(Finding(at, kind, f"no answer in {PATIENCE:.0f} seconds"))
                os.waitpid(child, 0)
                return at + 1
            got = os.read(pipe.fileno(), 1 << 16)
            if not got:
                break
            *lines, pending = (pending + got).split(b"\n")
            for line in lines:
                event, at, kind, what = json.loads(line)
                if event == "found":
                    findings.append(Finding(at, kind, what))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code:
        findings.append(Finding(at, kind, f"the process ended with {code}" + (", a signal" if code < 0 else "")))
        return at + 1
    return last


def _serve(writing: int, folder: Path, makes: dict[str, Make], seed: int, number: int, last: int) -> None:
    """The life of a fork; never returns."""
    try:
        logging.getLogger("fye_rt").setLevel(logging.ERROR)
        os.chdir(folder)  # some options name files with relative paths
        ctypes.CDLL(None).mallopt(ARENA_MAX, 2)  # each arena takes 64 MB of address space and more
        size = _bytes(0)
        resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        kinds = list(makes)
        settled = 0
        for k in range(number, last):
            rng = random.Random(f"{seed} {k}")
            kind = kinds[k % len(kinds)]
            os.write(writing, json.dumps(["begin", k, kind, ""]).encode() + b"\n")
            try:
                case = makes[kind](rng)
                kind = case.kind
                os.write(writing, json.dumps(["begin", k, kind, ""]).encode() + b"\n")
                case.run()
            except FyeError as error:
                if len(str(error).splitlines()) != 1:
                    _found(writing, k, kind, f"{type(error).__name__} of several lines: {error}")
            except BaseException as error:
                place = traceback.extract_tb(error.__traceback__)[-3:]
                where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(place))
                _found(writing, k, kind, f"{type(error).__name__}: {error} at {where}")
            if k == number + 100:
                settled = _bytes(1)
        if settled and _bytes(1) - settled > GROWTH:
            kept = (_bytes(1) - settled) >> 20
            _found(writing, last - 1, "", f"cases {number + 100} to {last} left {kept} MB behind")
        os._exit(0)
    finally:
        os._exit(70)


def _found(writing: int, number: int, kind: str, what: str) -> None:
    os.write(writing, json.dumps(["found", number, kind, what[:1500]]).encode() + b"\n")


def _bytes(column: int) -> int:
    """Of address space (0) or of memory (1) of this process."""
    return int(Path("/proc/self/statm").read_text().split()[column]) * resource.getpagesize()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=("parsers", "commands"))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--first", type=int, default=0, metavar="NUMBER", help="of the first case")
    given = parser.parse_args()
    shown = 0
    together = TOGETHER if given.mode == "parsers" else TOGETHER // 16
    for start in range(given.first, given.first + given.count, together):
        count = min(together, given.first + given.count - start)
        for finding in search(given.mode, given.seed, start, count):
            shown += 1
            print(f"seed {given.seed}, number {finding.number}, {finding.kind}: {finding.what}", flush=True)
        print(f"{start + count - given.first} of {given.count} {given.mode}: {shown} findings", flush=True)
    return int(bool(shown))


if __name__ == "__main__":
    sys.exit(main())
