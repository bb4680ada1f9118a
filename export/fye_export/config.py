"""Sizes of a model. The architecture fixes everything else about the networks."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Self

MAX_FRAMES = 32  # rows of the motion modules' positional encoding
# the reference implementation hard-codes it, regardless of norm_num_groups; narrower models have fewer
MOTION_NORM_GROUPS = 32
MOTION_HEADS = 8
PE = ".pos_encoder.pe"  # ends the names of the motion modules' positional encodings
NETWORKS = ("unet", "referencenet", "lmk_guider", "vae", "image_encoder")


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetConfig:
    """Sizes of the denoising UNet and of the reference network, which share them.

    Attributes:
        block_out_channels: channels of the four levels.
        heads: attention heads of the spatial transformers (`attention_head_dim` in the released config.json is
            an old diffusers name for this number).
        norm_num_groups: groups of every group norm except the motion modules'.
        norm_eps: epsilon of the ResNet blocks' and the output's group norm.
        cross_attention_dim: width of the CLIP tokens after `clip_fc`.
        clip_dim: width of the CLIP tokens before `clip_fc`.
        in_channels: latent channels of the input and output.
    """

    block_out_channels: tuple[int, int, int, int] = (320, 640, 1280, 1280)
    heads: int = 8
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    cross_attention_dim: int = 768
    clip_dim: int = 1024
    in_channels: int = 4
    flip_sin_to_cos: bool = True
    freq_shift: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GuiderConfig:
    """Landmark guider: channels at its four resolutions and of its output, which the UNet's first level takes."""

    block_out_channels: tuple[int, int, int, int] = (16, 32, 96, 256)
    out_channels: int = 320


@dataclass(frozen=True, slots=True, kw_only=True)
class VAEConfig:
    """AutoencoderKL; encoding multiplies latents by `scaling_factor`, and decoding divides by it."""

    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    latent_channels: int = 4
    scaling_factor: float = 0.18215


@dataclass(frozen=True, slots=True, kw_only=True)
class CLIPConfig:
    """CLIP vision tower; `image_size` is the side of its square input in pixels."""

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    patch_size: int = 14
    image_size: int = 224
    projection_dim: int = 768
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5

    @property
    def tokens(self) -> int:
        """Number of tokens of an image: the class token and one per patch."""
        return (self.image_size // self.patch_size) ** 2 + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Sizes of all five networks. The defaults are the released model's."""

    unet: UNetConfig = UNetConfig()
    lmk_guider: GuiderConfig = GuiderConfig()
    vae: VAEConfig = VAEConfig()
    image_encoder: CLIPConfig = CLIPConfig()

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain data for bundle.json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Restore sizes from the parsed JSON of `as_dict`."""
        parts = {"unet": UNetConfig, "lmk_guider": GuiderConfig, "vae": VAEConfig, "image_encoder": CLIPConfig}
        return cls(**{name: _from_json(part, data[name]) for name, part in parts.items()})


def _from_json(part: type[Any], data: dict[str, Any]) -> Any:
    names = {field.name for field in fields(part)}
    return part(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k in names})
