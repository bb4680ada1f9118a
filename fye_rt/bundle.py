"""A bundle on disk: bundle.json, graphs and weights. Every byte is checked before it is used.

docs/reference/bundle.md describes the format.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from fye_rt.errors import BundleError
from fye_rt.files import atomic_file, refuse_pointer, sha256
from fye_rt.options import FACE_SHARE, GUIDANCE, Options
from fye_rt.schedule import SchedulerConfig

FORMAT = "fye-bundle"
VERSION = 1
MANIFEST = "bundle.json"
GRAPHS = ("image_encoder", "vae_encoder", "reference", "guider", "denoiser", "denoiser_cond", "vae_decoder")
PRECISIONS = ("fp32", "fp16")
PREFERRED = ("mini", "tiny")  # shipped bundles, the default one first
_MAX_MANIFEST = 4 << 20
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_SEAL = ',\n "sha256": "{}"\n}}\n'  # the end of bundle.json: the SHA-256 of everything before it
_SEAL_BYTES = len(_SEAL.format("0" * 64))
_SEAL_START = b'"sha256": "'


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A graph's input or output; strings in a shape are symbolic dimensions."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


def symbols(frames: int, height: int, width: int) -> dict[str, int]:
    """Return the symbolic dimensions of `frames` frames of `height` x `width` pixels (multiples of 8)."""
    h, w = height // 8, width // 8
    sizes = {"frames": frames, "height": height, "width": width, "latent_height": h, "latent_width": w}
    for level in range(4):
        sizes[f"tokens{level}"] = h * w
        h, w = (h + 1) // 2, (w + 1) // 2
    return sizes


@dataclass(frozen=True, slots=True)
class Graph:
    """One graph: its standard ONNX file, and its variants for particular engines, by engine name."""

    name: str
    file: str
    variants: Mapping[str, str]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def output_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Compute the shapes of the outputs from those of the inputs, all by name."""
        sizes = {
            size: length
            for spec in self.inputs
            for size, length in zip(spec.shape, shapes[spec.name], strict=True)
            if isinstance(size, str)
        }
        height, width = (sizes.get(side, 8 * sizes.get(f"latent_{side}", 0)) for side in ("height", "width"))
        sizes = symbols(sizes.get("frames", 0), height, width) | sizes
        return {
            spec.name: tuple(sizes[size] if isinstance(size, str) else size for size in spec.shape)
            for spec in self.outputs
        }


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle.

    Attributes:
        path: folder of the bundle.
        graphs: graphs by name (`GRAPHS`).
        scheduler: noise schedule of the model.
        model: sizes of the networks, as recorded by the exporter.
        precision: storage precision of the weights, "fp32" or "fp16".
        size: (height, width) in pixels that the bundle was exported for; other sizes work too.
        max_frames: longest window, in frames.
        weights: name of the weights file.
        guidance: default classifier-free guidance scale.
        shared_noise: default share of the noise that all frames have in common; see `Options`.
        face_share: longer side of a portrait's face divided by the clip's shorter side, below which it is cropped to.
        note: a line to show to users of the bundle, or "".
        digest: SHA-256 of the manifest, which contains the hashes of all other files.
        manifest: complete content of bundle.json.
    """

    path: Path
    graphs: Mapping[str, Graph]
    scheduler: SchedulerConfig
    model: Mapping[str, Any]
    precision: str
    size: tuple[int, int]
    max_frames: int
    weights: str
    guidance: float
    shared_noise: float
    face_share: float
    note: str
    digest: str
    manifest: Mapping[str, Any]

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, verify: bool = True) -> Self:
        """Open a bundle.

        Args:
            path: folder of the bundle.
            verify: compare the SHA-256 of every file; skip this only if it was done a moment ago.

        Raises:
            BundleError: no bundle, an unknown format version, or a file that is missing, altered or outside the folder.
        """
        path = Path(path)
        raw, manifest = _read_manifest(path)
        try:
            bundle = cls._parse(path, raw, manifest)
            bundle._check_names()
            bundle._check_files(verify)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise BundleError(f"{path / MANIFEST} is damaged ({error!r}); export the bundle again") from error
        except OSError as error:
            raise BundleError(f"cannot read {path}: {error}") from error
        return bundle

    def resolve(self, options: Options) -> Options:
        """Replace each None in `options` with the default stored in the bundle."""
        return options.resolved(self.guidance, self.shared_noise)

    @classmethod
    def _parse(cls, path: Path, raw: bytes, manifest: dict[str, Any]) -> Self:
        graphs = {name: _graph(name, entry) for name, entry in manifest["graphs"].items()}
        if missing := [name for name in GRAPHS if name not in graphs]:
            raise BundleError(f"{path} has no graph {', '.join(missing)}; export the bundle again")
        if manifest["precision"] not in PRECISIONS:
            raise BundleError(f"{path}: precision {manifest['precision']!r} is not one of {', '.join(PRECISIONS)}")
        height, width = (int(n) for n in manifest["size"])
        return cls(
            path=path,
            graphs=MappingProxyType(graphs),
            scheduler=SchedulerConfig.from_dict(dict(manifest["scheduler"])),
            model=MappingProxyType(dict(manifest["model"])),
            precision=manifest["precision"],
            size=(height, width),
            max_frames=int(manifest["max_frames"]),
            weights=str(manifest["weights"]["file"]),
            guidance=float(manifest.get("guidance", GUIDANCE)),
            shared_noise=float(manifest.get("shared_noise", 0.0)),
            face_share=min(max(float(manifest.get("face_share", FACE_SHARE)), 0.0), 1.0),
            note=str(manifest.get("note", "")),
            digest=hashlib.sha256(raw).hexdigest(),
            manifest=MappingProxyType(manifest),
        )

    def _check_names(self) -> None:
        listed = self.manifest["files"]
        for name in listed:
            if not _PLAIN_NAME.fullmatch(name):
                raise BundleError(f"{self.path}: {name!r} is not a plain file name; refusing this bundle")
        files = [file for graph in self.graphs.values() for file in (graph.file, *graph.variants.values())]
        if unlisted := sorted({self.weights, *files} - set(listed)):
            raise BundleError(f"{self.path}: {', '.join(unlisted)} has no hash in {MANIFEST}; export the bundle again")

    def _check_files(self, verify: bool) -> None:
        for name, entry in self.manifest["files"].items():
            file = self.path / name
            if not file.is_file():
                raise BundleError(_lacks(self.path, name))
            refuse_pointer(file, BundleError)
            if file.stat().st_size != entry["bytes"] or (verify and sha256(file) != entry["sha256"]):
                raise BundleError(f"{file} differs from its hash in {MANIFEST}; copy or export the bundle again")

    def file(self, graph: str, variant: str = "") -> Path:
        """Return the path of a graph's ONNX file: the given variant if the bundle has it, else the standard file."""
        entry = self.graphs[graph]
        return self.path / entry.variants.get(variant, entry.file)

    @property
    def remedy(self) -> str:
        """Advice for an engine's error message when the engine refuses a graph of this bundle."""
        if any((self.path / name).is_symlink() for name in self.manifest["files"]):
            return f"the bundle has links, which not every engine follows; copy it with: cp -rL {self.path} COPY"
        return f"check with: fye verify {self.path}"

    def weight_bytes(self, graph: str, itemsize: int = 4) -> int:
        """Return the bytes of a graph's weights at a compute precision of `itemsize` bytes per number."""
        return itemsize * int(self.manifest["graphs"][graph]["parameters"])

    def latent_channels(self) -> int:
        """Return the number of latent channels, 4 in the released model."""
        return int(self.graphs["denoiser"].inputs[0].shape[1])


