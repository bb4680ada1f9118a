"""Finds the networks of a checkpoint in files of any names, and chooses one file for each."""

import logging
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fye_export import recognition, sizes, weight_files
from fye_export.config import NETWORKS, PE, CLIPConfig, UNetConfig, VAEConfig
from fye_export.recognition import MOTION, TITLES, Part
from fye_export.weight_files import SUFFIXES, Contents
from fye_rt.errors import CheckpointError

_CONFIGURED = ("unet", "vae", "image_encoder")  # the others' sizes are all in their weights

logger = logging.getLogger("fye_rt")


class IncompleteError(CheckpointError):
    """A checkpoint that lacks a network, or a config.json without which its sizes are unknown.

    Attributes:
        empty: whether nothing was there to be recognised.
    """

    def __init__(self, message: str, *, empty: bool = False) -> None:
        super().__init__(message)
        self.empty = empty


@dataclass(frozen=True, slots=True)
class Repacked:
    """The networks of a repacked checkpoint.

    Attributes:
        root: folder that file names are relative to.
        files: each network's weight files.
        tensors: each network's weights under the names of the released layout.
        sources: the same with settings, from which `sizes.infer` gets the sizes.
        configs: names of the config.json files that were used.
    """

    root: Path
    files: Mapping[str, tuple[str, ...]]
    tensors: Mapping[str, Mapping[str, Tensor]]
    sources: Mapping[str, sizes.Source]
    configs: tuple[str, ...]


def find(paths: Sequence[Path]) -> Repacked:
    """Find each network in folders and files, by the names and shapes of its tensors.

    Folders are searched with their subfolders, except hidden ones and links to folders. Files that are named in
    `paths` themselves go before those that folders hold. What was taken, and what was not, is logged.

    Args:
        paths: folders, weight files, or config.json files.

    Raises:
        IncompleteError: a network or its config.json is in none of the files.
        CheckpointError: two files hold the same network with different weights, the folders hold too many files, or
            config.json and weights contradict each other.
    """
    for path in paths:
        if not path.exists():
            raise CheckpointError(f"{path} does not exist; give the folder or the files that hold the networks")
        if not path.is_dir() and path.suffix not in (*SUFFIXES, ".json"):
            raise CheckpointError(
                f"{path} is no weight file; give a folder, or files that end in {', '.join(SUFFIXES)}"
            )
    root = Path(os.path.commonpath([os.path.abspath(path if path.is_dir() else path.parent) for path in paths]))
    contents = weight_files.read(paths, root)
    chosen = _choose(contents)
    unet, motion = chosen["unet"], _motion(chosen["unet"], contents)
    tensors = {name: part.weights for name, part in chosen.items()}
    files: dict[str, tuple[str, ...]] = {name: (part.file,) for name, part in chosen.items()}
    if motion:
        own = any("motion_modules." in key for key in unet.weights)
        added = {key: tensor for key, tensor in motion.weights.items() if key.endswith(PE) or not own}
        tensors["unet"] = {**unet.weights, **added}
        files["unet"] = (unet.file, motion.file)
    sources = {name: _source(chosen[name], tensors[name], contents) for name in NETWORKS}
    _log(chosen, motion, sources, contents)
    configs = {source.settings_file for source in sources.values() if source.settings_file != sizes.RELEASED}
    return Repacked(root, files, tensors, sources, tuple(sorted(configs - {""})))


def _choose(contents: Contents) -> dict[str, Part]:
    """Choose one part for each network.

    Raises:
        IncompleteError: a network is in no file.
        CheckpointError: files hold the same network with different weights.
    """
    candidates = {name: [part for part in contents.parts if part.network == name] for name in NETWORKS}
    if absent := [name for name, parts in candidates.items() if not parts]:
        titles = " and the ".join(TITLES[name] for name in absent)
        raise IncompleteError(
            f"{contents.where} lacks the {titles}; {_found(contents)}; add the files that hold what is lacking",
            empty=not contents.parts and not contents.unused,
        )
    unet = _one(candidates.pop("unet"), contents)
    chosen = {"unet": unet}
    for name, parts in candidates.items():
        chosen[name] = _one(_fitting(parts, unet, contents), contents)
    return chosen


def _fitting(parts: list[Part], unet: Part, contents: Contents) -> list[Part]:
    """Return those parts whose sizes fit the UNet; if none does, all of them: the check of sizes says why."""
    fitting = [part for part in parts if recognition.fits(part, unet)]
    if fitting:
        other = {part.label: f"a {TITLES[part.network]} of another size" for part in parts if part not in fitting}
        contents.unused |= other
    return fitting or parts


