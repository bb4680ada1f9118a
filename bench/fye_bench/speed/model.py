"""The model to time: the caller's, or the repository's mid-size one, which is made once and cached."""

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
KEPT = 4  # most recently used models in the cache
_LIBRARIES = ("torch", "onnx", "onnx-ir", "onnxscript", "numpy")  # graphs and weights depend on them


@dataclass(frozen=True, slots=True)
class Model:
    """A checkpoint for the baseline, and the bundle exported from it."""

    checkpoint: Path
    bundle: Path


def find_model(
    checkpoint: Path | None,
    bundle: Path | None,
    say: Callable[[str], None],
    *,
    precision: str = "fp32",
    fresh: bool = False,
) -> Model:
    """Return the caller's model, or else the mid-size one with seeded weights, which takes minutes to make, once.

    The user's cache keeps it under a name that changes with everything it is made from: the exporter's sources,
    libraries, configuration and size. A damaged model is made again. Several processes may call this at once.

    Args:
        checkpoint: checkpoint of an existing model; needs `bundle`.
        bundle: bundle exported from `checkpoint`.
        say: called with each action and the folder of the model.
        precision: storage precision of the mid-size bundle's weights.
        fresh: make the mid-size model again.

    Raises:
        OptionError: bundle or checkpoint is missing, or the bundle was exported from another checkpoint.
        BundleError: the bundle is damaged.
        CheckpointError: the checkpoint is damaged.
        OutputError: the model cannot be written.
    """
    if (checkpoint is None) != (bundle is None):
        raise OptionError("bundle and checkpoint belong together: the baseline needs the bundle's weights; give both")
    if checkpoint is not None and bundle is not None:
        if fresh:
            raise OptionError("fresh makes the mid-size model again; leave out bundle and checkpoint")
        model = Model(checkpoint, bundle)
        if not _belong_together(model):
            raise OptionError(f"{bundle} was not exported from {checkpoint}; give the checkpoint it was exported from")
        return model
    folder = cache_folder() / "bench" / _name(precision)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(_lock(folder), lambda: say(f"wait for another process, which makes the model in {folder}")):
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
        try:
            model = _complete(folder, precision, say)
        except (BundleError, CheckpointError) as error:
            say(f"the model in {folder} is made again: {error}")
            shutil.rmtree(folder, ignore_errors=True)
            model = _complete(folder, precision, say)
        os.utime(folder)
    _prune(folder)
    return model


def _complete(folder: Path, precision: str, say: Callable[[str], None]) -> Model:
    """Make the missing parts of a folder's model; each part appears whole or not at all."""
    model = Model(folder / "checkpoint", folder / "bundle")
    if model.bundle.exists():
        say(f"reuse the model in {folder}; fresh makes it again")
    else:
        say(f"make the model, which takes minutes; {folder} keeps it for the next time")
        if not model.checkpoint.exists():
            write(model.checkpoint, PRESETS[PRESET], seed=SEED)
        export(model.checkpoint, model.bundle, precision=precision, size=Workload().size)
    if not _belong_together(model):
        raise CheckpointError("its bundle was exported from another checkpoint")
    return model


def _belong_together(model: Model) -> bool:
    """Check the bundle, and return whether it was exported from the checkpoint."""
    source = Bundle.load(model.bundle).manifest["source"]["checkpoint_sha256"]
    return bool(source == Checkpoint.open(model.checkpoint).digest)


def _name(precision: str) -> str:
    """Name a model after a hash of everything it is made from."""
    digest = hashlib.sha256()
    for file in _sources():
        digest.update(file.read_bytes())
    versions = [(library, installed_version(library)) for library in _LIBRARIES]
    digest.update(repr((asdict(PRESETS[PRESET]), SEED, Workload().size, precision, versions)).encode())
    return f"{PRESET}-{digest.hexdigest()[:16]}"


def _sources() -> Iterable[Path]:
    """List the files that decide a bundle's content."""
    return [*sorted(Path(fye_export.__file__).parent.rglob("*.py")), Path(fye_rt.bundle.__file__), Path(__file__)]


def _lock(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _prune(newest: Path) -> None:
    """Remove the least recently used models beyond KEPT, except those being made."""
    with suppress(OSError):
        others = (path for path in newest.parent.iterdir() if path.is_dir() and path != newest)
        for folder in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT - 1 :]:
            with locked(_lock(folder)) as is_free:
                if is_free:
                    shutil.rmtree(folder, ignore_errors=True)
