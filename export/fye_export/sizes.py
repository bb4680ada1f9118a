"""Infers a model's sizes from its weights and config.json files."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from fye_export.config import (
    MOTION_HEADS,
    MOTION_NORM_GROUPS,
    CLIPConfig,
    GuiderConfig,
    ModelConfig,
    UNetConfig,
    VAEConfig,
)
from fye_rt.errors import CheckpointError

T = TypeVar("T")
RELEASED = "the released settings"  # what messages call the settings of a network that came without config.json
_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "image_encoder": {"num_attention_heads": CLIPConfig().num_attention_heads}
}


@dataclass(frozen=True, slots=True)
class Source:
    """The weights of one network, and its config.json if the release has one.

    Attributes:
        weights: tensors under their state-dict names.
        weights_file: name of the weights file in messages.
        settings: the parsed config.json.
        settings_file: name of config.json in messages.
    """

    weights: Mapping[str, Tensor]
    weights_file: str
    settings: Mapping[str, Any]
    settings_file: str = ""

    def size(self, key: str, axis: int) -> int:
        """Return the length of one axis of a weight."""
        if key not in self.weights:
            raise CheckpointError(f"{self.weights_file}: {key} is missing; use the file as it was released")
        shape = tuple(self.weights[key].shape)
        if axis >= len(shape) or 0 in shape:
            raise CheckpointError(f"{self.weights_file}: {key} has the shape {shape}, which fits no size of the model")
        return shape[axis]

    def count(self, prefix: str) -> int:
        """Count the modules `prefix.0`, `prefix.1`, ... up to the first gap."""
        return next(i for i in itertools.count() if not any(key.startswith(f"{prefix}.{i}.") for key in self.weights))

    def agreed(self, name: str, measured: T, key: str) -> T:
        """Return `measured`, the value that the weight `key` shows; refuse a config.json that states another."""
        stated = self.settings.get(name, measured)
        if isinstance(stated, list):
            stated = tuple(stated)
        if stated != measured:
            raise CheckpointError(
                f"{self.settings_file} states {name} = {stated}, but {key} in {self.weights_file} makes it "
                f"{measured}; the two files belong to different models"
            )
        return measured

    def channels(self, keys: list[str]) -> tuple[int, ...]:
        """Return `block_out_channels`, the first axes of `keys`: weights of the first convolution of each level."""
        measured = tuple(self.size(key, 0) for key in keys)
        stated = self.settings.get("block_out_channels")
        levels = zip(keys, measured, stated if isinstance(stated, list) else (), strict=False)
        differing = next((key for key, width, expected in levels if width != expected), keys[-1])
        return self.agreed("block_out_channels", measured, differing)

    def whole(self, name: str, default: int | None = None) -> int:
        """Read a positive integer that only config.json states."""
        value = self.settings.get(name, default)
        if type(value) is not int or value < 1:
            raise CheckpointError(f"{self.settings_file}: {name} must be a positive integer, found {value!r}")
        return value

    def real(self, name: str, default: float) -> float:
        """Read a positive number that only config.json states."""
        value = self.settings.get(name, default)
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise CheckpointError(f"{self.settings_file}: {name} must be a positive number, found {value!r}")
        return float(value)

    def choice(self, name: str, allowed: tuple[T, ...]) -> T:
        """Read a setting with few implemented values, of which the first is the default."""
        value = self.settings.get(name, allowed[0])
        if value not in allowed:
            choices = " or ".join(map(repr, allowed))
            raise CheckpointError(f"{self.settings_file}: {name} is {value!r}; this model has {choices}")
        return allowed[allowed.index(value)]


def infer(sources: Mapping[str, Source]) -> ModelConfig:
    """Infer the sizes of all networks.

    Raises:
        CheckpointError: config.json and weights, or two networks, contradict each other, or a size is impossible.
    """
    unet = _unet(sources["unet"])
    guider = _guider(sources["lmk_guider"])
    vae = _vae(sources["vae"])
    clip = _clip(sources["image_encoder"])
    for left_name, left, right_name, right in (
        ("unet clip_fc.weight", unet.clip_dim, "image_encoder hidden_size", clip.hidden_size),
        ("unet conv_in.weight", unet.in_channels, "vae latent_channels", vae.latent_channels),
        ("unet conv_in.weight", unet.block_out_channels[0], "lmk_guider conv_out.weight", guider.out_channels),
    ):
        if left != right:
            raise CheckpointError(
                f"{left_name} has {left} channels but {right_name} has {right}; the files belong to different models"
            )
    return ModelConfig(unet=unet, lmk_guider=guider, vae=vae, image_encoder=clip)


def network(name: str, source: Source) -> UNetConfig | VAEConfig | CLIPConfig:
    """Infer the sizes of one of the networks that have a config.json: "unet", "vae" or "image_encoder".

    Raises:
        CheckpointError: config.json and weights contradict each other, or a size is impossible.
    """
    return _unet(source) if name == "unet" else _vae(source) if name == "vae" else _clip(source)


def released(name: str, weights: Mapping[str, Tensor], file: str) -> Source | None:
    """Give a network without config.json the released settings, if its weights have exactly the released sizes.

    Heads, groups and epsilons are in no weight's shape. In a model of other sizes they may differ, and a wrong number
    spoils the result without an error.

    Args:
        name: "unet", "vae" or "image_encoder".
        weights: its tensors.
        file: name of the weights file in messages.

    Returns:
        The weights with the released settings; None for other sizes.

    Raises:
        CheckpointError: a weight that shows a size is missing.
    """
    heads = {"num_attention_heads": CLIPConfig().num_attention_heads} if name == "image_encoder" else {}
    source, model = Source(weights, file, heads, RELEASED), ModelConfig()
    keys, widths = {
        "unet": ([f"down_blocks.{i}.resnets.0.conv1.weight" for i in range(4)], model.unet.block_out_channels),
        "vae": ([f"encoder.down_blocks.{i}.resnets.0.conv1.weight" for i in range(4)], model.vae.block_out_channels),
        "image_encoder": (["vision_model.embeddings.class_embedding"], (model.image_encoder.hidden_size,)),
    }[name]
    # widths first: heads or groups need not even divide others
    if tuple(source.size(key, 0) for key in keys) != widths:
        return None
    return source if network(name, source) == getattr(model, name) else None


def _unet(source: Source) -> UNetConfig:
    for name, value in (
        ("layers_per_block", 2),
        ("act_fn", "silu"),
        ("downsample_padding", 1),
        ("mid_block_scale_factor", 1),
        ("center_input_sample", False),
    ):
        source.choice(name, (value,))
    a, b, c, d = channels = source.channels([f"down_blocks.{i}.resnets.0.conv1.weight" for i in range(4)])
    context = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    config = UNetConfig(
        block_out_channels=(a, b, c, d),
        # an old diffusers name for the number of heads, not their dimension
        heads=source.whole("attention_head_dim", 8),
        norm_num_groups=source.whole("norm_num_groups", 32),
        norm_eps=source.real("norm_eps", 1e-5),
        cross_attention_dim=source.agreed("cross_attention_dim", source.size(context, 1), context),
        clip_dim=source.size("clip_fc.weight", 1),
        in_channels=source.agreed("in_channels", source.size("conv_in.weight", 1), "conv_in.weight"),
        flip_sin_to_cos=source.choice("flip_sin_to_cos", (True, False)),
        freq_shift=source.choice("freq_shift", (0, 1)),
    )
    for divisor, name in (
        (config.heads, f"{config.heads} heads (attention_head_dim)"),
        (config.norm_num_groups, f"norm_num_groups = {config.norm_num_groups}"),
        (MOTION_HEADS, f"the motion modules' {MOTION_HEADS} heads"),
    ):
        _divides(divisor, channels, f"{source.settings_file}: {name}")
    wide = tuple(c for c in channels if c > MOTION_NORM_GROUPS)
    _divides(MOTION_NORM_GROUPS, wide, f"{source.settings_file}: the motion modules' {MOTION_NORM_GROUPS} norm groups")
    return config


def _guider(source: Source) -> GuiderConfig:
    first, *wider = (source.size(key, 0) for key in ("conv_in.weight", *(f"blocks.{i}.weight" for i in (1, 3, 5))))
    return GuiderConfig(
        block_out_channels=(first, wider[0], wider[1], wider[2]), out_channels=source.size("conv_out.weight", 0)
    )


def _vae(source: Source) -> VAEConfig:
    for name, value in (("act_fn", "silu"), ("in_channels", 3), ("out_channels", 3)):
        source.choice(name, (value,))
    levels = range(max(1, source.count("encoder.down_blocks")))
    channels = source.channels([f"encoder.down_blocks.{i}.resnets.0.conv1.weight" for i in levels])
    resnets = "encoder.down_blocks.0.resnets"
    config = VAEConfig(
        block_out_channels=channels,
        layers_per_block=source.agreed("layers_per_block", source.count(resnets), f"the number of {resnets}"),
        norm_num_groups=source.whole("norm_num_groups", 32),
        latent_channels=source.agreed(
            "latent_channels", source.size("post_quant_conv.weight", 0), "post_quant_conv.weight"
        ),
        scaling_factor=source.real("scaling_factor", 0.18215),
    )
    _divides(config.norm_num_groups, channels, f"{source.settings_file}: norm_num_groups = {config.norm_num_groups}")
    return config


def _clip(source: Source) -> CLIPConfig:
    source.choice("num_channels", (3,))
    prefix = "vision_model.embeddings"
    patch, position = f"{prefix}.patch_embedding.weight", f"{prefix}.position_embedding.weight"
    layers = "vision_model.encoder.layers"
    width, fc1 = f"{prefix}.class_embedding", f"{layers}.0.mlp.fc1.weight"
    patch_size = source.agreed("patch_size", source.size(patch, 2), patch)
    side = math.isqrt(source.size(position, 0) - 1)
    image_size = source.whole("image_size", side * patch_size)
    if image_size // patch_size != side or side * side + 1 != source.size(position, 0):
        raise CheckpointError(
            f"{source.settings_file}: image_size = {image_size} and patch_size = {patch_size} do not make the "
            f"{source.size(position, 0)} rows of {position} in {source.weights_file}"
        )
    config = CLIPConfig(
        hidden_size=source.agreed("hidden_size", source.size(width, 0), width),
        intermediate_size=source.agreed("intermediate_size", source.size(fc1, 0), fc1),
        num_hidden_layers=source.agreed("num_hidden_layers", source.count(layers), f"the number of {layers}"),
        num_attention_heads=source.whole("num_attention_heads"),
        patch_size=patch_size,
        image_size=image_size,
        projection_dim=source.agreed(
            "projection_dim", source.size("visual_projection.weight", 0), "visual_projection.weight"
        ),
        hidden_act=source.choice("hidden_act", ("quick_gelu", "gelu")),
        layer_norm_eps=source.real("layer_norm_eps", 1e-5),
    )
    heads = config.num_attention_heads
    _divides(heads, (config.hidden_size,), f"{source.settings_file}: num_attention_heads = {heads}")
    return config


def _divides(divisor: int, channels: tuple[int, ...], name: str) -> None:
    for width in channels:
        if width % divisor:
            raise CheckpointError(f"{name} does not divide {width} channels")
