"""Building blocks of the UNets: attention over positions and over frames, with the checkpoint's key names."""

import math
from collections.abc import Callable

import torch
from diffusers.models.attention import FeedForward
from torch import Tensor, nn
from torch.nn import functional as F

from fye_export.config import MAX_FRAMES, MOTION_HEADS, MOTION_NORM_GROUPS, UNetConfig

# Maps the tokens of a transformer block: (layer 0-15, block, tokens (N, H*W, C)) -> tokens
Attend = Callable[[int, "TransformerBlock", Tensor], Tensor]


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Compute softmax attention over tokens, scaled by head_dim**-0.5.

    Args:
        query: (N, Lq, C), heads side by side in C.
        key: (N, Lk, C).
        value: (N, Lk, C).
        heads: number of heads; C / heads is the head dimension.

    Returns:
        (N, Lq, C). During export, one ONNX Attention node over these very three tensors, so that every engine can
        lower it in its own way.
    """
    if torch.compiler.is_exporting():
        return torch.onnx.ops.attention(query, key, value, q_num_heads=heads, kv_num_heads=heads)[0]
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    if q.is_cpu and torch.is_autocast_enabled("cpu"):
        # training on a CPU: PyTorch's backward pass takes two to three times as long in bfloat16
        with torch.autocast("cpu", enabled=False):
            attended = F.scaled_dot_product_attention(q.float(), k.float(), v.float())
    else:
        attended = F.scaled_dot_product_attention(q, k, v)
    return attended.transpose(1, 2).flatten(2)


class Projections(nn.Module):
    """The four linear layers of an attention; q, k and v have no bias."""

    def __init__(self, channels: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context, channels, bias=False)
        self.to_v = nn.Linear(context, channels, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])


class Attention(Projections):
    """Attention among the positions of a frame, or to the CLIP tokens."""

    def forward(self, query: Tensor, context: Tensor) -> Tensor:
        """Attend from `query` (N, Lq, C) to `context` (N, Lk, context width); returns (N, Lq, C)."""
        return self.to_out[0](attention(self.to_q(query), self.to_k(context), self.to_v(context), self.heads))


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention to CLIP tokens and a GEGLU feed-forward, each after its layer norm."""

    def __init__(self, channels: int, context: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = Attention(channels, context, heads)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels, activation_fn="geglu")


class TruncatedBlock(nn.Module):
    """The only used part of the reference network's last transformer block: its first norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)


class SpatialTransformer(nn.Module):
    """Attention among the positions of each frame, with a residual connection."""

    def __init__(self, config: UNetConfig, channels: int, *, truncated: bool = False) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(config.norm_num_groups, channels, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        context, heads = config.cross_attention_dim, config.heads
        block = TruncatedBlock(channels) if truncated else TransformerBlock(channels, context, heads)
        self.transformer_blocks = nn.ModuleList([block])
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def tokens(self, x: Tensor) -> Tensor:
        """Normalise and project: (N, C, h, w) -> (N, h*w, C)."""
        return self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)

    def forward(self, x: Tensor, layer: int, attend: Attend) -> Tensor:
        """(N, C, h, w) -> (N, C, h, w)."""
        tokens = attend(layer, self.transformer_blocks[0], self.tokens(x))
        return x + self.proj_out(tokens.transpose(1, 2).unflatten(2, x.shape[2:]))


class PositionalEncoding(nn.Module):
    """Sinusoids over the frames of a window, stored as a buffer because the checkpoint contains it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        position = torch.arange(MAX_FRAMES, dtype=torch.float32)[:, None]
        frequency = torch.exp(torch.arange(0, channels, 2, dtype=torch.float32) * (-math.log(10000.0) / channels))
        pe = torch.stack([torch.sin(position * frequency), torch.cos(position * frequency)], dim=2)
        self.register_buffer("pe", pe.flatten(1)[None])


class TemporalAttention(Projections):
    """Self-attention among the frames at one position."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, MOTION_HEADS)
        self.pos_encoder = PositionalEncoding(channels)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(positions * F, C) -> (positions * F, C); two dimensions, because such a linear layer exports as one Gemm."""
        rows = (x.unflatten(0, (-1, frames)) + self.pos_encoder.pe[:, :frames]).flatten(0, 1)
        q, k, v = (project(rows).unflatten(0, (-1, frames)) for project in (self.to_q, self.to_k, self.to_v))
        return self.to_out[0](attention(q, k, v, self.heads).flatten(0, 1))


class TemporalBlock(nn.Module):
    """Two self-attentions over frames and a GEGLU feed-forward, each after its layer norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList([TemporalAttention(channels) for _ in range(2)])
        self.norms = nn.ModuleList([nn.LayerNorm(channels) for _ in range(2)])
        self.ff = FeedForward(channels, activation_fn="geglu")
        self.ff_norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(positions * F, C) -> (positions * F, C), the frames of a position side by side."""
        for attend, norm in zip(self.attention_blocks, self.norms, strict=True):
            x = x + attend(norm(x), frames)
        return x + self.ff(self.ff_norm(x))


class TemporalTransformer(nn.Module):
    """AnimateDiff's motion transformer with a residual connection; only here do frames influence each other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(min(MOTION_NORM_GROUPS, channels), channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([TemporalBlock(channels)])
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B*F, C, h, w), frames of one clip side by side -> the same shape."""
        _, c, h, w = x.shape
        # permute to position-major tokens and back once, instead of around each of the five operations
        y = self.norm(x).reshape(-1, frames, c, h * w).permute(0, 3, 1, 2).reshape(-1, c)
        y = self.proj_out(self.transformer_blocks[0](self.proj_in(y), frames))
        y = y.reshape(-1, h * w, frames, c).permute(0, 2, 3, 1).reshape(x.shape)
        return x + y


class MotionModule(nn.Module):
    """Wrapper around a temporal transformer, for the checkpoint's key names."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.temporal_transformer = TemporalTransformer(channels)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B*F, C, h, w), frames of one clip side by side -> the same shape."""
        return self.temporal_transformer(x, frames)
