import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import nn

from fye_export import networks
from fye_export.config import NETWORKS, ModelConfig, UNetConfig
from fye_export.graphs import ImageEncoder, VAEDecoder, VAEEncoder
from fye_export.random_checkpoint import PRESETS
from tests import golden_files

# of the released state dicts: the number of entries, and SHA-256 over lines of "name shape" in the order of names
MANIFESTS = {
    "referencenet": (666, "16e6cfc525700a955cbb3d820deffb8440f9a13e39f104e727c000d6f2a6183c"),
    "unet": (1276, "e68db00e58152705379ed2bf4e31ad5fda9d66536a0ba8e3478d1ba44454022a"),
    "lmk_guider": (16, "e826fd08fa0c0f748f62462f0762c36f73cbd6fc9baf5c0dffbd90d8d4395825"),
}
TINY = PRESETS["tiny"]
ROUNDING = 1e-5  # float32 in another order, on values of size 1


def full_size(name: str) -> dict[str, list[int]]:
    with torch.device("meta"):
        return {key: list(tensor.shape) for key, tensor in networks.build(ModelConfig(), name).state_dict().items()}


def digest(shapes: Mapping[str, list[int]]) -> tuple[int, str]:
    lines = "".join(f"{key} {shape}\n" for key, shape in sorted(shapes.items()))
    return len(shapes), hashlib.sha256(lines.encode()).hexdigest()


def random_network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return networks.build(TINY, name)


@pytest.mark.parametrize("name", MANIFESTS)
def test_full_size_networks_have_the_released_keys_and_shapes(name: str) -> None:
    assert digest(full_size(name)) == MANIFESTS[name]


@pytest.mark.parametrize("name", MANIFESTS)
def test_full_size_networks_match_the_manifest_key_for_key_and_shape_for_shape(name: str, shared: Path) -> None:
    manifest = json.loads((shared / "reference" / f"manifest_{name}.json").read_text())
    shapes = {key: shape for key, shape, _ in manifest}
    assert full_size(name) == shapes and digest(shapes) == MANIFESTS[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_built_networks_are_frozen_and_in_eval_mode(name: str) -> None:
    network = random_network(name)
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_network_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'controlnet'"):
        networks.build(TINY, "controlnet")


@pytest.mark.parametrize("channels", [32, 64])
def test_positional_encodings_are_those_of_the_reference_implementation(channels: int) -> None:
    config = ModelConfig(unet=UNetConfig(block_out_channels=(channels,) * 4, norm_num_groups=8))
    state = networks.build(config, "unet").state_dict()
    recorded = torch.from_numpy(golden_files.read("ckpt")[f"pe.{channels}"])
    encodings = [tensor for key, tensor in state.items() if key.endswith(golden_files.PE)]
    assert len(encodings) == 42
    # angles reach 31, where float32 has steps of 2e-6
    assert all(float((encoding - recorded).abs().max()) < 4e-6 for encoding in encodings)


def test_the_guider_sees_one_frame_at_a_time() -> None:
    guider = random_network("lmk_guider")
    images = torch.rand(3, 3, 64, 64)
    alone = torch.cat([guider(image[None]) for image in images])
    torch.testing.assert_close(guider(images), alone, atol=ROUNDING, rtol=0)


def test_clip_tokens_equal_those_of_transformers_before_the_last_norm() -> None:
    encoder = random_network("image_encoder")
    pixels = torch.randn(1, 3, 56, 56)
    tokens = ImageEncoder(encoder)(pixels)
    torch.testing.assert_close(tokens, encoder(pixels).last_hidden_state, atol=ROUNDING, rtol=0)
    assert tokens.shape == (1, TINY.image_encoder.tokens, TINY.image_encoder.hidden_size)


def test_the_vae_encodes_as_diffusers_does() -> None:
    pixels = torch.rand(1, 3, 64, 96) * 2 - 1
    expected = random_network("vae").encode(pixels).latent_dist.mean * 0.18215
    torch.testing.assert_close(VAEEncoder(random_network("vae"))(pixels), expected, atol=ROUNDING, rtol=0)


def test_the_vae_decodes_frames_as_diffusers_does() -> None:
    latents = torch.randn(1, 4, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    vae = random_network("vae")
    frames = [vae.decode(latents[:, :, i] / 0.18215).sample for i in range(3)]
    expected = (torch.cat(frames) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    torch.testing.assert_close(VAEDecoder(random_network("vae"))(latents), expected, atol=ROUNDING, rtol=0)