def put_file(path: Path, name: str, content: bytes) -> None:
    """Add a file to a bundle, or replace one that `put_file` added. The bundle can be opened at every moment.

    Raises:
        BundleError: the folder holds no bundle.
        OutputError: the folder cannot be written.
    """
    _, manifest = _read_manifest(path)
    del manifest["sha256"]  # the seal of the old manifest
    if manifest["files"].pop(name, None) is not None:
        _write_manifest(path, manifest)
    with atomic_file(path / name) as temporary:
        temporary.write_bytes(content)
    manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    _write_manifest(path, manifest)


def _write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    with atomic_file(path / MANIFEST) as temporary:
        temporary.write_text(sealed(manifest))


def sealed(manifest: Mapping[str, Any]) -> str:
    """Return the text of bundle.json: `manifest`, with the SHA-256 of all text before it as the last entry."""
    body = json.dumps(manifest, indent=1).removesuffix("\n}")
    return body + _SEAL.format(hashlib.sha256(body.encode()).hexdigest())


def shipped_bundles() -> Path:
    """Return the folder of the bundles shipped with fye-rt: package data, or engines/bundles in a source checkout."""
    package = Path(__file__).parent
    for folder in (package / "bundles", package.parent / "engines" / "bundles"):
        if folder.is_dir():
            return folder
    raise BundleError("this installation has no shipped bundles; install fye-rt again, or pass bundle=DIR")


