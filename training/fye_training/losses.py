"""Losses: the paper's fine-grained facial loss, and the VAE's losses."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from fye_rt.schedule import SchedulerConfig, alpha_bar


def facial_loss(
    prediction: Tensor, target: Tensor, expression: Tensor, face: Tensor, weights: tuple[float, float]
) -> Tensor:
    """Squared error, with extra weight inside the expression mask and inside the face mask.

        mean((p - t)^2) + w_e mean(M_e (p - t)^2) + w_f mean(M_f (p - t)^2)

    Follow-Your-Emoji-Faster (arXiv 2509.16630), fine-grained facial loss. Eyes, brows and mouth are a small part of
    a frame, but the viewer looks at them.

    Args:
        prediction: (..., 4, h, w), the network's v.
        target: the same shape.
        expression: (..., h, w) in [0, 1], share of a latent pixel in the regions of eyes, brows and mouth.
        face: (..., h, w) in [0, 1], the same for the face.
        weights: weights of expression and face.

    Returns:
        Scalar.
    """
    error = (prediction - target).square().mean(dim=-3)
    return (error * emphasis(expression, face, weights)).mean()


def emphasis(expression: Tensor, face: Tensor, weights: tuple[float, float]) -> Tensor:
    """Weight of a latent pixel: 1, more in the face, and most in eyes, brows and mouth."""
    return 1 + weights[0] * expression + weights[1] * face


def reconstruction_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """L1 between pictures, between their means over 8x8 pixels, and between their edges.

    The means teach the latents colours early, where L1 alone takes thousands of steps; the edges stay sharp through
    the differences of neighbours.

    Args:
        prediction: (N, 3, H, W).
        target: the same shape.
        weight: (N, H/8, W/8), weight of 8x8 pixels (`emphasis`).

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
    """KL divergence of N(mean, exp(log_variance)) from N(0, 1), in nats per value."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


def shared_noise(shape: Sequence[int], random: torch.Generator) -> Tensor:
    """Standard normal noise of clips (P, T, C, h, w), a part of which the frames of a clip share.

    The shared part of the variance is drawn for each clip, uniformly from 0 to 1; see `fye_rt.noise.frame_noise`.
    """
    share = torch.rand((shape[0], 1, 1, 1, 1), generator=random)
    common = torch.randn((shape[0], 1, *shape[2:]), generator=random)
    return share.sqrt() * common + (1 - share).sqrt() * torch.randn(*shape, generator=random)


def v_target(clean: Tensor, noise: Tensor, power: Tensor) -> tuple[Tensor, Tensor]:
    """Noisy latents and the v to predict.

    x = sqrt(a) x0 + sqrt(1 - a) e,  v = sqrt(a) e - sqrt(1 - a) x0  (Salimans and Ho 2022, appendix D)

    Args:
        clean: (..., 4, h, w).
        noise: the same shape, standard normal.
        power: alpha_bar in [0, 1], broadcast against both; at 0 the input is pure noise and v is -x0.
    """
    signal, spread = power.sqrt(), (1 - power).sqrt()
    return signal * clean + spread * noise, signal * noise - spread * clean


def alpha_bars() -> Tensor:
    """Cumulative signal power of the 1000 training timesteps, float32, the last one 0, from the runtime's schedule."""
    return torch.from_numpy(alpha_bar(SchedulerConfig())).float()
