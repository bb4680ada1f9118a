"""Reads what the files of a repacked checkpoint hold: networks, settings, and files of other models."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fye_export import recognition, state_dict
from fye_export.recognition import Part
from fye_rt.errors import CheckpointError
from fye_rt.files import refuse_pointer

SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")
MAX_WEIGHT_FILES = 200
MAX_FILES = 20_000
MAX_CONFIG_BYTES = 1 << 16  # a config.json has 2 KB; a tokenizer's vocabulary is larger, and not read


@dataclass(slots=True)
class Contents:
    """What the files of a checkpoint hold.

    Attributes:
        paths: folders and files that were given.
        parts: the networks.
        configs: name and settings of each config.json, by network.
        unused: files without a network, and parts that were not chosen, each with what they are or why.
        named: names of the files that were given themselves.
    """

    paths: Sequence[Path]
    parts: list[Part] = field(default_factory=list)
    configs: dict[str, list[tuple[str, dict[str, Any]]]] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)

    @property
    def where(self) -> str:
        """The given folders and files, for messages."""
        return " and ".join(map(str, self.paths))


def read(paths: Sequence[Path], root: Path) -> Contents:
    """Read the names and shapes of all weight files, and the settings of all config.json files.

    Args:
        paths: folders, which are searched with their subfolders, and files.
        root: folder that the names of files are relative to.

    Raises:
        CheckpointError: a file that was given itself cannot be read or has no network, or there are too many files.
    """
    contents = Contents(paths)
    seen = set()
    for path, named in _files(contents, root):
        place = os.path.abspath(path)
        if place in seen:
            continue
        seen.add(place)
        name = os.path.relpath(place, root).replace(os.sep, "/")
        if named:
            contents.named.add(name)
        try:
            used, rest = (_read_config if path.suffix == ".json" else _read_weights)(path, name, contents)
        except CheckpointError as error:
            if named:
                raise
            used, rest = False, str(error)
        if named and not used:
            raise CheckpointError(f"{name} is {rest or 'no config.json of a UNet, VAE or CLIP'}; leave it out")
        if rest:
            contents.unused[name] = rest
    return contents


def _read_weights(path: Path, name: str, contents: Contents) -> tuple[bool, str]:
    """Add the networks of a file; returns whether it has one, and what else it is."""
    if path.is_symlink() and not path.exists():
        return False, f"a link to {os.readlink(path)}, which is not there"
    parts, rest = recognition.parts(state_dict.read_flat(path, name), name)
    contents.parts += parts
    return bool(parts), rest


def _files(contents: Contents, root: Path) -> Iterator[tuple[Path, bool]]:
    """Yield the weight and JSON files, each with whether it was given itself; these come first."""
    files = [path for path in contents.paths if not path.is_dir()]
    yield from ((path, True) for path in files)
    beside = {path.parent for path in files}
    yield from ((path, False) for folder in sorted(beside) for path in sorted(folder.glob("*.json")))
    total = weights = 0
    for top in (path for path in contents.paths if path.is_dir()):
        for folder, folders, names in os.walk(top):
            linked = [name for name in folders if (Path(folder) / name).is_symlink()]
            for name in linked:
                link = os.path.relpath(os.path.join(os.path.abspath(folder), name), root)
                contents.unused[f"{link}/"] = "a link to a folder; give it as well if it holds a network"
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in linked)
            total += len(names) + len(folders)
            found = [name for name in sorted(names) if not name.startswith(".")]
            weights += sum(name.endswith(SUFFIXES) for name in found)
            if total > MAX_FILES or weights > MAX_WEIGHT_FILES:
                raise CheckpointError(
                    f"{top} holds more than {MAX_WEIGHT_FILES} weight files or {MAX_FILES:,} files; give the folder or "
                    "the files of this model alone"
                )
            for path in (Path(folder) / name for name in found):
                if path.name.endswith((*SUFFIXES, ".json")) and (path.is_file() or not path.exists()):
                    yield path, False


def _read_config(path: Path, name: str, contents: Contents) -> tuple[bool, str]:
    """Add the settings of a file if it is a config.json of a network; returns whether it is."""
    if not path.is_file():
        return False, ""
    refuse_pointer(path, CheckpointError)
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            return False, ""
        settings = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read {name}: {error}; get the file again") from error
    if not isinstance(settings, dict) or not (network := _configured(settings)):
        return False, ""
    if isinstance(vision := settings.get("vision_config"), dict):  # the settings of a whole CLIP
        settings = vision | {key: settings[key] for key in ("projection_dim",) if key in settings}
    contents.configs.setdefault(network, []).append((name, settings))
    return True, ""


def _configured(settings: Mapping[str, Any]) -> str | None:
    """Return the network that a config.json belongs to, by its content."""
    if class_name := str(settings.get("_class_name", "")):
        return "unet" if class_name.startswith("UNet") else "vae" if class_name == "AutoencoderKL" else None
    if settings.get("model_type") == "clip_vision_model" or isinstance(settings.get("vision_config"), dict):
        return "image_encoder"
    for network, names in (
        ("unet", {"cross_attention_dim", "attention_head_dim"}),
        ("vae", {"latent_channels", "norm_num_groups"}),
        ("image_encoder", {"patch_size", "num_attention_heads"}),
    ):
        if names <= settings.keys():
            return network
    return None
