"""Jump tables fitted to a model (`fye_rt.forecasts.fitting`), stored in its bundle as forecast.json."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fye_rt.bundle import Bundle, put_file
from fye_rt.errors import BundleError
from fye_rt.forecast import Jump, JumpTable

FILE = "forecast.json"
FORMAT, VERSION = "fye-forecast", 1
_MAX_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Fitted:
    """A jump table and the conditions it was fitted for.

    Attributes:
        steps: number of DDIM steps.
        guidance: least and greatest guidance scale.
        table: the jumps, between predictions of v.
        error: root mean square distance between its latents and those of the full runs, on held-out clips; NaN if there
            was only one clip.
    """

    steps: int
    guidance: tuple[float, float]
    table: JumpTable
    error: float

    @property
    def key(self) -> tuple[int, tuple[float, float], int]:
        """Identity among a bundle's tables: steps, guidance and evaluations."""
        return self.steps, self.guidance, self.table.evaluations

    def fits(self, steps: int, guidance: float, evaluations: int) -> bool:
        """Return whether the table may be used."""
        low, high = self.guidance
        return (self.steps, self.table.evaluations) == (steps, evaluations) and low <= guidance <= high


def find(fitted: Iterable[Fitted], steps: int, guidance: float, evaluations: int) -> JumpTable | None:
    """Return the fitting table with the narrowest range of guidance, or None."""
    fitting = [entry for entry in fitted if entry.fits(steps, guidance, evaluations)]
    return min(fitting, key=lambda entry: entry.guidance[1] - entry.guidance[0]).table if fitting else None


def read(bundle: Bundle) -> tuple[Fitted, ...]:
    """Read the tables of a bundle; () if it has no forecast.json.

    Raises:
        BundleError: the file is damaged, of another format, or fitted to another checkpoint.
    """
    if FILE not in bundle.manifest["files"]:
        return ()
    file = bundle.path / FILE
    remedy = f"fit its tables again: fye calibrate {bundle.path}"
    if file.stat().st_size > _MAX_BYTES:
        raise BundleError(f"{file} is over {_MAX_BYTES >> 20} MB; {remedy}")
    try:
        content = json.loads(file.read_bytes())
        if (content["format"], content["version"]) != (FORMAT, VERSION):
            raise BundleError(f"{file} is not a {FORMAT} of version {VERSION}; {remedy}")
        if content["source"] != bundle.manifest["source"]:
            raise BundleError(f"{file} was fitted to another checkpoint; {remedy}")
        return tuple(_fitted(entry) for entry in content["plans"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise BundleError(f"{file} is damaged ({error!r}); {remedy}") from error


def write(bundle: Bundle, fitted: Sequence[Fitted], facts: Mapping[str, Any]) -> None:
    """Store tables in a bundle, replacing all its tables; `facts` say how they were fitted.

    Raises:
        OutputError: the bundle cannot be written.
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "source": bundle.manifest["source"],
        "fitted": dict(facts),
        "plans": [
            {
                "steps": entry.steps,
                "guidance": list(entry.guidance),
                "evaluations": entry.table.evaluations,
                "error": entry.error,
                "jumps": [{"step": j.step, "end": j.end, "a": j.a, "w": list(j.w)} for j in entry.table.jumps],
            }
            for entry in fitted
        ],
    }
    put_file(bundle.path, FILE, (json.dumps(content, indent=1) + "\n").encode())


def _fitted(entry: Mapping[str, Any]) -> Fitted:
    steps, (low, high) = int(entry["steps"]), entry["guidance"]
    jumps = tuple(Jump(int(j["step"]), int(j["end"]), float(j["a"]), tuple(map(float, j["w"]))) for j in entry["jumps"])
    # from the first step to the end, without a gap
    if [0, *(j.end for j in jumps)] != [*(j.step for j in jumps), steps] or any(j.end <= j.step for j in jumps):
        raise ValueError("its steps do not follow each other")
    return Fitted(steps, (float(low), float(high)), JumpTable(jumps), float(entry["error"]))
