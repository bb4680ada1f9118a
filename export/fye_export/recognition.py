"""Recognises the networks in a weight file by the names and shapes of its tensors, whatever the file is called."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fye_export import ldm_vae, state_dict
from fye_rt.errors import CheckpointError

MAX_PARTS = 50  # networks in a file; one with all of them, and averages of each, has 12
MOTION = "motion"  # motion modules apart from the UNet's other weights
TITLES = {
    "unet": "denoising UNet",
    MOTION: "set of motion modules",
    "referencenet": "reference network",
    "lmk_guider": "landmark guider",
    "vae": "VAE",
    "image_encoder": "CLIP image encoder",
}
MOTION_KEY = re.compile(
    r"((?:.*?\.)?)(?:(?:down|up)_blocks\.\d+|mid_block)\.motion_modules\.\d+\.temporal_transformer\..+"
)
_CLIP_FC = re.compile(r"((?:.*\.)?)clip_fc\.(?:weight|bias)")
_GUIDER = re.compile(r"((?:.*\.)?)blocks\.0\.(?:weight|bias)")
_VAE = re.compile(
    r"((?:.*\.)?)(?:en|de)coder\.(?:(?:down|up)_blocks\.0\.resnets|(?:down|up)\.0\.block)\.0\.conv1\.weight"
)
_CLIP = re.compile(r"(?:(.*)\.)?(?:embeddings\.class_embedding|pre_layrnorm\.weight)")
_EMA = re.compile(r"(?:^|[._])ema(?:[._]|$)")
_VISION = ("embeddings.", "pre_layrnorm.", "encoder.", "post_layernorm.")
# parts of a larger CLIP, and of a VAE's training, that the networks do without
_BESIDE = {
    "image_encoder": ("text_model.", "text_projection.", "logit_scale", "logit_bias"),
    "vae": ("loss.",),
}
# names that show another model: a codebook instead of a VAE, a whole UNet instead of motion modules alone
_FOREIGN = {"vae": ("quantize.",), MOTION: ("conv_in.", "down_blocks.0.resnets.")}
# what files beside a checkpoint often are, by a piece of a tensor's name
_OTHERS = (
    (("lora_", ".lora.", "hada_w1", "lokr_w1"), "a LoRA"),
    (("controlnet_", "control_model."), "a ControlNet"),
    (("ip_adapter.", "image_proj."), "an IP-Adapter"),
    (("param_groups", "optimizer"), "states of an optimizer"),
    (("diffusion_model.input_blocks.", "diffusion_model.double_blocks."), "a base model without a VAE of this kind"),
    (("transformer.resblocks.",), "a CLIP in OpenAI's layout, while that of transformers is read"),
    (("text_model.", "token_embedding"), "a text encoder"),
    (("down_blocks.0.resnets.",), "a UNet of another model: it has no clip_fc"),
    (("clip_fc.",), "clip_fc alone, without its UNet"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The tensors of one network in a file.

    Attributes:
        network: its name in `fye_export.config.NETWORKS`, or `MOTION`.
        file: the file's name.
        prefix: what stands before all its names in the file, such as "first_stage_model."; may be empty.
        weights: tensors under the names of the released layout.
        note: the names that were changed, for the log; may be empty.
    """

    network: str
    file: str
    prefix: str
    weights: Mapping[str, Tensor]
    note: str = ""

    @property
    def ema(self) -> bool:
        """Whether the prefix says that these are exponential averages of other weights."""
        return bool(_EMA.search(self.prefix))

    @property
    def label(self) -> str:
        """The file, with the prefix if it has one and the names that were changed."""
        details = ", ".join(filter(None, (f"{self.prefix}*" if self.prefix else "", self.note)))
        return f"{self.file} ({details})" if details else self.file

    def axis(self, key: str, axis: int) -> int | None:
        """Length of an axis of a weight; None if there is none."""
        tensor = self.weights.get(key)
        return tensor.shape[axis] if tensor is not None and tensor.ndim > axis else None


def parts(state: Mapping[str, Any], file: str) -> tuple[list[Part], str]:
    """Find the networks in a weight file.

    Args:
        state: the flat contents of the file, from `state_dict.read_flat`.
        file: its name.

    Returns:
        The networks; and in a few words what else is in the file, empty if nothing is.

    Raises:
        CheckpointError: a tensor of a network is of a kind that is not read, or there are more than `MAX_PARTS`.
    """
    kinds = _prefixes(state)
    if len(kinds) > MAX_PARTS:
        raise CheckpointError(f"{file} holds more than {MAX_PARTS} networks; use the file as it was released")
    claimed: dict[str, dict[str, Any]] = {prefix: {} for prefix in kinds}
    longest_first = sorted(kinds, key=len, reverse=True)
    rest = []
    for key, value in state.items():
        prefix = next((prefix for prefix in longest_first if key.startswith(prefix)), None)
        if prefix is None:
            rest.append(key)
        else:
            claimed[prefix][key[len(prefix) :]] = value
    found = [_part(kind, file, prefix, claimed[prefix]) for prefix, kind in kinds.items()]
    if not found:
        return [], _other(rest)
    return found, f"{len(rest):,} other entries" if rest else ""


