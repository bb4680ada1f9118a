"""The exported bundle reproduces the reference: recorded inputs in, recorded outputs out, in float32."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fye_rt import Animator, Bundle, Options, backends
from fye_rt.arrays import Array
from fye_rt.engine import Engine, Settings
from tests import golden_files
from tests.golden_files import Arrays

# One evaluation, of numbers up to 5. Only the order of float32 additions differs, which measures 4e-6 for either
# engine; other processors add in other orders.
TOLERANCE = 1e-4
LATENTS = 1e-3  # after any of six steps, each of which multiplies the differences before it; 4e-5 measured
VIDEO = 2e-3  # of 1; the recorded frames are float16, which is 2.5e-4 of it
BACKENDS = ("onnxruntime", "openvino", "torch")
THREADS = 1  # at these sizes two threads gain little, and on a busy machine wait for each other
LAYERS = (
    [f"down_blocks.{i // 2}.attentions.{i % 2}" for i in range(6)]
    + ["mid_block.attentions.0"]
    + [f"up_blocks.{1 + i // 3}.attentions.{i % 3}" for i in range(9)]
)
TOKENS = [f"ref.down.{i}" for i in range(6)] + ["ref.mid"] + [f"ref.up.{i}" for i in range(9)]

LONG = "pipeline_long_20f_tile8_ov3"
PIPELINES = [("pipeline_8f", backend) for backend in BACKENDS] + [("pipeline_40f_ctx24_ov4", "onnxruntime")]

Run = Callable[..., dict[str, Array]]


class Take(NamedTuple):
    """What one pipeline made: latents after each step, float32 (1, 4, F, h, w), and video (1, 3, F, H, W)."""

    timesteps: list[int]
    latents: list[Array]
    video: Array


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def run(golden_bundle: Path, backend: str) -> Run:
    """Run one graph of the golden bundle on named inputs."""
    bundle, open_engine = Bundle.load(golden_bundle), backends.load(backend)

    @cache
    def engine(graph: str) -> Engine:
        return open_engine(bundle, graph, Settings(compute="fp32", threads=THREADS))

    return lambda graph, **inputs: engine(graph).run(
        {name: np.ascontiguousarray(array) for name, array in inputs.items()}
    )


@pytest.fixture(scope="module")
def take(golden_bundle: Path) -> Callable[[str, str], Take]:
    """Run one recorded pipeline, once."""
    bundle = Bundle.load(golden_bundle)

    @cache
    def animator(backend: str) -> Animator:
        return Animator(bundle, backend, compute="fp32", threads=THREADS)

    @cache
    def made(name: str, backend: str) -> Take:
        recorded = golden_files.read(name)
        windows: dict[str, Any] = {"windows": "reference"}
        if name == LONG:
            windows = {"windows": "tiles", "window_size": 8, "window_overlap": 3}
        steps: list[tuple[int, int, Array]] = []
        latents = animator(backend).denoise(
            animator(backend).encode_portrait(recorded["ref_image"], recorded["clip_image"]),
            animator(backend).encode_motion(recorded["lmk_images"]),
            recorded["noise"],
            Options(steps=6, guidance=3.5, **windows),
            on_step=lambda *step: steps.append(step),
        )
        video = animator(backend).decode(latents).transpose(3, 0, 1, 2)[None]
        assert [index for index, _, _ in steps] == list(range(6))
        assert np.array_equal(steps[-1][2], latents)
        return Take([timestep for _, timestep, _ in steps], [latents for _, _, latents in steps], video)

    return made


@pytest.fixture(scope="module")
def modules() -> Arrays:
    return golden_files.read("modules")


@pytest.fixture(scope="module")
def unet() -> Arrays:
    return golden_files.read("unet")


@pytest.fixture(scope="module")
def weights(golden_checkpoint: Path) -> Arrays:
    state = torch.load(golden_checkpoint / "follow-your-emoji" / "unet.pth", weights_only=True)
    return {name: tensor.float().numpy() for name, tensor in state.items()}


@pytest.fixture(scope="module")
def portrait(run: Run, modules: Arrays) -> dict[str, Array]:
    return run("reference", portrait_latents=modules["ref.latents"], clip_tokens=modules["ref.encoder_hidden_states"])


def error(got: NDArray[Any], want: NDArray[Any]) -> float:
    assert got.shape == want.shape
    return float(np.abs(got - want.astype(np.float32)).max())


def by_frame(features: Array) -> Array:
    """(1, C, F, h, w), as the reference has them, to (F, C, h, w)."""
    return features[0].transpose(1, 0, 2, 3)


def test_clip_tokens_match_the_reference(run: Run, modules: Arrays) -> None:
    tokens = run("image_encoder", clip_pixels=modules["clip.pixel_values"])["clip_tokens"]
    assert error(tokens, modules["clip.last_hidden_state"]) < TOLERANCE


def test_the_vae_encodes_to_the_reference_s_mean(run: Run, modules: Arrays) -> None:
    latents = run("vae_encoder", pixels=modules["vae.image"])["portrait_latents"]
    assert error(latents / np.float32(0.18215), modules["vae.mean"]) < TOLERANCE


def test_the_vae_decodes_to_the_reference_s_frame(run: Run, modules: Arrays) -> None:
    frames = run("vae_decoder", latents=modules["vae.latent"][:, :, None] * np.float32(0.18215))["frames"]
    want = np.clip(modules["vae.decoded"] / 2 + 0.5, 0, 1)
    assert error(frames.transpose(0, 3, 1, 2), want) < TOLERANCE


def test_guider_features_match_the_reference(run: Run, modules: Arrays) -> None:
    features = run("guider", landmark_images=by_frame(modules["guider.in"]))["landmark_features"]
    assert error(features, by_frame(modules["guider.out"])) < TOLERANCE


@pytest.mark.parametrize("layer", range(16))
def test_keys_and_values_are_projections_of_the_reference_s_tokens(
    layer: int, portrait: dict[str, Array], modules: Arrays, weights: Arrays
) -> None:
    block = f"{LAYERS[layer]}.transformer_blocks.0"
    context = modules["ref.encoder_hidden_states"] @ weights["clip_fc.weight"].T + weights["clip_fc.bias"]
    for kv, projection in (("key", "to_k"), ("value", "to_v")):
        want = modules[TOKENS[layer]] @ weights[f"{block}.attn1.{projection}.weight"].T
        assert error(portrait[f"reference_{kv}.{layer}"], want) < TOLERANCE
        want = context @ weights[f"{block}.attn2.{projection}.weight"].T
        assert error(portrait[f"clip_{kv}.{layer}"], want) < TOLERANCE


@pytest.mark.parametrize("timestep", [999, 366])
def test_guided_predictions_match_the_reference(
    timestep: int, run: Run, portrait: dict[str, Array], unet: Arrays
) -> None:
    v = predict(run, "denoiser", unet, timestep, portrait)
    want = unet[f"out.cfg.t{timestep}"]
    assert error(v["v_unconditional"], want[:1]) < TOLERANCE
    assert error(v["v_conditional"], want[1:]) < TOLERANCE


def test_the_unconditional_prediction_ignores_the_portrait(run: Run, portrait: dict[str, Array], unet: Arrays) -> None:
    v = predict(run, "denoiser", unet, 999, portrait)
    assert error(v["v_unconditional"], unet["out.nocfg_noref_zero_clip.t999"]) < TOLERANCE


def test_the_prediction_without_guidance_matches_the_reference(
    run: Run, portrait: dict[str, Array], unet: Arrays
) -> None:
    v = predict(run, "denoiser_cond", unet, 999, portrait)
    assert list(v) == ["v_conditional"]
    assert error(v["v_conditional"], unet["out.nocfg_ref.t999"]) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("size", ["hw12x20", "hw16x24"])
def test_predictions_of_oblong_sizes_match_the_reference(size: str, run: Run, modules: Arrays, unet: Arrays) -> None:
    recorded = {name.removeprefix(f"{size}."): array for name, array in unet.items() if name.startswith(size)}
    tokens = modules["ref.encoder_hidden_states"]
    portrait = run("reference", portrait_latents=recorded["ref_latents"], clip_tokens=tokens)
    v = predict(run, "denoiser", recorded, 500, portrait)
    assert error(np.concatenate([v["v_unconditional"], v["v_conditional"]]), recorded["out.cfg.t500"]) < TOLERANCE


def predict(run: Run, graph: str, recorded: Arrays, timestep: int, portrait: dict[str, Array]) -> dict[str, Array]:
    features = by_frame(recorded["lmk_fea"])
    return run(
        graph, latents=recorded["latents"], timestep=np.array([timestep]), landmark_features=features, **portrait
    )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "engine"), PIPELINES)
def test_latents_of_every_step_match_the_reference(name: str, engine: str, take: Callable[[str, str], Take]) -> None:
    pytest.importorskip(engine)
    recorded, made = golden_files.read(name), take(name, engine)
    assert made.timesteps == recorded["timesteps"].tolist()
    for step, (timestep, latents) in enumerate(zip(made.timesteps, made.latents, strict=True)):
        assert error(latents, recorded[f"latents_step{step}_t{timestep}"]) < LATENTS


@pytest.mark.slow
def test_tiled_latents_are_the_blend_of_the_reference_s_tiles(take: Callable[[str, str], Take]) -> None:
    recorded, made = golden_files.read(LONG), take(LONG, "onnxruntime")
    assert made.timesteps == recorded["timesteps"].tolist()
    weights = np.exp(-((np.arange(8) - 3.5) ** 2) / 8**2 / (2 * 0.01))[:, None, None]
    for step, (timestep, latents) in enumerate(zip(made.timesteps, made.latents, strict=True)):
        total, weight = np.zeros(latents.shape), np.zeros((20, 1, 1))
        for tile, start in enumerate((0, 5, 10, 12)):  # every 8 - 3 frames, and the last where the clip ends
            frames = slice(start, start + 8)
            total[:, :, frames] += weights * recorded[f"tile_latents_step{step}_tile{tile}_t{timestep}"]
            weight[frames] += weights
        assert error(latents, total / weight) < LATENTS


@pytest.mark.slow
@pytest.mark.parametrize(("name", "engine"), [*PIPELINES, (LONG, "onnxruntime")])
def test_videos_match_the_reference(name: str, engine: str, take: Callable[[str, str], Take]) -> None:
    pytest.importorskip(engine)
    assert error(take(name, engine).video[golden_files.VIDEO], golden_files.read(name)["video_f16"]) < VIDEO


@pytest.mark.slow
@pytest.mark.parametrize(("name", "engine"), [*PIPELINES, (LONG, "onnxruntime")])
def test_every_pixel_of_the_videos_matches_the_reference(
    name: str, engine: str, take: Callable[[str, str], Take], golden: Path
) -> None:
    pytest.importorskip(engine)
    with np.load(golden / f"{name}.npz") as recorded:
        assert error(take(name, engine).video, recorded["video_f16"]) < VIDEO
        assert error(take(name, engine).video[:, :, :2], recorded["video_sample_f32"]) < LATENTS