def shipped_bundle() -> Path:
    """Return the folder of the default bundle.

    Raises:
        BundleError: this installation has none.
    """
    folder = shipped_bundles()
    for name in PREFERRED:
        if (folder / name / MANIFEST).is_file():
            return folder / name
    raise BundleError(f"{folder} holds none of {', '.join(PREFERRED)}; install fye-rt again, or pass bundle=DIR")


def _read_manifest(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Read bundle.json; return its bytes and content. Checks the seal first: nothing is trusted before that."""
    file = path / MANIFEST
    if not file.is_file():
        if file.is_symlink():
            raise BundleError(_lacks(path, MANIFEST))
        raise BundleError(f"{path} is not a bundle: it has no {MANIFEST}; make one with: fye export CHECKPOINT -o DIR")
    if file.stat().st_size > _MAX_MANIFEST:
        raise BundleError(f"{file} is over {_MAX_MANIFEST >> 20} MB; refusing this bundle")
    refuse_pointer(file, BundleError)
    raw = file.read_bytes()
    body, seal = raw[:-_SEAL_BYTES], raw[-_SEAL_BYTES:]
    intact = seal == _SEAL.format(hashlib.sha256(body).hexdigest()).encode()
    if not intact and _SEAL_START in seal:
        raise BundleError(f"{file} differs from its seal; copy or export the bundle again")
    try:
        manifest = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{file} is not JSON ({error}); export the bundle again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BundleError(f"{file} does not describe a {FORMAT}; export the bundle again")
    if manifest.get("version") != VERSION:
        raise BundleError(
            f"{path} has format version {manifest.get('version')!r}, this fye-rt reads {VERSION}; export it again "
            "with this version, or install the fye-rt that wrote it"
        )
    if not intact:
        raise BundleError(f"{file} has no seal at its end; copy or export the bundle again")
    return raw, manifest


def _lacks(path: Path, name: str) -> str:
    """Message for a file that is missing; a link may have been copied without its target."""
    if (path / name).is_symlink():
        return (
            f"{path / name} is a link to {os.readlink(path / name)}, which is not there; download the bundle again, "
            "or copy it with the files that its links lead to (cp -rL)"
        )
    return f"{path} lacks {name}; download, copy or export the bundle again"


def _graph(name: str, entry: Mapping[str, Any]) -> Graph:
    def tensors(key: str) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(t["name"], t["dtype"], tuple(t["shape"])) for t in entry[key])

    return Graph(name, entry["file"], MappingProxyType(dict(entry["variants"])), tensors("inputs"), tensors("outputs"))