def _one(parts: Sequence[Part], contents: Contents) -> Part:
    """Choose among files that all hold the same network: a named one, no averages, and of equal ones the most exact."""
    for preferred, reason in (
        (lambda part: part.file in contents.named, "another file was named"),
        (lambda part: not part.ema, "averages of weights that are there too"),
    ):
        if better := list(filter(preferred, parts)):
            contents.unused |= {part.label: reason for part in parts if part not in better}
            parts = better
    best, *others = sorted(parts, key=_preference)
    if differing := [part for part in others if not recognition.same_values(best, part)]:
        labels = " and ".join(part.label for part in (best, *differing))
        files = {part.file for part in (best, *differing)}
        command = shlex.join(["fye", "export", *map(str, contents.paths), "FILE"])
        remedy = f"move all but one out of {contents.where}, or name the one to use: {command}"
        if files <= contents.named:
            remedy = "give only one of them" if len(files) > 1 else "save the one to use in a file of its own"
        raise CheckpointError(f"{labels} each hold a {TITLES[best.network]}, and their weights differ; {remedy}")
    contents.unused |= {part.label: f"the same weights as {best.label}" for part in others}
    return best


def _preference(part: Part) -> tuple[int, int, str]:
    """Sort key of parts with the same weights: the widest type, then .safetensors, then the name."""
    stored = sum(tensor.numel() * tensor.element_size() for tensor in part.weights.values())
    return -stored, SUFFIXES.index(Path(part.file).suffix), part.label


def _motion(unet: Part, contents: Contents) -> Part | None:
    """Choose the file of motion modules, if the UNet lacks all of them or all their positional encodings."""
    parts = [part for part in contents.parts if part.network == MOTION]
    if any(key.endswith(PE) for key in unet.weights):
        contents.unused |= {part.label: "motion modules, which the denoising UNet has already" for part in parts}
        return None
    if parts:
        return _one(_fitting(parts, unet, contents), contents)
    if any("motion_modules." in key for key in unet.weights):
        return None  # the check of keys names the encodings that are missing
    raise IncompleteError(
        f"{unet.label} has no motion modules, nor has another file in {contents.where}; add the file that has them"
    )


def _source(part: Part, tensors: Mapping[str, Tensor], contents: Contents) -> sizes.Source:
    """Find the settings of a network: its config.json, or the released ones if its sizes are the released model's."""
    name = part.network
    if name not in _CONFIGURED:
        return sizes.Source(tensors, part.file, {})
    configs = contents.configs.get(name, [])
    folder = Path(part.file).parent
    named = [config for config in configs if config[0] in contents.named]
    beside = [config for config in configs if Path(config[0]).parent == folder]
    sources = [sizes.Source(tensors, part.file, settings, file) for file, settings in named or beside or configs]
    released = None if named or beside else sizes.released(name, tensors, part.file)
    if released:
        sources.append(released)
    if not sources:
        raise IncompleteError(
            f"{part.label} is not of the released size, and no config.json in {contents.where} states the rest of the "
            f"{TITLES[name]}'s sizes; add its config.json"
        )
    fitting: dict[UNetConfig | VAEConfig | CLIPConfig, sizes.Source] = {}
    for source in sources:
        try:
            fitting.setdefault(sizes.network(name, source), source)
        except CheckpointError:
            pass  # of another model; if none fits, the first one's error is raised below
    if len(fitting) > 1:
        names = " and ".join(source.settings_file for source in fitting.values())
        raise CheckpointError(
            f"{names} are different settings of the {TITLES[name]}; name the config.json that belongs to {part.file}"
        )
    return next(iter(fitting.values()), sources[0])


def _found(contents: Contents) -> str:
    parts = sorted(contents.parts, key=lambda part: list(TITLES).index(part.network))
    networks = _some(f"the {TITLES[part.network]} in {part.label}" for part in parts)
    return f"found {networks or 'none of its networks'}{_unused(contents, '; not used: ', 8)}"


def _unused(contents: Contents, before: str, limit: int) -> str:
    others = _some((f"{file} ({reason})" for file, reason in contents.unused.items()), limit)
    return f"{before}{others}" if others else ""


def _log(
    chosen: Mapping[str, Part], motion: Part | None, sources: Mapping[str, sizes.Source], contents: Contents
) -> None:
    for name, part in chosen.items():
        files = f"{part.label} with {motion.label}" if name == "unet" and motion else part.label
        settings = sources[name].settings_file
        logger.warning("%s: %s%s", TITLES[name], files, f", settings: {settings}" if settings else "")
    if others := _unused(contents, "not used: ", 12):
        logger.warning("%s", others)


def _some(names: Iterable[str], limit: int = 8) -> str:
    first = list(names)
    return ", ".join(first[:limit]) + (f" and {len(first) - limit} more" if len(first) > limit else "")