def same_values(left: Part, right: Part) -> bool:
    """Return whether two files hold the same weights, one of them perhaps rounded to half precision."""
    return left.weights.keys() == right.weights.keys() and all(
        _equal(tensor, right.weights[key]) for key, tensor in left.weights.items()
    )


def fits(part: Part, unet: Part) -> bool:
    """Return whether a network has the sizes with which the denoising UNet works together."""
    pairs = {
        MOTION: (("down_blocks.0.motion_modules.0.temporal_transformer.norm.weight", 0, "conv_in.weight", 0),),
        "referencenet": (("conv_in.weight", 0, "conv_in.weight", 0), ("clip_fc.weight", 1, "clip_fc.weight", 1)),
        "lmk_guider": (("conv_out.weight", 0, "conv_in.weight", 0),),
        "vae": (("post_quant_conv.weight", 0, "conv_in.weight", 1),),
        "image_encoder": (("vision_model.embeddings.class_embedding", 0, "clip_fc.weight", 1),),
    }
    return all(
        part.axis(key, axis) == unet.axis(unet_key, unet_axis)
        for key, axis, unet_key, unet_axis in pairs.get(part.network, ())
    )


def _prefixes(state: Mapping[str, Any]) -> dict[str, str]:
    """Map the prefix of each network's names to the kind of network."""
    kinds: dict[str, str] = {}
    for key, value in state.items():
        dimensions = value.ndim if isinstance(value, Tensor) else 0
        if match := _CLIP_FC.fullmatch(key):
            if f"{match[1]}conv_in.weight" in state or f"{match[1]}time_embedding.linear_1.weight" in state:
                kinds[match[1]] = "unet"
        elif (match := _VAE.fullmatch(key)) and dimensions == 4:
            kinds.setdefault(match[1], "vae")
        elif (match := _GUIDER.fullmatch(key)) and not match[1].endswith("controlnet_cond_embedding."):
            if any(f"{match[1]}{layer}.weight" in state for layer in ("conv_in", "conv_out", "blocks.1")):
                kinds.setdefault(match[1], "lmk_guider")
        elif match := _CLIP.fullmatch(key):
            tower = f"{match[1]}." if match[1] else ""
            kinds.setdefault(tower.removesuffix("vision_model."), "image_encoder")
        elif match := MOTION_KEY.fullmatch(key):
            kinds.setdefault(match[1], MOTION)
    for prefix, kind in list(kinds.items()):
        names = tuple(prefix + name for name in _FOREIGN.get(kind, ()))
        if names and any(key.startswith(names) for key in state):
            del kinds[prefix]
    return kinds


def _part(kind: str, file: str, prefix: str, state: Mapping[str, Any]) -> Part:
    beside = _BESIDE.get(kind, ())
    state = {
        key: value
        for key, value in state.items()
        if not key.startswith(beside) and not _EMA.search(key.partition(".")[0])
    }
    note = ""
    if kind == "unet":
        kind = _which_unet(state)
    elif kind == "image_encoder" and any(key.startswith(_VISION) for key in state):
        state = {f"vision_model.{key}" if key.startswith(_VISION) else key: value for key, value in state.items()}
        note = "vision_model. added"
    elif kind == "vae" and ldm_vae.is_ldm(state):
        state, note = ldm_vae.rename(state), "LDM's names"
    weights = state_dict.checked(state, file)
    return Part(kind, file, prefix, state_dict.modern_vae(weights) if kind == "vae" else weights, note)


def _which_unet(state: Iterable[str]) -> str:
    """Tell the two UNets apart: the reference network has no motion modules, and ends in a norm."""
    if any(MOTION_KEY.fullmatch(key) for key in state):
        return "unet"
    ends = ("conv_norm_out.", "conv_out.", "up_blocks.3.attentions.2.transformer_blocks.0.attn1.")
    present = [any(key.startswith(end) for key in state) for end in ends]
    return "unet" if sum(present) > 1 else "referencenet"  # one too few or too many is a fault for the check of keys


def _other(keys: Iterable[str]) -> str:
    names = list(keys)
    for pieces, title in _OTHERS:
        if any(piece in name for name in names for piece in pieces):
            return title
    return "no network of this model"


def _equal(left: Tensor, right: Tensor) -> bool:
    if left.shape != right.shape:
        return False
    if left.dtype != right.dtype:
        narrow = min((left.dtype, right.dtype), key=lambda dtype: torch.finfo(dtype).bits)
        left, right = left.to(narrow), right.to(narrow)
    return torch.equal(left, right)
