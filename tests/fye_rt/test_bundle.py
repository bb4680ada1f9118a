import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fye_rt import backends
from fye_rt.bundle import GRAPHS, MANIFEST, Bundle, put_file, sealed, shipped_bundles
from fye_rt.engine import Settings
from fye_rt.errors import BackendError, BundleError
from fye_rt.files import sha256
from fye_rt.schedule import SchedulerConfig
from tests.fye_rt.faults import edit, flip

Manifest = dict[str, Any]


@pytest.fixture
def folder(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the shipped bundle that a test may change."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def rehash(manifest: Manifest, folder: Path) -> None:
    for name, entry in manifest["files"].items():
        entry.update(bytes=(folder / name).stat().st_size, sha256=sha256(folder / name))


def refusal(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.load(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_bundle_lists_its_graphs_and_facts(tiny_bundle: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    assert tuple(bundle.graphs) == GRAPHS
    assert bundle.scheduler == SchedulerConfig()
    assert bundle.max_frames == 32
    assert bundle.latent_channels() == 4
    assert bundle.precision == "fp16"
    assert bundle.manifest["version"] == 1
    assert bundle.file("denoiser").name == "denoiser.onnx"
    assert bundle.file("denoiser", "onnxruntime").name == "denoiser.onnxruntime.onnx"
    assert bundle.file("denoiser", "an engine without a variant").name == "denoiser.onnx"
    with pytest.raises(TypeError, match="item assignment"):
        bundle.manifest["version"] = 2  # type: ignore[index]


def test_weight_bytes_count_every_number_that_a_graph_loads(tiny_bundle: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    stored = (tiny_bundle / bundle.weights).stat().st_size
    assert bundle.weight_bytes("denoiser", 2) == bundle.weight_bytes("denoiser") // 2
    assert 0.3 * stored < bundle.weight_bytes("denoiser", 2) < stored
    assert bundle.weight_bytes("denoiser_cond") < bundle.weight_bytes("denoiser")


def test_a_bundle_may_be_moved_and_reached_through_a_link(folder: Path, tmp_path: Path) -> None:
    moved = folder.rename(tmp_path / "elsewhere")
    (tmp_path / "link").symlink_to(moved)
    assert Bundle.load(tmp_path / "link").digest == Bundle.load(moved).digest


@pytest.mark.parametrize("name", ["weights.safetensors", "denoiser.onnx", "denoiser.onnxruntime.onnx"])
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_a_flipped_bit_is_refused_with_the_file_s_name(name: str, place: float, folder: Path) -> None:
    file = folder / name
    flip(file, int(place * (file.stat().st_size - 1)))
    assert f"{name} differs from its hash" in refusal(folder)


def test_every_listed_file_is_checked(folder: Path) -> None:
    names = list(json.loads((folder / MANIFEST).read_bytes())["files"])
    assert sorted(names) == sorted(path.name for path in folder.iterdir() if path.name != MANIFEST)
    for name in names:
        flip(folder / name, 0)
        assert name in refusal(folder)
        flip(folder / name, 0)
    Bundle.load(folder)


@settings(max_examples=200)
@given(data=st.data())
def test_one_changed_byte_of_the_manifest_is_refused(data: st.DataObject, tiny_bundle: Path, tmp_path: Path) -> None:
    raw = bytearray((tiny_bundle / MANIFEST).read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    (tmp_path / MANIFEST).write_bytes(raw)
    message = refusal(tmp_path)
    assert MANIFEST in message
    assert "lacks" not in message  # it was the manifest that was found out, not the absent files


@pytest.mark.parametrize("change", ["truncated", "longer"])
def test_a_file_of_another_length_is_refused(change: str, folder: Path) -> None:
    file = folder / "guider.onnx"
    raw = file.read_bytes()
    file.write_bytes(raw[:-1] if change == "truncated" else raw + b"\0")
    assert "guider.onnx differs" in refusal(folder)


def test_without_verification_a_wrong_length_is_still_found(folder: Path) -> None:
    flip(folder / "guider.onnx", 0)
    Bundle.load(folder, verify=False)
    (folder / "guider.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match=r"guider\.onnx"):
        Bundle.load(folder, verify=False)


@pytest.mark.parametrize("name", ["weights.safetensors", "vae_decoder.onnx", "reference.onnxruntime.onnx"])
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    assert f"lacks {name}" in refusal(folder)


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_missing_graph_is_named(graph: str, folder: Path) -> None:
    edit(folder, lambda manifest: manifest["graphs"].pop(graph))
    assert f"has no graph {graph}" in refusal(folder)


@pytest.mark.parametrize("version", [0, 2, "1", None, [1]])
def test_another_format_version_is_refused_with_both_versions(version: object, folder: Path) -> None:
    edit(folder, lambda manifest: manifest.update(version=version))
    message = refusal(folder)
    assert f"has format version {version!r}, this fye-rt reads 1" in message


CLIMBING = ["../guider.onnx", "/etc/hostname", "a/b.onnx", "..", ".", "", ".hidden", "nul\0.onnx", "a\\b", "x" * 300]


@pytest.mark.parametrize("name", CLIMBING)
def test_a_name_that_leaves_the_folder_is_refused_wherever_it_stands(name: str, folder: Path) -> None:
    (folder.parent / "guider.onnx").write_bytes((folder / "guider.onnx").read_bytes())

    def as_file(manifest: Manifest) -> None:
        manifest["files"][name] = manifest["files"]["guider.onnx"]

    def as_graph(manifest: Manifest) -> None:
        as_file(manifest)
        manifest["graphs"]["guider"]["file"] = name

    def as_variant(manifest: Manifest) -> None:
        as_file(manifest)
        manifest["graphs"]["guider"]["variants"]["onnxruntime"] = name

    def as_weights(manifest: Manifest) -> None:
        manifest["weights"]["file"] = name

    for change in (as_file, as_graph, as_variant, as_weights):
        original = (folder / MANIFEST).read_bytes()
        edit(folder, change)
        refusal(folder)
        (folder / MANIFEST).write_bytes(original)
    Bundle.load(folder)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("location", ["../weights.safetensors", "link", "{outside}"])
def test_a_graph_with_weights_outside_the_folder_does_not_open(location: str, backend: str, folder: Path) -> None:
    pytest.importorskip(backend)
    outside = Path(shutil.copy(folder / "weights.safetensors", folder.parent))
    (folder / "link").symlink_to(outside)
    for name in ("guider.onnx", "guider.onnxruntime.onnx"):
        model = onnx.load(folder / name, load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location.format(outside=outside)
        (folder / name).write_bytes(model.SerializeToString())
    edit(folder, lambda manifest: rehash(manifest, folder))
    with pytest.raises(BackendError, match="cannot open guider") as caught:
        backends.load(backend)(Bundle.load(folder), "guider", Settings())
    assert "\n" not in str(caught.value)


def test_a_file_that_no_hash_covers_is_refused(folder: Path) -> None:
    edit(folder, lambda manifest: manifest["files"].pop("denoiser.onnxruntime.onnx"))
    assert "denoiser.onnxruntime.onnx has no hash" in refusal(folder)


def as_links(folder: Path) -> Path:
    """The bundle as download caches keep it: links in one folder, files called by their hashes in another."""
    blobs, links = folder.with_name("blobs"), folder.with_name("links")
    blobs.mkdir()
    links.mkdir()
    for file in folder.iterdir():
        blob = file.rename(blobs / sha256(file))
        (links / file.name).symlink_to(Path("..", "blobs", blob.name))
    return links


def test_a_bundle_of_links_is_opened_and_its_graphs_run(folder: Path) -> None:
    digest = Bundle.load(folder).digest
    bundle = Bundle.load(as_links(folder))
    assert bundle.digest == digest
    backends.load("onnxruntime")(bundle, "guider", Settings(threads=1))


@pytest.mark.parametrize("name", ["weights.safetensors", "guider.onnx"])
def test_a_link_is_followed_only_to_the_same_bytes(name: str, folder: Path) -> None:
    outside = (folder / name).rename(folder.parent / name)
    (folder / name).symlink_to(outside)
    Bundle.load(folder)
    flip(outside, 100)
    assert f"{name} differs from its hash" in refusal(folder)


@pytest.mark.parametrize("name", [MANIFEST, "weights.safetensors", "guider.onnx"])
def test_a_dangling_link_is_named_with_its_target(name: str, folder: Path) -> None:
    links = as_links(folder)
    (links / name).resolve().unlink()
    message = refusal(links)
    assert f"{name} is a link to ../blobs/" in message and "is not there" in message
    assert "lacks" not in message and "export" not in message


def test_an_engine_that_refuses_links_names_the_copy_command(folder: Path) -> None:
    (folder / "weights.safetensors").rename(folder.parent / "weights.safetensors")
    (folder / "weights.safetensors").symlink_to("../weights.safetensors")  # of this kind ONNX Runtime refuses
    with pytest.raises(BackendError, match=f"cp -rL {folder} "):
        backends.load("onnxruntime")(Bundle.load(folder), "guider", Settings(threads=1))


@pytest.mark.parametrize("name", [MANIFEST, "weights.safetensors", "guider.onnx"])
def test_a_git_lfs_pointer_is_named(name: str, folder: Path) -> None:
    (folder / name).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1234\n")
    message = refusal(folder)
    assert f"{name} is a Git LFS pointer" in message and "git lfs pull" in message


@pytest.mark.parametrize("change", [(b"v_prediction", b"w_prediction"), (b'"version": 1', b'"version": 7')])
def test_a_changed_manifest_is_refused_by_its_seal(change: tuple[bytes, bytes], folder: Path) -> None:
    raw = (folder / MANIFEST).read_bytes()
    assert change[0] in raw
    (folder / MANIFEST).write_bytes(raw.replace(*change))
    assert f"{MANIFEST} differs from its seal" in refusal(folder)
    with pytest.raises(BundleError, match="differs from its seal"):
        put_file(folder, "plan.json", b"{}")  # it is not sealed anew


def test_a_folder_or_a_pipe_in_place_of_a_file_is_refused(folder: Path) -> None:
    for make in (os.mkfifo, os.mkdir):
        (folder / "guider.onnx").unlink()
        make(folder / "guider.onnx")
        assert "guider.onnx" in refusal(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not JSON"),
        (b"GIF89a", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "does not describe"),
        (b"3", "does not describe"),
        (b"{}", "does not describe"),
        (b'{"format": "onnx"}', "does not describe"),
        (b'{"format": "fye-bundle", "version": 1}', "no seal"),
        (b'{"format": "fye-bundle", "version": ' + b"9" * 5000 + b"}", "not JSON"),
    ],
)
def test_anything_but_a_manifest_is_refused(text: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_bytes(text)
    assert message in refusal(tmp_path)


def test_a_huge_manifest_is_refused_unread(folder: Path) -> None:
    with (folder / MANIFEST).open("r+b") as file:
        file.truncate(1 << 40)  # takes no space on the disk, and would take a terabyte of memory
    assert "is over 4 MB" in refusal(folder)


def test_anything_but_a_bundle_is_refused_with_fye_export(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent", Path(__file__)):
        assert "fye export" in refusal(path)


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every value of a JSON document stands."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [path] * bool(path) + [below for key in keys for below in paths_in(value[key], (*path, key))]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300)
@given(data=st.data())
def test_any_manifest_raises_only_bundle_errors(data: st.DataObject, folder: Path, tiny_bundle: Path) -> None:
    manifest = json.loads((tiny_bundle / MANIFEST).read_bytes())
    manifest.pop("sha256")
    places = paths_in(manifest)
    shallow = [place for place in places if len(place) < 4 or place[0] != "graphs"]
    for _ in range(data.draw(st.integers(1, 3))):
        *above, last = data.draw(st.sampled_from(shallow) | st.sampled_from(places))
        changed = copy.deepcopy(manifest)
        parent = changed
        try:
            for key in above:
                parent = parent[key]
            if data.draw(st.booleans()):
                parent[last] = data.draw(JSON)
            else:
                del parent[last]
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took this place away
        manifest = changed
    (folder / MANIFEST).write_text(sealed(manifest))
    try:
        Bundle.load(folder, verify=False)
    except BundleError as error:
        assert "\n" not in str(error)


def test_shipped_bundles_are_found_and_sound() -> None:
    names = [path.parent.name for path in shipped_bundles().glob(f"*/{MANIFEST}")]
    assert names
    for name in names:
        Bundle.load(shipped_bundles() / name)
