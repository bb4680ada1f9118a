"""Which plans belong to a graph of a bundle on this machine, and which of them takes inputs of given shapes."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from fye_rt.bundle import Bundle
from fye_rt.plans.key import PlanKey, Profile, Shape, differences, profile

# how `fye_engines.prepare` makes graphs; it counts up whenever that gives other ones
RECIPE = "recipe=1"
STRIPPED = "stripped"
EIGHT_BITS = ("int8", "fp8")  # precisions that need the ranges of a bundle, in a file of its own
BASE = "fp16"  # what such a plan computes in otherwise
DENOISERS = ("denoiser", "denoiser_cond")  # the graphs that are worth 8 bits; the others are run once
RANGES = "ranges.json"


@dataclass(frozen=True, slots=True)
class Machine:
    """What a plan is bound to.

    Attributes:
        sm: GPU architecture, such as "sm_90".
        tensorrt: its version.
        driver: the driver's version.
    """

    sm: str
    tensorrt: str
    driver: str


def precision_of(graph: str, compute: str) -> str:
    """What a graph computes in where clips are made in a precision."""
    return BASE if compute in EIGHT_BITS and graph not in DENOISERS else compute


def plan_key(
    bundle: Bundle, graph: str, machine: Machine, precision: str, shapes: Profile, flags: Iterable[str] = ()
) -> PlanKey:
    """The key of a plan.

    Args:
        bundle: with the graph.
        graph: its name.
        machine: that it runs on.
        precision: that clips are made in; see `precision_of`.
        shapes: its optimization profile.
        flags: how it is built; `RECIPE` is added, and which ranges it has if it computes with 8 bits.
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
    """Those that have what `wanted` has, but for shapes and the way they were built."""
    return [
        key
        for key in keys
        if _same_numbers(key) == _same_numbers(wanted)
        and replace(key, profile=wanted.profile, flags=wanted.flags) == wanted
    ]


def alike(keys: Iterable[PlanKey], wanted: PlanKey) -> PlanKey:
    """`wanted` with the shapes and flags of the plan that is nearest to it, so that only what matters differs."""
    same = [key for key in keys if key.graph == wanted.graph]
    if not same:
        return wanted

    def like(key: PlanKey) -> PlanKey:
        flags = set(key.flags) - _same_numbers(key) - {STRIPPED}
        return replace(wanted, profile=key.profile, flags=(*_same_numbers(wanted), *flags))

    nearest = min(same, key=lambda key: (len(differences(key, like(key))), key.digest))
    return like(nearest)


def choose(keys: Iterable[PlanKey], shapes: Mapping[str, Shape]) -> PlanKey | None:
    """The plan that suits inputs best: made for these very shapes, or with the least room around them.

    Args:
        keys: of usable plans.
        shapes: of all inputs, by name; a profile leaves those out that never change.

    Returns:
        None where no plan takes them.
    """
    fitting = [key for key in keys if _takes(key.profile, shapes)]
    return min(fitting, key=lambda key: (_room(key.profile, shapes), key.digest), default=None)


def exactly(bundle: Bundle, graph: str, shapes: Mapping[str, Shape]) -> Profile:
    """The profile of a plan that takes these shapes alone."""
    inputs = bundle.graphs[graph].inputs
    varying = [spec.name for spec in inputs if any(isinstance(size, str) for size in spec.shape)]
    return profile({name: 3 * (shapes[name],) for name in varying})


def rebuild_command(bundle: Bundle, graph: str, shapes: Mapping[str, Shape], precision: str) -> str:
    """The command that builds a plan which takes these shapes; without shapes, one that takes any bundle's own."""
    sizes = {
        size: length
        for spec in bundle.graphs[graph].inputs
        for size, length in zip(spec.shape, shapes.get(spec.name, ()), strict=False)
        if isinstance(size, str)
    }
    parts = ["fye build", str(bundle.path), f"--graph {graph}", f"--precision {precision}"]
    if "latent_height" in sizes:
        parts.append(f"--size {8 * sizes['latent_height']}x{8 * sizes['latent_width']}")
    elif "height" in sizes:
        parts.append(f"--size {sizes['height']}x{sizes['width']}")
    if "frames" in sizes:
        parts.append(f"--frames {sizes['frames']}")
    return " ".join(parts)


def _same_numbers(key: PlanKey) -> set[str]:
    """The flags on which depends what a plan computes."""
    return {flag for flag in key.flags if flag.startswith(("recipe=", "ranges="))}


def _takes(bounds: Profile, shapes: Mapping[str, Shape]) -> bool:
    return all(
        name in shapes
        and len(low) == len(shapes[name])
        and all(a <= n <= b for a, n, b in zip(low, shapes[name], high, strict=True))
        for name, (low, _, high) in bounds
    )


def _room(bounds: Profile, shapes: Mapping[str, Shape]) -> float:
    """0 where a plan is made for these shapes, and the more the further it reaches from what it is best at."""
    room = 0.0
    for name, (low, usual, high) in bounds:
        room += math.log(math.prod(high) / math.prod(low))
        room += abs(math.log(math.prod(usual) / math.prod(shapes[name])))
    return room
