"""The baseline gives the reference's numbers, and does the reference's work."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from fye_bench.speed.baseline import Baseline, Portrait
from fye_export import networks
from fye_export.checkpoint import Checkpoint
from fye_export.config import NETWORKS, CLIPConfig, GuiderConfig, ModelConfig, UNetConfig, VAEConfig
from fye_export.graphs import LAYER_LEVELS, Denoiser, ImageEncoder, LandmarkGuider, Reference, VAEDecoder, VAEEncoder
from fye_rt import denoise, forecast
from fye_rt.backends import host
from fye_rt.errors import OptionError
from fye_rt.options import Options
from fye_rt.schedule import SchedulerConfig, schedule
from fye_rt.windows import blended_windows

# Two orders of float32 summation in values of size 1; the recordings agree to 7e-6
ROUNDING = 1e-4
# What the project promises for latents after every step and for the video; 40 frames give 4e-5 and 3e-4, most of it
# the float16 in which the video is recorded
LATENTS, VIDEO = 1e-3, 2e-3

SMALL = ModelConfig(
    unet=UNetConfig(
        block_out_channels=(32, 64, 64, 64), heads=4, norm_num_groups=8, cross_attention_dim=24, clip_dim=40
    ),
    lmk_guider=GuiderConfig(block_out_channels=(8, 8, 16, 16), out_channels=32),
    vae=VAEConfig(block_out_channels=(8, 16, 16, 16), layers_per_block=1, norm_num_groups=4),
    image_encoder=CLIPConfig(
        hidden_size=40, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=56
    ),
)


@pytest.fixture(scope="module", autouse=True)
def one_thread(torch_threads: None) -> None:
    """Two threads that wait for each other on a busy machine were up to 30 times slower at these small shapes."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def recorded(golden: Path) -> Baseline:
    """The baseline with the weights that the golden numbers were recorded with."""
    checkpoint = Checkpoint.open(golden / "ckpt")
    return Baseline({name: checkpoint.load(name) for name in NETWORKS}, SchedulerConfig())


@pytest.fixture(scope="module")
def arrays(golden: Path) -> Mapping[str, Tensor]:
    return MappingProxyType(load_file(golden / "modules.safetensors") | load_file(golden / "unet.safetensors"))


@pytest.fixture(scope="module")
def small() -> Mapping[str, nn.Module]:
    """Seeded random networks of all parts."""
    torch.manual_seed(0)
    return MappingProxyType({name: networks.build(SMALL, name) for name in NETWORKS})


@pytest.fixture(scope="module")
def baseline(small: Mapping[str, nn.Module]) -> Baseline:
    return Baseline(small, SchedulerConfig())


@pytest.fixture(scope="module")
def portrait(baseline: Baseline) -> Portrait:
    """Of 128 x 96 pixels."""
    return baseline.encode_portrait(*portrait_images())


def portrait_images() -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (128, 96, 3), dtype=np.uint8)
    return image, generator.standard_normal((3, 56, 56), dtype=np.float32)


def random_latents(frames: int) -> Tensor:
    return torch.randn(1, 4, frames, 16, 12, generator=torch.Generator().manual_seed(1))


def random_features(frames: int) -> Tensor:
    return torch.randn(1, 32, frames, 16, 12, generator=torch.Generator().manual_seed(2))


def assert_near(actual: Any, expected: Any, tolerance: float) -> None:
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), atol=tolerance, rtol=0)


def recorded_portrait(baseline: Baseline, arrays: Mapping[str, Tensor], latents: str) -> Portrait:
    tokens = arrays["ref.encoder_hidden_states"]
    return Portrait(baseline.reference_tokens(arrays[latents], tokens), tokens)


def test_reference_tokens_are_the_recorded_ones(recorded: Baseline, arrays: Mapping[str, Tensor]) -> None:
    names = [f"ref.down.{i}" for i in range(6)] + ["ref.mid"] + [f"ref.up.{i}" for i in range(9)]
    tokens = recorded_portrait(recorded, arrays, "ref.latents").reference
    for name, actual in zip(names, tokens, strict=True):
        assert_near(actual, arrays[name], ROUNDING)


