"""What this machine has, what it lacks, and how to get that."""

from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from fye_rt import backends
from fye_rt.backends import gpu
from fye_rt.errors import FyeError
from fye_rt.report import environment

Line = tuple[str, str]  # (what, how it is)
EXTRAS = {"mediapipe": "landmarks", "openvino": "openvino"}  # a package's, where that is not "export"
CORE = ("numpy", "onnxruntime", "av", "pillow", "opencv-contrib-python")


def examine() -> Iterator[Line]:
    """One line for everything that fye-rt uses; never raises on what is absent."""
    facts = environment()
    cpu, memory = facts["cpu"], facts["memory_bytes"]
    yield "fye-rt", f"{facts['fye_rt']} on Python {facts['python']}, {facts['platform']}"
    cores = f"{cpu['cores']} cores, " if cpu["cores"] else ""
    threads = f", {cpu['threads']} threads by default" if cpu["threads"] else ""
    yield "cpu", f"{cpu['model']}, {cores}{cpu['usable']} of {cpu['processors']} processors usable{threads}"
    yield "cpu features", " ".join(cpu["features"]) or "none of those that matter here"
    yield "bf16", _bf16(cpu["features"])
    if memory:
        yield "memory", f"{memory / 2**30:.1f} GiB"
    for name, installed in facts["packages"].items():
        how = installed or f"not installed; run: pip install {_distribution(name)}"
        yield name, _onnxruntime(how, bool(installed)) if name == "onnxruntime" else how
    yield "native module", _found(_native)
    yield "opencv", _found(_opencv)
    for line in _gpus():
        yield "gpu", line
    chosen = list(backends.candidates())
    for name in backends.BACKENDS:
        yield f"backend {name}", _found(partial(_backend, name, chosen))
    yield "landmarker", _found(_landmarker)
    yield "shipped bundle", _found(_bundle)


def _distribution(package: str) -> str:
    return "fye-rt" if package in CORE else f"'fye-rt[{EXTRAS.get(package, 'export')}]'"


def _onnxruntime(how: str, installed: bool) -> str:
    """How it is, where onnxruntime-gpu may be there in its place."""
    try:
        on_a_gpu = version("onnxruntime-gpu")
    except PackageNotFoundError:
        return how
    if not installed:
        return f"{on_a_gpu}, onnxruntime-gpu"
    return f"{how}, and onnxruntime-gpu {on_a_gpu}, which overwrite each other's files; run: {backends.ONNXRUNTIME_GPU}"


def _found(look: Callable[[], str]) -> str:
    try:
        return look()
    except FyeError as error:
        return f"missing: {error}"


def _bf16(features: list[str]) -> str:
    units = [name for name in ("amx_bf16", "avx512_bf16", "bf16") if name in features]
    return f"native ({', '.join(units)})" if units else "not native; fp32 is the fastest precision on this CPU"


def _native() -> str:
    from fye_rt.arrays import native

    return "built" if native is not None else "not built; NumPy does the same work. Build it with: pip install ."


def _opencv() -> str:
    from fye_rt.landmarks.draw import load_cv2

    return f"{load_cv2().__version__} loads"


def _gpus() -> Iterator[str]:
    found = gpu.gpus()
    for each in found.gpus:
        yield f"{each.name}, {each.sm}, {each.memory / 2**30:.0f} GiB, driver for CUDA {found.cuda}"
    if found.reason:
        yield f"none: {found.reason}"


def _backend(name: str, chosen: list[str]) -> str:
    backends.load(name)
    if chosen[0] == "tensorrt" and name in chosen[:2]:
        return f"ready; what auto chooses for a bundle {'with' if name == chosen[0] else 'without'} plans"
    if name == chosen[0]:
        return "ready; what auto chooses"
    reason = backends.unusable(name)
    if name in backends.ON_A_CPU:
        return f"ready; not what auto chooses: {reason}" if reason else "ready"
    return f"not usable: {reason}" if reason else "ready"


def _landmarker() -> str:
    from fye_rt.landmarks import find_landmarker
    from fye_rt.landmarks.geometry import load_geometry

    path = find_landmarker()
    load_geometry(path)
    return str(path)


def _bundle() -> str:
    from fye_rt.bundle import Bundle
    from fye_rt.demo import shipped_bundle

    bundle = Bundle.load(shipped_bundle())
    note = bundle.manifest.get("note", "")
    return f"{bundle.path}, verified{f' ({note})' if note else ''}"
