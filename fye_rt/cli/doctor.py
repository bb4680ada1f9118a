"""Test what this machine has, and say what it lacks and how to get it."""

import importlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from fye_rt.errors import BackendError, FyeError, InputError
from fye_rt.files import place_for_matplotlib
from fye_rt.machine import environment, installed_version

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fye_rt.bundle import Bundle

OK, FAILED, ABSENT, FACT = "ok", "failed", "absent", ""
EXTRAS = {"mediapipe": "landmarks", "openvino": "openvino"}  # packages whose extra is not "export"
CORE = ("numpy", "onnxruntime", "av", "pillow", "opencv-contrib-python")
MODULES = {"pillow": "PIL"}  # packages whose module has another name
GRAPHS = ("image_encoder", "vae_encoder")  # small, with operators that some versions of an engine lack
LONGEST = 300  # characters of an error


@dataclass(frozen=True, slots=True)
class Line:
    """One part of an installation.

    Attributes:
        part: name of the part.
        state: OK: it works; FAILED: it exists but does not work; ABSENT: it does not exist; FACT: nothing to try.
        how: version or place, what is wrong, and what to do about it, in one line.
        core: True if nothing works without this part.
    """

    part: str
    state: str
    how: str
    core: bool = False

    @property
    def broken(self) -> bool:
        """True if fye-rt does not work here because of this part."""
        return self.core and self.state in (FAILED, ABSENT)


class _AbsentError(Exception):
    """The part does not exist; the text says how to get it."""


def examine() -> Iterator[Line]:
    """Try everything that fye-rt uses and yield one line each; never raise, whatever is absent or broken."""
    place_for_matplotlib()  # MediaPipe imports it
    facts = environment()
    cpu, memory = facts["cpu"], facts["memory_bytes"]
    yield Line("fye-rt", FACT, f"{facts['fye_rt']} on Python {facts['python']}, {facts['platform']}")
    cores = f"{cpu['cores']} cores, " if cpu["cores"] else ""
    threads = f", {cpu['threads']} threads by default" if cpu["threads"] else ""
    usable = f"{cores}{cpu['usable']} of {cpu['processors']} processors usable{threads}"
    yield Line("cpu", FACT, f"{cpu['model']}, {usable}")
    yield Line("cpu features", FACT, " ".join(cpu["features"]) or "none of those that matter here")
    yield Line("bf16", FACT, _bf16(cpu["features"]))
    if memory:
        yield Line("memory", FACT, f"{memory / 2**30:.1f} GiB")
    for name, installed in facts["packages"].items():
        yield (line := _try(name, partial(_package, name, installed), core=name in CORE))
        if name == "numpy" and line.broken:
            return  # without NumPy nothing else can be tried
    yield _try("opencv", _opencv, core=True)
    yield _try("native module", _native)
    yield _try("pictures", _pictures, core=True)
    yield _try("videos", _videos, core=True)
    yield _try("shipped bundle", _bundle, core=True)
    yield from _gpus()
    from fye_rt import backends  # needs NumPy

    chosen = _candidates()
    for name in backends.BACKENDS:
        yield _try(f"backend {name}", partial(_backend, name, chosen), core=name == backends.FALLBACK)
    yield _try("landmarker", _landmarker)


def _try(part: str, look: Callable[[], str], core: bool = False) -> Line:
    try:
        state, how = OK, look()
    except _AbsentError as error:
        state, how = ABSENT, str(error)
    except FyeError as error:
        state, how = FAILED, str(error)
    except Exception as error:  # from a library; doctor reports it
        state, how = FAILED, f"{type(error).__name__}: {error}"
    how = " ".join(how.split())
    return Line(part, state, how if len(how) <= LONGEST else f"{how[: LONGEST - 3]}...", core)


def _package(name: str, installed: str | None) -> str:
    """Import a package and return its version."""
    how = _onnxruntime(installed) if name == "onnxruntime" else installed
    if how is None:
        # pip extends the installed fye-rt and does not look for another
        distribution = "fye-rt" if name in CORE else f"'fye-rt[{EXTRAS.get(name, 'export')}]'"
        raise _AbsentError(f"not installed; run: pip install {distribution}")
    if name != "opencv-contrib-python":  # `_opencv` imports it
        importlib.import_module(MODULES.get(name, name))
    return how


def _onnxruntime(installed: str | None) -> str | None:
    """Describe onnxruntime, which onnxruntime-gpu may replace."""
    from fye_rt import backends

    try:
        on_a_gpu = version("onnxruntime-gpu")
    except PackageNotFoundError:
        return installed
    if not installed:
        return f"{on_a_gpu}, onnxruntime-gpu"
    remedy = f"run: {backends.gpu.ONNXRUNTIME_GPU}"
    return f"{installed}, and onnxruntime-gpu {on_a_gpu}, which overwrite each other's files; {remedy}"


def _bf16(features: list[str]) -> str:
    units = [name for name in ("amx_bf16", "avx512_bf16", "bf16") if name in features]
    return f"native ({', '.join(units)})" if units else "not native; fp32 is the fastest precision on this CPU"