@pytest.mark.parametrize(
    ("size", "reference", "way", "timestep"),
    [
        ("", "ref.latents", "cfg", 999),
        ("", "ref.latents", "cfg", 366),
        ("", "ref.latents", "nocfg_ref", 999),
        ("hw12x20.", "hw12x20.ref_latents", "cfg", 500),
        ("hw16x24.", "hw16x24.ref_latents", "cfg", 500),
    ],
)
def test_evaluation_gives_the_recorded_prediction(
    recorded: Baseline, arrays: Mapping[str, Tensor], size: str, reference: str, way: str, timestep: int
) -> None:
    portrait = recorded_portrait(recorded, arrays, reference)
    latents, features = arrays[f"{size}latents"], arrays[f"{size}lmk_fea"]
    made = recorded.evaluate(latents, timestep, features, portrait, guided=way == "cfg")
    assert_near(made, arrays[f"{size}out.{way}.t{timestep}"], ROUNDING)


@pytest.mark.slow
@pytest.mark.parametrize("clip", ["pipeline_8f", "pipeline_40f_ctx24_ov4"])
def test_pipeline_gives_the_recorded_latents_after_every_step_and_the_video(
    golden: Path, recorded: Baseline, clip: str
) -> None:
    with np.load(golden / f"{clip}.npz") as file:
        record = dict(file)
    portrait = recorded.encode_portrait(record["ref_image"], record["clip_image"])
    features = recorded.encode_motion(record["lmk_images"])
    seen = []

    def compare(index: int, timestep: int, latents: NDArray[np.float32]) -> None:
        seen.append(timestep)
        assert_near(latents, record[f"latents_step{index}_t{timestep}"], LATENTS)

    options = Options(steps=6, guidance=3.5, windows="reference")
    latents = recorded.denoise(portrait, features, record["noise"], options, compare)
    assert seen == record["timesteps"].tolist()
    video = recorded.decode(latents)
    assert video.dtype == np.float32
    assert_near(video, record["video_f16"][0].transpose(1, 2, 3, 0), VIDEO)


def test_stages_equal_the_exported_graphs(small: Mapping[str, nn.Module], baseline: Baseline) -> None:
    image, clip_pixels = portrait_images()
    landmarks = np.random.default_rng(3).integers(0, 256, (3, 128, 96, 3), dtype=np.uint8)
    portrait, features = baseline.encode_portrait(image, clip_pixels), baseline.encode_motion(landmarks)
    latents = random_latents(3)
    video = baseline.decode(latents.numpy())

    tokens = ImageEncoder(small["image_encoder"])(torch.from_numpy(clip_pixels)[None])
    assert_near(portrait.clip_tokens, torch.cat([torch.zeros_like(tokens), tokens]), ROUNDING)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1
    z = VAEEncoder(small["vae"])(pixels)
    expected = Reference(small["referencenet"], small["unet"])(z, tokens)[::4]
    blocks = [transformer.transformer_blocks[0] for _, transformer in small["unet"].transformers()]
    for block, rows, key in zip(blocks, portrait.reference, expected, strict=True):
        assert_near(block.attn1.to_k(rows[1:]), key, ROUNDING)
    images = torch.from_numpy(landmarks).permute(0, 3, 1, 2) / 255
    assert_near(features[0].transpose(0, 1), LandmarkGuider(small["lmk_guider"])(images), ROUNDING)
    assert_near(video, VAEDecoder(small["vae"])(latents), ROUNDING)


@pytest.mark.parametrize("guided", [True, False])
def test_evaluation_equals_the_exported_denoiser(
    small: Mapping[str, nn.Module], baseline: Baseline, guided: bool
) -> None:
    generator = torch.Generator().manual_seed(4)
    z = torch.randn(1, 4, 16, 12, generator=generator)
    tokens = torch.cat([torch.zeros(1, 17, 40), torch.randn(1, 17, 40, generator=generator)])
    latents, features = random_latents(3), random_features(3)
    portrait = Portrait(baseline.reference_tokens(z, tokens), tokens)
    v = baseline.evaluate(latents, 700, features, portrait, guided=guided)

    keys_and_values = Reference(small["referencenet"], small["unet"])(z, tokens[1:])
    denoiser = Denoiser(small["unet"], guided=guided)
    expected = torch.cat(denoiser(latents, torch.tensor([700]), features[0].transpose(0, 1), *keys_and_values))
    assert_near(v, expected, ROUNDING)
    if guided:
        assert (v[0] - v[1]).abs().mean() > 100 * ROUNDING  # else the portrait could be ignored unnoticed


