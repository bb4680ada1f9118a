"""Matches plans to a graph of a bundle on this machine, and chooses the one for inputs of given shapes."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from fye_rt.bundle import Bundle
from fye_rt.plans.key import PlanKey, Profile, Shape, differences, profile

RECIPE = "recipe=2"  # version of `fye_engines.prepare`; it counts up whenever the prepared graphs change
STRIPPED = "stripped"
EIGHT_BITS = ("int8", "fp8")  # precisions that need the bundle's file of ranges
BASE = "fp16"  # precision of everything else when 8 bits are requested
DENOISERS = ("denoiser", "denoiser_cond")  # the graphs worth computing with 8 bits; the others run once
RANGES = "ranges.json"


@dataclass(frozen=True, slots=True)
class Machine:
    """The GPU architecture and versions that a plan is bound to.

    Attributes:
        sm: GPU architecture, such as "sm_90"; for a plan that is to be built, all that it serves, joined by "+".
        tensorrt: version of TensorRT, such as "11.4.0", or of TensorRT-RTX, such as "rtx-1.7.1.116".
        driver: version of the driver; "any" with TensorRT-RTX.
    """

    sm: str
    tensorrt: str
    driver: str


def precision_of(graph: str, compute: str) -> str:
    """Return the precision of a graph when clips are made in precision `compute`."""
    return BASE if compute in EIGHT_BITS and graph not in DENOISERS else compute


def plan_key(
    bundle: Bundle, graph: str, machine: Machine, precision: str, shapes: Profile, flags: Iterable[str] = ()
) -> PlanKey:
    """Build the key of a plan.

    Args:
        bundle: bundle with the graph.
        graph: name of the graph.
        machine: machine that the plan runs on.
        precision: precision that clips are made in; see `precision_of`.
        shapes: optimization profile.
        flags: how the plan is built; `RECIPE` is added, and with 8 bits the digest of the ranges.
    """
    files = bundle.manifest["files"]
    precision = precision_of(graph, precision)
    if precision in EIGHT_BITS:
        flags = (*flags, f"ranges={files.get(RANGES, {'sha256': 'none'})['sha256'][:16]}")
    stripped = STRIPPED in flags
    return PlanKey(
        graph,
        machine.sm,
        machine.tensorrt,
        machine.driver,
        onnx=files[bundle.graphs[graph].file]["sha256"],
        weights="" if stripped else files[bundle.weights]["sha256"],
        profile=shapes,
        precision=precision,
        flags=(RECIPE, *flags),
    )


def usable(keys: Iterable[PlanKey], wanted: PlanKey) -> list[PlanKey]:
    """Return the keys of plans that serve `wanted`: any shapes, and any flags that do not change what a plan computes.

    The architecture of `wanted` is one of those that the plan was built for.
    """
    return [
        key
        for key in keys
        if _numerical_flags(key) == _numerical_flags(wanted)
        and wanted.sm in key.architectures
        and replace(key, sm=wanted.sm, profile=wanted.profile, flags=wanted.flags) == wanted
    ]


def alike(keys: Iterable[PlanKey], wanted: PlanKey) -> PlanKey:
    """Return `wanted` with shapes and flags of the nearest plan, so that a message lists only essential differences."""
    same = [key for key in keys if key.graph == wanted.graph]
    if not same:
        return wanted

    def like(key: PlanKey) -> PlanKey:
        flags = set(key.flags) - _numerical_flags(key) - {STRIPPED}
        return replace(wanted, profile=key.profile, flags=(*_numerical_flags(wanted), *flags))

    return like(min(same, key=lambda key: (len(differences(key, like(key))), key.digest)))


def choose(keys: Iterable[PlanKey], shapes: Mapping[str, Shape]) -> PlanKey | None:
    """Choose the plan that suits inputs best: built for exactly these shapes, or for the tightest range around them.

    Args:
        keys: keys of usable plans.
        shapes: shapes of all inputs, by name; a profile omits inputs whose shape never changes.

    Returns:
        The key of the plan; None if no plan takes these shapes.
    """
    fitting = [key for key in keys if _takes(key.profile, shapes)]
    return min(fitting, key=lambda key: (_room(key.profile, shapes), len(key.architectures), key.digest), default=None)


def exactly(bundle: Bundle, graph: str, shapes: Mapping[str, Shape]) -> Profile:
    """Build the profile of a plan that takes exactly these shapes."""
    inputs = bundle.graphs[graph].inputs
    varying = [spec.name for spec in inputs if any(isinstance(size, str) for size in spec.shape)]
    return profile({name: 3 * (shapes[name],) for name in varying})


def rebuild_command(
    bundle: Bundle,
    graph: str,
    shapes: Mapping[str, Shape],
    precision: str,
    backend: str = "tensorrt",
    architectures: Iterable[str] = (),
) -> str:
    """Return the command that builds a plan for these shapes; without shapes, for the bundle's default shapes.

    `architectures` are those that TensorRT-RTX builds for; none means its usual ones.
    """
    sizes = {
        size: length
        for spec in bundle.graphs[graph].inputs
        for size, length in zip(spec.shape, shapes.get(spec.name, ()), strict=False)
        if isinstance(size, str)
    }
    parts = ["fye build", str(bundle.path), f"--graph {graph}", f"--precision {precision}"]
    if backend != "tensorrt":
        parts.append(f"--backend {backend}")
    if named := ",".join(architectures):
        parts.append(f"--arch {named}")
    if "latent_height" in sizes:
        parts.append(f"--size {8 * sizes['latent_height']}x{8 * sizes['latent_width']}")
    elif "height" in sizes:
        parts.append(f"--size {sizes['height']}x{sizes['width']}")
    if "frames" in sizes:
        parts.append(f"--frames {sizes['frames']}")
    return " ".join(parts)


def _numerical_flags(key: PlanKey) -> set[str]:
    """Return the flags that change what a plan computes."""
    return {flag for flag in key.flags if flag.startswith(("recipe=", "ranges="))}


def _takes(bounds: Profile, shapes: Mapping[str, Shape]) -> bool:
    return all(
        name in shapes
        and len(low) == len(shapes[name])
        and all(a <= n <= b for a, n, b in zip(low, shapes[name], high, strict=True))
        for name, (low, _, high) in bounds
    )


def _room(bounds: Profile, shapes: Mapping[str, Shape]) -> float:
    """Measure how loosely a profile fits: 0 if built for these shapes, more for wider ranges or other usual shapes."""
    room = 0.0
    for name, (low, usual, high) in bounds:
        room += math.log(math.prod(high) / math.prod(low))
        room += abs(math.log(math.prod(usual) / math.prod(shapes[name])))
    return room
