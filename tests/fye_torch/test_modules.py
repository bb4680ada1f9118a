"""Networks with the kernels switched in compute what they computed before."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from fye_export import graphs, networks, random_checkpoint
from fye_rt.bundle import symbols
from fye_torch.modules import KERNELS, PLAIN, Denoiser, Norm, Operations, Pointwise, Resnet, Temporal, switched
from tests.fye_kernels.conftest import exact_float32, poisoned  # noqa: F401 (fixtures)

CONFIG = random_checkpoint.PRESETS["tiny"]
HEIGHT, WIDTH = 4, 6
OPERATIONS = pytest.mark.parametrize("operations", [PLAIN, KERNELS], ids=["plain", "kernels"])
BOUND = 2e-4  # of the largest result: float32 in another order of additions, through a hundred layers


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def network(name: str, device: str) -> nn.Module:
    torch.manual_seed(0)
    built = networks.build(CONFIG, name)
    for parameter in built.parameters():
        parameter += 0.1 * torch.randn_like(parameter)  # no layer is neutral, as fresh ones may be
    return built.to(device, memory_format=torch.channels_last)


def given(device: str, frames: int) -> tuple[Tensor, ...]:
    unet = CONFIG.unet
    sizes = symbols(frames, 8 * HEIGHT, 8 * WIDTH)
    random = torch.Generator().manual_seed(1)
    portrait = []
    for level in graphs.LAYER_LEVELS:
        for tokens in (sizes[f"tokens{level}"],) * 2 + (CONFIG.image_encoder.tokens,) * 2:
            portrait.append(torch.randn(1, tokens, unet.block_out_channels[level], generator=random))
    latents = torch.randn(1, 4, frames, HEIGHT, WIDTH, generator=random)
    features = torch.randn(frames, unet.block_out_channels[0], HEIGHT, WIDTH, generator=random)
    return tuple(x.to(device) for x in (latents, torch.tensor([500]), features, *portrait))


def close(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> None:
    assert len(ours) == len(theirs) > 0
    for tensor, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(tensor, expected, rtol=0, atol=BOUND * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("operations", "guided", "frames"),
    [(PLAIN, True, 3), (PLAIN, False, 2), pytest.param(KERNELS, True, 1, marks=pytest.mark.slow)],
    ids=["plain, guided", "plain", "kernels, guided"],
)
def test_the_denoiser_with_kernels_computes_the_same(
    device: str, operations: Operations, guided: bool, frames: int
) -> None:
    unet, inputs = network("unet", device), given(device, frames)
    expected = graphs.Denoiser(unet, guided=guided)(*inputs)
    made = Denoiser(switched(unet, operations), guided=guided, operations=operations)(*inputs)
    assert len(made) == 1 + guided
    close(made, expected)


def test_positional_encodings_follow_the_length_of_the_clip(device: str) -> None:
    unet = network("unet", device)
    plain, made = graphs.Denoiser(unet), Denoiser(switched(unet, PLAIN), operations=PLAIN)
    for frames in (2, 3):
        inputs = given(device, frames)
        close(made(*inputs), plain(*inputs))


@OPERATIONS
def test_the_reference_network_with_kernels_computes_the_same(device: str, operations: Operations) -> None:
    random = torch.Generator().manual_seed(2)
    latents = torch.randn(1, 4, HEIGHT, WIDTH, generator=random).to(device)
    tokens = torch.randn(1, CONFIG.image_encoder.tokens, CONFIG.unet.clip_dim, generator=random).to(device)
    nets = network("referencenet", device), network("unet", device)
    expected = graphs.Reference(*nets)(latents, tokens)
    made = graphs.Reference(*(switched(net, operations) for net in nets))(latents, tokens)
    close(made, expected)


@OPERATIONS
def test_the_vae_with_kernels_computes_the_same(device: str, operations: Operations) -> None:
    random = torch.Generator().manual_seed(3)
    vae = network("vae", device)
    copied = switched(vae, operations)
    latents = torch.randn(1, 4, 2, 3, 4, generator=random).to(device)
    pixels = torch.randn(1, 3, 24, 32, generator=random).to(device)
    for graph, tensor in ((graphs.VAEDecoder, latents), (graphs.VAEEncoder, pixels)):
        close((graph(copied)(tensor),), (graph(vae)(tensor),))


def test_a_switched_network_shares_all_weights() -> None:
    unet = network("unet", "cpu")
    copied = switched(unet)
    ours, theirs = ({tensor.data_ptr() for tensor in net.parameters()} for net in (unet, copied))
    assert theirs <= ours
    attention = copied.get_submodule("down_blocks.0.attentions.0.transformer_blocks.0.attn1")
    assert attention.joined.data_ptr() == attention.to_q.weight.data_ptr()  # no copy beside them
    assert switched(unet).get_submodule("mid_block.resnets.0").conv1.weight.data_ptr() in ours


def test_switched_networks_hold_no_module_that_a_kernel_replaces() -> None:
    unet, vae = switched(network("unet", "cpu")), switched(network("vae", "cpu"))
    kinds = [type(module) for net in (unet, vae) for module in net.modules()]
    assert {Norm, Pointwise, Resnet, Temporal} <= set(kinds)
    assert nn.GroupNorm not in {type(module) for module in unet.modules()}
    assert not [m for net in (unet, vae) for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
