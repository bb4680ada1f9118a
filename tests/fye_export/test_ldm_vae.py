import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

from fye_export import ldm_vae, networks, state_dict
from fye_export.config import ModelConfig, VAEConfig
from tests.fye_export import repacks
from tests.fye_export.checkpoint_files import TINY, State

# every level has another width, so that a level in the wrong place has the wrong shape
WIDE = VAEConfig(block_out_channels=(4, 8, 12, 16), layers_per_block=2, norm_num_groups=4)


def vae(config: VAEConfig) -> State:
    shapes = networks.build(ModelConfig(vae=config), "vae").state_dict()
    generator = torch.Generator().manual_seed(0)
    return {key: torch.rand(value.shape, generator=generator) for key, value in shapes.items()}


@pytest.mark.parametrize("config", [TINY.vae, WIDE])
def test_ldms_names_become_those_of_diffusers(config: VAEConfig) -> None:
    state = vae(config)
    old = repacks.ldm(state)
    assert ldm_vae.is_ldm(old) and not ldm_vae.is_ldm(state)
    assert len(old.keys() - state.keys()) > 40
    renamed = state_dict.modern_vae(ldm_vae.rename(old))
    assert renamed.keys() == state.keys()
    assert all(torch.equal(renamed[key], state[key]) for key in state)


def test_the_names_are_those_that_diffusers_own_converter_gives() -> None:
    old = repacks.ldm(vae(WIDE))
    levels = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    expected = convert_ldm_vae_checkpoint(old, levels)
    renamed = state_dict.modern_vae(ldm_vae.rename(old))
    assert renamed.keys() == expected.keys()
    assert all(torch.equal(renamed[key], expected[key]) for key in expected)


def test_a_name_that_is_there_in_both_layouts_stays_so_that_it_is_surplus() -> None:
    both = {"encoder.norm_out.bias": 1, "encoder.conv_norm_out.bias": 2, "quant_conv.bias": 3}
    assert ldm_vae.rename(both) == both
    assert ldm_vae.rename({"encoder.down.0.attn.0.q.bias": 1}) == {"encoder.down.0.attn.0.q.bias": 1}
