"""Renames a VAE's tensors from the layout of Stable Diffusion's single files (LDM) to that of diffusers."""

import re
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

_LEVEL = re.compile(r"(encoder\.down|decoder\.up)\.(\d+)\.(?:block\.(\d+)|(downsample|upsample))\.(.+)")
_MIDDLE = re.compile(r"((?:en|de)coder)\.mid\.(?:block_([12])|attn_1)\.(.+)")
_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


def is_ldm(keys: Mapping[str, object]) -> bool:
    """Return whether a VAE's tensors have LDM's names."""
    return any(_LEVEL.fullmatch(key) or _MIDDLE.fullmatch(key) for key in keys)


def rename(state: Mapping[str, T]) -> dict[str, T]:
    """Give a VAE's tensors their names in diffusers; their shapes stay (`state_dict.modern_vae` changes them).

    The two layouts differ in names alone, and in the order of the decoder's levels: LDM numbers them by resolution,
    diffusers in the order in which they run. A name that neither layout has stays, so that it is refused as surplus;
    so does one whose new name the file has already.
    """
    levels = [int(match[2]) for key in state if (match := _LEVEL.fullmatch(key)) and match[1] == "decoder.up"]
    last = max(levels, default=0)
    renamed: dict[str, T] = {}
    for key, value in state.items():
        modern = _modern(key, last)
        renamed[key if modern in state else modern] = value
    return renamed


def _modern(key: str, last: int) -> str:
    if match := _LEVEL.fullmatch(key):
        side, level, block, _, rest = match.groups()
        down = side == "encoder.down"
        number = int(level) if down else last - int(level)
        module = f"resnets.{block}" if block else f"{'down' if down else 'up'}samplers.0"
        return f"{side}_blocks.{number}.{module}.{rest.replace('nin_shortcut', 'conv_shortcut')}"
    if match := _MIDDLE.fullmatch(key):
        side, block, rest = match.groups()
        if block:
            return f"{side}.mid_block.resnets.{int(block) - 1}.{rest}"
        layer, _, parameter = rest.rpartition(".")
        return f"{side}.mid_block.attentions.0.{_ATTENTION.get(layer, layer)}.{parameter}"
    return re.sub(r"^((?:en|de)coder)\.norm_out\.", r"\1.conv_norm_out.", key)
