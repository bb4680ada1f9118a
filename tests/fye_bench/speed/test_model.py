"""The model that `fye bench` makes is made once, kept, and made again only where it has to be."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fye_bench.speed import model
from fye_bench.speed.latency import main
from fye_bench.speed.model import KEPT, Model, find_model
from fye_export.checkpoint import Checkpoint
from fye_export.random_checkpoint import PRESETS
from fye_rt.bundle import MANIFEST, Bundle, sealed
from fye_rt.errors import OptionError
from fye_rt.files import locked


class Making:
    """Copies instead of minutes of exporting, and what was made and said."""

    def __init__(self, bundle: Path, checkpoint: Path) -> None:
        self.made: list[str] = []
        self.said: list[str] = []
        self._bundle, self._checkpoint = bundle, checkpoint

    def write(self, path: Path, *given: object, **more: object) -> None:
        self.made.append("checkpoint")
        shutil.copytree(self._checkpoint, path)

    def export(self, checkpoint: Path, path: Path, **more: object) -> None:
        self.made.append("bundle")
        shutil.copytree(self._bundle, path)

    def find(self, **settings: object) -> Model:
        return find_model(None, None, self.said.append, **settings)  # type: ignore[arg-type]


@pytest.fixture
def exported(tiny_bundle: Path, golden_checkpoint: Path, tmp_path: Path) -> Path:
    """A bundle that says it was exported from the golden checkpoint."""
    folder = tmp_path / "exported"
    shutil.copytree(tiny_bundle, folder)
    manifest = dict(Bundle.load(folder).manifest)
    manifest["source"] = manifest["source"] | {"checkpoint_sha256": Checkpoint.open(golden_checkpoint).digest}
    (folder / MANIFEST).write_text(sealed(manifest))
    return folder


@pytest.fixture
def making(exported: Path, golden_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Making:
    making = Making(exported, golden_checkpoint)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(model, "write", making.write)
    monkeypatch.setattr(model, "export", making.export)
    return making


def test_a_second_call_reuses_the_exported_model(
    making: Making, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = making.find()
    monkeypatch.chdir(tmp_path)  # the place of the call makes no difference
    assert making.find() == first and first.bundle.is_relative_to(tmp_path / "cache" / "fye-rt" / "bench")
    assert making.made == ["checkpoint", "bundle"]
    assert [text.split()[0] for text in making.said] == ["make", "reuse"]
    assert all(str(first.bundle.parent) in text for text in making.said)


def test_fresh_exports_the_model_again(making: Making) -> None:
    assert making.find() == making.find(fresh=True) and making.made == 2 * ["checkpoint", "bundle"]


@pytest.mark.parametrize("change", ["sources", "libraries", "config", "seed", "precision"])
def test_a_model_made_from_something_else_is_exported_again(
    making: Making, change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = making.find()
    if change == "sources":
        (source := tmp_path / "graphs.py").write_text("# another way to cut graphs")
        monkeypatch.setattr(model, "_sources", lambda: [source])
    elif change == "libraries":
        monkeypatch.setattr(model, "installed_version", lambda library: "9.9")
    elif change == "config":
        monkeypatch.setitem(PRESETS, model.PRESET, PRESETS["tiny"])
    elif change == "seed":
        monkeypatch.setattr(model, "SEED", 1)
    second = making.find(precision="fp16" if change == "precision" else "fp32")
    assert second != first and making.made == 2 * ["checkpoint", "bundle"]


def test_the_name_of_a_model_covers_the_sources_of_its_exporter() -> None:
    assert {"export.py", "networks.py", "bundle.py", "model.py"} <= {file.name for file in model._sources()}


@pytest.mark.parametrize("file", ["bundle/bundle.json", "bundle/weights.safetensors", "bundle/guider.onnx"])
def test_a_damaged_bundle_is_made_again(making: Making, file: str) -> None:
    damaged = making.find().bundle.parent / file
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1])
    making.find()
    assert damaged.read_bytes() == whole and making.made == 2 * ["checkpoint", "bundle"]
    assert any("is made again" in text for text in making.said)


def test_a_damaged_checkpoint_is_made_again(making: Making) -> None:
    folder = making.find().checkpoint
    largest = max((file for file in folder.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1] + b"\xff")
    making.find()
    assert making.made == 2 * ["checkpoint", "bundle"]


def test_an_export_that_was_cut_short_goes_on_with_its_checkpoint(
    making: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(model, "export", lambda *given, **more: (_ for _ in ()).throw(KeyboardInterrupt))
        making.find()
    making.find()
    assert making.made == ["checkpoint", "bundle"]


def test_two_concurrent_calls_export_the_model_once(making: Making) -> None:
    with ThreadPoolExecutor(2) as both:
        list(both.map(lambda _: making.find(), range(2)))
    assert making.made == ["checkpoint", "bundle"]


def test_the_models_used_least_recently_are_removed(making: Making, monkeypatch: pytest.MonkeyPatch) -> None:
    models = []
    for seed in range(KEPT + 2):
        monkeypatch.setattr(model, "SEED", seed)
        models.append(making.find())
    assert [found.bundle.exists() for found in models] == [False, False] + [True] * KEPT


def test_a_model_that_is_being_made_is_not_removed(making: Making, monkeypatch: pytest.MonkeyPatch) -> None:
    first = making.find()
    with locked(model._lock(first.bundle.parent)):
        for seed in range(1, KEPT + 1):
            monkeypatch.setattr(model, "SEED", seed)
            making.find()
    assert first.bundle.exists()


def test_fresh_is_refused_together_with_a_bundle(exported: Path, golden_checkpoint: Path) -> None:
    with pytest.raises(OptionError, match="fresh makes the mid-size model again; leave out bundle and checkpoint"):
        main(["--fresh", "--bundle", str(exported), "--checkpoint", str(golden_checkpoint)])