def _native() -> str:
    import numpy as np

    from fye_rt import arrays

    if arrays.native is None:
        raise _AbsentError("not built; NumPy does the same work. Build it with: pip install . (in a clone of fye-rt)")
    half = np.full(8, 0.5, np.float32)
    if arrays.weighted_sum([half, half], [1.0, 0.5])[0] != 0.75:
        raise BackendError("its sums are wrong; build it again with: pip install . (in a clone of fye-rt)")
    return "built"


def _opencv() -> str:
    from fye_rt.media.opencv import load_cv2

    return f"{load_cv2().__version__} loads"


def _pictures() -> str:
    from fye_rt import media

    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".png", ".jpg", ".webp"):
            path = Path(folder) / f"picture{suffix}"
            media.write_image(path, _picture())
            _compare(media.read_image(path), suffix)
    return "PNG, JPEG and WebP are written and read back"


def _videos() -> str:
    from fye_rt import media

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        media.write_video(path, [_picture()] * 3, 25)
        frames = [frame for _, frame in media.read_video(path)]
    if len(frames) != 3:
        raise InputError(f"{len(frames)} of 3 written frames are read back; install another version of av")
    _compare(frames[-1], ".mp4")
    return "an H.264 video is written and read back"


def _picture() -> "NDArray[np.uint8]":
    import numpy as np

    return np.full((64, 64, 3), (200, 100, 50), np.uint8)


def _compare(picture: "NDArray[np.uint8]", suffix: str) -> None:
    expected = _picture()
    if picture.shape != expected.shape or abs(picture.astype(int) - expected).max() > 16:
        raise InputError(f"a {suffix} file reads back with other pixels than were written")


def _gpus() -> Iterator[Line]:
    from fye_rt.backends import gpu

    try:
        seen = gpu.gpus()
    except Exception as error:  # from a driver
        yield Line("gpu", FAILED, f"{type(error).__name__}: {error}")
        return
    for each in seen.gpus:
        yield Line("gpu", OK, f"{each.name}, {each.sm}, {each.memory / 2**30:.0f} GiB, driver for CUDA {seen.cuda}")
    if seen.reason:
        yield Line("gpu", ABSENT, f"none: {seen.reason}")


def _candidates() -> list[str]:
    """Return the backends that auto may choose, best first; if a library is broken, the one that works everywhere."""
    from fye_rt import backends

    try:
        return list(backends.candidates())
    except Exception:  # the backend's own line reports it
        return [backends.FALLBACK]


def _backend(name: str, chosen: list[str]) -> str:
    from fye_rt import backends

    try:
        backends.load(name)
    except BackendError as error:
        if any(installed_version(package) for package in backends.distributions(name)):
            raise
        raise _AbsentError(str(error)) from error
    reason = "" if name == chosen[0] else backends.unusable(name)
    if reason and name not in backends.ON_A_CPU:
        raise _AbsentError(f"not usable: {reason}")
    how = "ready"
    plain = next(other for other in chosen if other not in backends.ON_PLANS)
    if name in chosen and name in backends.ON_PLANS:
        how = "ready; what auto chooses for a bundle with plans"
    elif name == plain:
        how = (
            "ready; what auto chooses" if plain == chosen[0] else "ready; what auto chooses for a bundle without plans"
        )
    elif reason:
        how = f"ready; not what auto chooses: {reason}"
    untried = _run_graph(name)
    return f"{how}; not tried: {untried}" if untried else how


def _run_graph(backend: str) -> str:
    """Run small graphs of a shipped bundle; return why they could not be run, or ""."""
    from fye_rt import backends
    from fye_rt.cli.verify import verify

    bundle = _small_bundle()
    if backend in backends.ON_PLANS and (reason := backends.unusable(backend, bundle)):  # nothing runs without plans
        return reason
    verify(bundle, backend, graphs=GRAPHS)
    return ""


@cache
def _small_bundle() -> "Bundle":
    from fye_rt.bundle import MANIFEST, Bundle, shipped_bundle, shipped_bundles

    tiny = shipped_bundles() / "tiny"
    return Bundle.load(tiny if (tiny / MANIFEST).is_file() else shipped_bundle())


def _bundle() -> str:
    from fye_rt.bundle import Bundle, shipped_bundle

    bundle = Bundle.load(shipped_bundle())
    note = bundle.manifest.get("note", "")
    return f"{bundle.path}, verified{f' ({note})' if note else ''}"


def _landmarker() -> str:
    from fye_rt import media
    from fye_rt.bundle import shipped_bundles
    from fye_rt.landmarks import detect_image, find_landmarker
    from fye_rt.landmarks.geometry import load_geometry

    try:
        path = find_landmarker()
    except InputError as error:
        raise _AbsentError(str(error)) from error
    load_geometry(path)
    if installed_version("mediapipe") is None:
        return f"{path}; not tried: MediaPipe is not installed"
    detect_image(media.read_image(shipped_bundles() / "demo" / "people" / "portrait.png"), path)
    return f"{path} finds a face"
