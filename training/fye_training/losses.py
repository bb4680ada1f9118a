"""Losses: the fine-grained facial loss of the paper, and the VAE's."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from fye_rt.schedule import SchedulerConfig, alpha_bar


def facial_loss(
    prediction: Tensor, target: Tensor, expression: Tensor, face: Tensor, weights: tuple[float, float]
) -> Tensor:
    """Squared error, counted again inside the expression mask and inside the face mask.

        mean((p - t)^2) + w_e mean(M_e (p - t)^2) + w_f mean(M_f (p - t)^2)

    Follow-Your-Emoji-Faster (arXiv 2509.16630), fine-grained facial loss. Eyes, brows and mouth are a small part of
    a frame, and carry what the viewer looks at.

    Args:
        prediction: (..., 4, h, w), the network's v.
        target: the same shape.
        expression: (..., h, w) in [0, 1], how much of a latent pixel lies in the regions of eyes, brows and mouth.
        face: (..., h, w) in [0, 1], the same for the face.
        weights: of expression and face.

    Returns:
        Scalar.
    """
    error = (prediction - target).square().mean(dim=-3)
    return (error * emphasis(expression, face, weights)).mean()


def emphasis(expression: Tensor, face: Tensor, weights: tuple[float, float]) -> Tensor:
    """How much a latent pixel counts: 1, more in the face, and more again in eyes, brows and mouth."""
    in_expression, in_face = weights
    return 1 + in_expression * expression + in_face * face


def reconstruction_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """L1 between pictures, between their means over 8x8 pixels, and between their edges.

    The means make the latents learn colours early, which L1 alone does after thousands of steps; the differences keep
    edges sharp.

    Args:
        prediction: (N, 3, H, W).
        target: the same shape.
        weight: (N, H/8, W/8), how much 8x8 pixels count (`emphasis`).

    Returns:
        Scalar.
    """
    error = prediction - target
    coarse = weight[:, None]
    fine = coarse.repeat_interleave(8, dim=-1).repeat_interleave(8, dim=-2)
    columns = (error.diff(dim=-1).abs() * fine[..., 1:]).mean()
    rows = (error.diff(dim=-2).abs() * fine[..., 1:, :]).mean()
    return (error.abs() * fine).mean() + (F.avg_pool2d(error, 8).abs() * coarse).mean() + columns + rows


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """From N(mean, exp(log_variance)) to N(0, 1), in nats per value."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


def shared_noise(shape: Sequence[int], random: torch.Generator) -> Tensor:
    """Standard normal noise of clips (P, T, C, h, w), whose frames have a part of it in common.

    That part of the variance is drawn for each clip, evenly from 0 to 1; see `fye_rt.noise.frame_noise`.
    """
    share = torch.rand((shape[0], 1, 1, 1, 1), generator=random)
    common = torch.randn((shape[0], 1, *shape[2:]), generator=random)
    return share.sqrt() * common + (1 - share).sqrt() * torch.randn(*shape, generator=random)


def v_target(clean: Tensor, noise: Tensor, power: Tensor) -> tuple[Tensor, Tensor]:
    """Noisy latents and the v to be predicted.

    x = sqrt(a) x0 + sqrt(1 - a) e,  v = sqrt(a) e - sqrt(1 - a) x0  (Salimans and Ho 2022, appendix D)

    Args:
        clean: (..., 4, h, w).
        noise: the same shape, standard normal.
        power: alpha_bar, broadcasts against both, in [0, 1]; at 0 the input is pure noise and v is -x0.
    """
    signal, spread = power.sqrt(), (1 - power).sqrt()
    return signal * clean + spread * noise, signal * noise - spread * clean


def alpha_bars() -> Tensor:
    """Cumulative signal power of the 1000 training timesteps, float32, the last one 0: the runtime's own schedule."""
    return torch.from_numpy(alpha_bar(SchedulerConfig())).float()