@pytest.mark.parametrize("guidance", [1.0, 3.5])
def test_loop_equals_the_runtimes_loop(baseline: Baseline, portrait: Portrait, guidance: float) -> None:
    noise, features = random_latents(5).numpy(), random_features(5)
    options = Options(steps=3, guidance=guidance, windows="context", window_size=3, window_overlap=1)
    steps = schedule(options.steps, baseline.scheduler)

    def evaluate(x: Any, timestep: int, frames: NDArray[np.int64]) -> tuple[Any, Any]:
        v = baseline.evaluate(torch.from_numpy(x), timestep, features[:, :, frames.tolist()], portrait)
        return v[:1].numpy(), v[1:].numpy()

    windows = blended_windows(5, "context", 3, 1)
    workspace = host.HostWorkspace(evaluate, steps.timesteps.tolist(), windows, guidance)
    expected = denoise.denoise(workspace, steps, forecast.jump_table(steps), windows, noise)
    assert_near(baseline.denoise(portrait, features, noise, options), expected, ROUNDING)


@pytest.mark.parametrize(("name", "value"), [("forecast", "reuse"), ("solver", "unipc")])
def test_neither_a_forecast_nor_a_solver_is_silently_ignored(
    baseline: Baseline, portrait: Portrait, name: str, value: str
) -> None:
    options = Options(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=f"{name}='{value}' is not valid for the baseline"):
        baseline.denoise(portrait, random_features(1), random_latents(1).numpy(), options)


def test_evaluation_stays_in_the_networks_precision(small: Mapping[str, nn.Module], portrait: Portrait) -> None:
    half = networks.build(SMALL, "unet").to(torch.bfloat16)
    half.load_state_dict(small["unet"].state_dict())
    baseline = Baseline({**small, "unet": half}, SchedulerConfig())
    narrow = Portrait(tuple(rows.bfloat16() for rows in portrait.reference), portrait.clip_tokens.bfloat16())
    v = baseline.evaluate(random_latents(2).bfloat16(), 500, random_features(2).bfloat16(), narrow)
    assert v.dtype == torch.bfloat16 and v.isfinite().all()


class HalfMasks(TorchFunctionMode):
    """On the meta device masks have no values: taken as true in their first half, which is what guidance uses."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function in (Tensor.__getitem__, Tensor.__setitem__) and getattr(args[1], "dtype", None) == torch.bool:
            args = (args[0], slice(len(args[1]) // 2), *args[2:])
        return function(*args, **(kwargs or {}))


# per frame at 512 x 512: the reference implementation's count, and the conditional half's own
@pytest.mark.parametrize(("guided", "gigaflops"), [(True, 2718.8), (False, 1272.6)])
def test_full_size_evaluation_costs_what_the_public_codes_costs(guided: bool, gigaflops: float) -> None:
    frames = 16
    with torch.device("meta"):
        unet = networks.build(ModelConfig(), "unet")
        channels = ModelConfig().unet.block_out_channels
        reference = tuple(torch.empty(2, 4096 >> (2 * level), channels[level]) for level in LAYER_LEVELS)
        portrait = Portrait(reference, torch.empty(2, 257, 1024))
        latents, features = torch.empty(1, 4, frames, 64, 64), torch.empty(1, 320, frames, 64, 64)
    baseline = Baseline({"unet": unet}, SchedulerConfig())
    with HalfMasks(), FlopCounterMode(display=False) as counter:
        baseline.evaluate(latents, 500, features, portrait, guided=guided)
    assert counter.get_total_flops() / frames / 1e9 == pytest.approx(gigaflops, abs=0.1)
