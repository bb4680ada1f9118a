"""The plan that suits a clip is found among those of other machines, weights, precisions and shapes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fye_rt.bundle import Bundle
from fye_rt.plans import PlanCache, PlanKey, profile
from fye_rt.plans.matching import (
    BASE,
    RANGES,
    RECIPE,
    STRIPPED,
    Machine,
    alike,
    choose,
    exactly,
    plan_key,
    rebuild_command,
    usable,
)

HERE = Machine("sm_90", "11.4.0", "580.65")


def key(bundle: Bundle, low: int, usual: int, high: int, **change: Any) -> PlanKey:
    """Of the decoder, for so many frames."""
    shapes = profile({"latents": [(1, 4, frames, 8, 9) for frames in (low, usual, high)]})
    return replace(plan_key(bundle, "vae_decoder", HERE, "fp16", shapes, ("level=3",)), **change)


def frames(number: int) -> dict[str, tuple[int, ...]]:
    return {"latents": (1, 4, number, 8, 9)}


@pytest.mark.parametrize(
    ("number", "chosen"),
    [(5, (5, 5, 5)), (4, (1, 5, 8)), (8, (1, 8, 8)), (6, (1, 5, 8)), (16, (1, 16, 32)), (33, None)],
)
def test_the_plan_nearest_to_a_shape_is_chosen(number: int, chosen: tuple[int, ...] | None, bundle: Bundle) -> None:
    there = [key(bundle, *each) for each in ((1, 16, 32), (1, 8, 8), (5, 5, 5), (1, 5, 8))]
    for keys in (there, there[::-1]):
        found = choose(keys, frames(number))
        assert found == (None if chosen is None else key(bundle, *chosen))


def test_the_narrowest_of_equally_good_plans_is_chosen(bundle: Bundle) -> None:
    narrow = key(bundle, 5, 5, 5)
    assert [choose([narrow, key(bundle, 1, 5, most)], frames(5)) for most in range(6, 16)] == 10 * [narrow]


def test_inputs_that_a_plan_does_not_know_are_not_taken(bundle: Bundle) -> None:
    assert choose([key(bundle, 1, 5, 8)], {"other": (1, 4, 5, 8, 9)}) is None
    assert choose([key(bundle, 1, 5, 8)], {"latents": (1, 4, 5, 8)}) is None


def test_a_graph_of_one_shape_has_a_plan_without_a_profile(bundle: Bundle) -> None:
    plan = plan_key(bundle, "image_encoder", HERE, "fp16", ())
    assert choose([plan], {"clip_pixels": (1, 3, 56, 56)}) == plan


OTHERS: dict[str, Any] = {"graph": "denoiser", "sm": "sm_89", "tensorrt": "10.16", "driver": "1", "precision": "fp32"}
OTHERS |= {"onnx": "0" * 64, "weights": "0" * 64, "flags": ("recipe=0",)}


@pytest.mark.parametrize("field", OTHERS)
def test_only_plans_of_this_machine_and_graph_are_usable(field: str, bundle: Bundle) -> None:
    wanted = plan_key(bundle, "vae_decoder", HERE, "fp16", ())
    mine = [key(bundle, 1, 5, 8), key(bundle, 5, 5, 5, flags=(RECIPE, "level=5", "refit"))]
    assert usable([*mine, key(bundle, 1, 5, 8, **{field: OTHERS[field]})], wanted) == mine


def with_hash(bundle: Bundle, file: str, sha256: str) -> Bundle:
    files = {**bundle.manifest["files"], file: {"sha256": sha256, "bytes": 1}}
    return replace(bundle, manifest={**bundle.manifest, "files": files})


def test_a_key_has_the_hashes_of_graph_and_weights(bundle: Bundle) -> None:
    def made(bundle: Bundle, *flags: str) -> PlanKey:
        return plan_key(bundle, "guider", HERE, "fp16", (), flags)

    files = bundle.manifest["files"]
    first = made(bundle)
    assert (first.onnx, first.weights) == (files["guider.onnx"]["sha256"], files[bundle.weights]["sha256"])
    assert made(with_hash(bundle, "guider.onnx", "1" * 64)) == replace(first, onnx="1" * 64)
    other = with_hash(bundle, bundle.weights, "2" * 64)
    assert made(other) == replace(first, weights="2" * 64)
    assert made(other, STRIPPED) == made(bundle, STRIPPED) == replace(first, weights="", flags=(RECIPE, STRIPPED))


def test_a_key_with_8_bits_has_the_ranges_it_was_made_with(bundle: Bundle) -> None:
    def made(bundle: Bundle, graph: str = "denoiser") -> PlanKey:
        return plan_key(bundle, graph, HERE, "int8", ())

    first, second = (with_hash(bundle, RANGES, number * 64) for number in "12")
    assert made(first).precision == "int8" and len({made(bundle), made(first), made(second)}) == 3
    assert usable([made(first)], made(second)) == []
    assert made(first, "guider") == made(second, "guider") and made(first, "guider").precision == BASE


def test_a_message_names_only_differences_that_matter(bundle: Bundle, tmp_path: Path) -> None:
    cache, wanted = PlanCache(tmp_path / "plans"), plan_key(bundle, "vae_decoder", HERE, "fp16", ())
    other = key(bundle, 1, 5, 8, driver="580.00", flags=(RECIPE, "level=5", "refit"))
    cache.publish(other, b"plan", {})
    text = cache.missing_message(alike([other], wanted), "BUILD")
    assert text.endswith("there is one for driver 580.00; this is driver 580.65; build it with: BUILD")
    assert alike([], wanted) == wanted
    stripped = replace(other, weights="", flags=(*other.flags, STRIPPED))
    assert alike([stripped], wanted) == alike([other], wanted)


def test_an_exact_profile_takes_one_shape(bundle: Bundle) -> None:
    made = key(bundle, 5, 5, 5)
    assert exactly(bundle, "vae_decoder", frames(5)) == made.profile
    assert choose([made], frames(5)) == made and choose([made], frames(4)) is None


@pytest.mark.parametrize(
    ("graph", "shapes", "text"),
    [
        ("vae_decoder", frames(5), "--graph vae_decoder --precision fp16 --size 64x72 --frames 5"),
        ("vae_encoder", {"image": (1, 3, 64, 72)}, "--graph vae_encoder --precision fp16 --size 64x72"),
        ("image_encoder", {}, "--graph image_encoder --precision fp16"),
    ],
)
def test_the_command_builds_what_is_missing(graph: str, shapes: Any, text: str, bundle: Bundle) -> None:
    named = {spec.name: next(iter(shapes.values())) for spec in bundle.graphs[graph].inputs} if shapes else {}
    assert rebuild_command(bundle, graph, named, "fp16") == f"fye build {bundle.path} {text}"


def test_kernels_that_others_can_write_are_not_loaded(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path / "plans")
    assert cache.kernels("sm_90") is None
    folder = cache.place_for_kernels("sm_90")
    folder.mkdir(mode=0o700)
    assert cache.kernels("sm_90") == folder and cache.kernels("sm_89") is None
    for path in (folder, cache.root):
        path.chmod(0o777)
        assert cache.kernels("sm_90") is None
        path.chmod(0o700)
    assert cache.kernels("sm_90") == folder
