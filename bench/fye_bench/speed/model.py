"""The model that is timed: one that is given, or the repository's own mid-size one, which is made once and kept."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import fye_export
import fye_rt.bundle
from fye_bench.speed.workload import Workload
from fye_export.checkpoint import Checkpoint
from fye_export.export import export
from fye_export.random_checkpoint import PRESETS, write
from fye_rt.bundle import Bundle
from fye_rt.errors import BundleError, CheckpointError, OptionError
from fye_rt.files import cache_folder, locked
from fye_rt.machine import installed_version

PRESET, SEED = "mid", 0
KEPT = 4  # models, those that were used last
_LIBRARIES = ("torch", "onnx", "onnx-ir", "onnxscript", "numpy")  # what graphs and weights depend on

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Model:
    """One model twice: the checkpoint for the baseline, and the bundle that was exported from it."""

    checkpoint: Path
    bundle: Path


def find_model(
    checkpoint: Path | None, bundle: Path | None, tell: Tell, *, precision: str = "fp32", fresh: bool = False
) -> Model:
    """The given model, or else the mid-size one with seeded weights; making that takes minutes, once.

    It is kept in the user's cache, under a name that changes with all that it is made from: the exporter's sources,
    libraries, configuration and size. One that is damaged is made again. Several processes may ask at once.

    Args:
        checkpoint: of a model that is there, with `bundle`.
        bundle: exported from `checkpoint`.
        tell: called with what is done, and where the model lies.
        precision: in which the weights of the mid-size bundle are stored.
        fresh: make the mid-size model again.

    Raises:
        OptionError: only one of the two is given, or the bundle was exported from another checkpoint.
        BundleError, CheckpointError, OutputError: as their names say.
    """
    if (checkpoint is None) != (bundle is None):
        raise OptionError("--bundle and --checkpoint belong together: the baseline needs the weights of the bundle")
    if checkpoint is not None and bundle is not None:
        if fresh:
            raise OptionError("--fresh makes the mid-size model again; leave out --bundle and --checkpoint")
        model = Model(checkpoint, bundle)
        if not _belong_together(model):
            raise OptionError(f"{bundle} was not exported from {checkpoint}; give the checkpoint it was exported from")
        return model
    folder = cache() / _name(precision)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(_lock(folder), lambda: tell(f"wait for another process, which makes the model in {folder}")):
        model = _made(folder, precision, tell, fresh)
        os.utime(folder)
    _prune(folder)
    return model


def cache() -> Path:
    """Where models are kept: bench in the user's cache."""
    return cache_folder() / "bench"


def _made(folder: Path, precision: str, tell: Tell, fresh: bool) -> Model:
    """The model of a folder; what is damaged in it is made again."""
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        return _completed(folder, precision, tell)
    except (BundleError, CheckpointError) as error:
        tell(f"the model in {folder} is made again: {error}")
        shutil.rmtree(folder, ignore_errors=True)
        return _completed(folder, precision, tell)


def _completed(folder: Path, precision: str, tell: Tell) -> Model:
    """The model of a folder, with what was missing; each part appears whole or not at all."""
    model = Model(folder / "checkpoint", folder / "bundle")
    if model.bundle.exists():
        tell(f"reuse the model in {folder}; --fresh makes it again")
    else:
        tell(f"make the model, which takes minutes; it is kept in {folder} for the next time")
        if not model.checkpoint.exists():
            write(model.checkpoint, PRESETS[PRESET], seed=SEED)
        export(model.checkpoint, model.bundle, precision=precision, size=Workload().size)
    if not _belong_together(model):
        raise CheckpointError("its bundle was exported from another checkpoint")
    return model


def _belong_together(model: Model) -> bool:
    """Whether a bundle, which is checked, was exported from a checkpoint."""
    source = Bundle.load(model.bundle).manifest["source"]["checkpoint_sha256"]
    return bool(source == Checkpoint.open(model.checkpoint).digest)


def _name(precision: str) -> str:
    """Of a model: a hash of all that it is made from."""
    whole = hashlib.sha256()
    for file in _sources():
        whole.update(file.read_bytes())
    versions = [(library, installed_version(library)) for library in _LIBRARIES]
    whole.update(repr((asdict(PRESETS[PRESET]), SEED, Workload().size, precision, versions)).encode())
    return f"{PRESET}-{whole.hexdigest()[:16]}"


def _sources() -> Iterable[Path]:
    """Files that decide what a bundle holds."""
    return [*sorted(Path(fye_export.__file__).parent.rglob("*.py")), Path(fye_rt.bundle.__file__), Path(__file__)]


def _lock(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _prune(newest: Path) -> None:
    """Remove the models that were used least recently, but for a few, and for those that are being made."""
    with suppress(OSError):
        others = (path for path in newest.parent.iterdir() if path.is_dir() and path != newest)
        for folder in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT - 1 :]:
            with locked(_lock(folder)) as is_free:
                if is_free:
                    shutil.rmtree(folder, ignore_errors=True)
