"""The model that is timed: one that is given, or the repository's own mid-size one, made on first use."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fye_export
from fye_bench.workload import Workload
from fye_export.checkpoint import Checkpoint
from fye_export.export import export
from fye_export.random_checkpoint import PRESETS, write
from fye_rt.bundle import Bundle
from fye_rt.errors import OptionError

PRESET, SEED = "mid", 0
CACHE = Path("build/bench")  # below the current folder

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Model:
    """One model twice: the checkpoint for the baseline, and the bundle that was exported from it."""

    checkpoint: Path
    bundle: Path


def find_model(checkpoint: Path | None, bundle: Path | None, tell: Tell) -> Model:
    """The given model, or else the mid-size one with seeded weights; making that takes minutes, once.

    Raises:
        OptionError: only one of the two is given, or the bundle was exported from another checkpoint.
        BundleError, CheckpointError, OutputError: as their names say.
    """
    if (checkpoint is None) != (bundle is None):
        raise OptionError("--bundle and --checkpoint belong together: the baseline needs the weights of the bundle")
    if checkpoint is None or bundle is None:
        # under a name that changes with the exporter, which may cut other graphs
        folder = CACHE / f"{PRESET}-{_digest(Path(fye_export.__file__).parent)}"
        checkpoint, bundle = folder / "checkpoint", folder / "bundle"
        if not checkpoint.exists():
            tell("write the model")
            write(checkpoint, PRESETS[PRESET], seed=SEED)
        if not bundle.exists():
            tell("export the model")
            export(checkpoint, bundle, size=Workload().size)
    source = Bundle.load(bundle).manifest["source"]["checkpoint_sha256"]
    if source != Checkpoint.open(checkpoint).digest:
        raise OptionError(f"{bundle} was not exported from {checkpoint}; give the checkpoint that it was exported from")
    return Model(checkpoint, bundle)


def _digest(package: Path) -> str:
    whole = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        whole.update(file.read_bytes())
    return whole.hexdigest()[:12]
