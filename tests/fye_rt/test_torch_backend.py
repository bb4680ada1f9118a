"""The torch backend computes what ONNX Runtime computes, from the same file."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fye_rt import Animator, Bundle, Options, backends
from fye_rt.arrays import to_uint8
from fye_rt.errors import BackendError, NumericalError
from fye_rt.options import Forecast

pytest.importorskip("torch")

SIZES = {"frames": 3, "height": 64, "width": 72, "latent_height": 8, "latent_width": 9}
# float32 in another order of additions, through up to 100 layers; see test_parity.py
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


def inputs(bundle: Bundle, graph: str) -> dict[str, Any]:
    random, sizes = np.random.default_rng(0), dict(SIZES)
    height, width = SIZES["latent_height"], SIZES["latent_width"]
    for level in range(4):
        sizes[f"tokens{level}"] = height * width
        height, width = (height + 1) // 2, (width + 1) // 2
    arrays: dict[str, Any] = {}
    for tensor in bundle.graphs[graph].inputs:
        shape = [sizes[d] if isinstance(d, str) else d for d in tensor.shape]
        whole = tensor.dtype == "int64"
        arrays[tensor.name] = np.array([500], np.int64) if whole else random.standard_normal(shape, dtype=np.float32)
    return arrays


@pytest.mark.parametrize(
    "graph", ["image_encoder", "vae_encoder", "reference", "guider", "denoiser", "denoiser_cond", "vae_decoder"]
)
def test_every_graph_equals_onnx_runtime(bundle: Bundle, graph: str) -> None:
    given = inputs(bundle, graph)
    made, expected = (
        backends.load(name)(bundle, graph, backends.Settings(compute="fp32", threads=1)).run(given)
        for name in ("torch", "onnxruntime")
    )
    assert list(made) == list(expected)
    for name, array in expected.items():
        assert made[name].dtype == np.float32 and made[name].shape == array.shape
        np.testing.assert_allclose(made[name], array, rtol=0, atol=TOLERANCE * max(1.0, float(np.abs(array).max())))


def test_so_do_networks_with_other_modules_around_their_weights(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = pytest.importorskip("fye_kernels.modules")
    from fye_rt.backends import torch as backend

    monkeypatch.setattr(backend, "_shared", {})
    monkeypatch.setattr(backend, "_operations", lambda device: modules.PLAIN)
    for graph in ("vae_encoder", "reference", "denoiser", "denoiser_cond", "vae_decoder"):
        test_every_graph_equals_onnx_runtime(bundle, graph)
        opened = backend.open_engine(bundle, graph, backends.Settings())
        assert any(isinstance(module, modules.Norm) for module in opened.module.modules())
    denoiser = backend.open_engine(bundle, "denoiser", backends.Settings())
    assert isinstance(denoiser.module, modules.Denoiser)
    assert denoiser.module.guided


def test_a_clip_equals_onnx_runtime_s(bundle: Bundle) -> None:
    random = np.random.default_rng(1)
    portrait, images = random.integers(0, 256, (64, 64, 3), np.uint8), random.integers(0, 256, (4, 64, 64, 3), np.uint8)
    clips = []
    for name in ("torch", "onnxruntime"):
        with Animator(bundle, name, compute="fp32", threads=1) as animator:
            states = animator.encode_portrait(portrait), animator.encode_motion(images)
            clips.append(animator.decode(animator.denoise(*states, options=Options(steps=3))))
    np.testing.assert_allclose(*clips, rtol=0, atol=1e-3)


def smooth(graph: str, latents: Any, timestep: Any, features: Any, *portrait: Any) -> tuple[Any, ...]:
    """In the denoiser's place."""
    moved = (latents * (1 + timestep / 1000) + features.mean(1)).tanh()
    return (latents.sin(), moved)[graph == "denoiser_cond" :]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"guidance": 1.0},
        {"forecast": Forecast(method="newton", order=2, quantity="epsilon", evaluations=4)},
        {"forecast": Forecast(method="newton", order=1, quantity="epsilon", evaluations=4, face_mask=True)},
        {"forecast": Forecast(method="adaptive", tolerance=0.2)},
        {"solver": "unipc"},
        {"windows": "context", "window_size": 4, "window_overlap": 2},
        {"windows": "progressive", "window_size": 5},
    ],
    ids=["guided", "conditional", "forecast", "face", "adaptive", "solver", "windows", "progressive"],
)
def test_latents_that_stay_on_the_device_go_the_same_way(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    modules = pytest.importorskip("fye_kernels.modules")
    from fye_rt.backends import torch as backend

    random = np.random.default_rng(1)
    portrait, images = random.integers(0, 256, (64, 64, 3), np.uint8), random.integers(0, 256, (7, 64, 64, 3), np.uint8)
    face = random.random((7, 8, 8)) < 0.5
    options = Options(**{"steps": 6, **settings})
    latents, steps = [], []
    monkeypatch.setattr(backend, "_shared", {})
    monkeypatch.setattr(backend, "_operations", lambda device: modules.PLAIN)
    for own in (True, False):
        if not own:
            monkeypatch.setattr(backend.TorchEngine, "loop", None)
        seen: list[Any] = []
        with Animator(bundle, "torch", compute="fp32", threads=1) as animator:
            states = animator.encode_portrait(portrait), replace(animator.encode_motion(images), face=face)
            for graph in ("denoiser", "denoiser_cond"):  # the random network multiplies what rounding differs by
                monkeypatch.setattr(animator._engine(graph).module, "forward", partial(smooth, graph))
            told: list[tuple[int, int]] = []
            latents.append(
                animator.denoise(
                    *states,
                    options=options,
                    on_step=lambda *step, seen=seen: seen.append(step),
                    progress=lambda *count, told=told: told.append(count),
                )
            )
        steps.append(([(number, timestep, x.shape) for number, timestep, x in seen], told))
        assert not seen[-1][2].flags.writeable
    np.testing.assert_allclose(*latents, rtol=0, atol=2e-5)
    assert steps[0] == steps[1]


@pytest.mark.parametrize("half", [0, 1], ids=["unconditional", "conditional"])
def test_a_prediction_that_is_not_finite_is_named_on_the_device_too(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, half: int
) -> None:
    modules = pytest.importorskip("fye_kernels.modules")
    from fye_rt.backends import torch as backend

    monkeypatch.setattr(backend, "_shared", {})
    monkeypatch.setattr(backend, "_operations", lambda device: modules.PLAIN)
    blank = np.zeros((3, 64, 64, 3), np.uint8)
    with Animator(bundle, "torch", threads=1) as animator:
        states = animator.encode_portrait(blank[0]), animator.encode_motion(blank)

        def forward(latents: Any, *_: Any) -> tuple[Any, Any]:
            halves = [latents, latents]
            halves[half] = latents / (latents.abs() < 0)
            return halves[0], halves[1]

        monkeypatch.setattr(animator._engine("denoiser").module, "forward", forward)
        with pytest.raises(NumericalError, match=r"step 0 \(timestep 999\), window 1 of 1 \(frames 0 to 2\)"):
            animator.denoise(*states, options=Options(steps=3))


def test_graphs_share_the_networks_they_have_in_common(bundle: Bundle) -> None:
    from fye_rt.backends.torch import open_engine

    settings = backends.Settings(threads=1)
    engines = [open_engine(bundle, graph, settings) for graph in ("denoiser", "denoiser_cond", "reference")]
    unets = {id(engine.module.unet) for engine in engines}
    assert len(unets) == 1
    other = open_engine(replace(bundle, digest="another bundle's"), "denoiser", settings)
    assert id(other.module.unet) not in unets


def test_constants_of_the_unconditional_half_are_those_of_the_bundle(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fye_rt.backends import torch as backend

    stored = {name: 0 * x + 7 for name, x in backend._tensors(bundle, ("unet.",)).items() if "unconditional" in name}
    kept = backend._tensors
    monkeypatch.setattr(backend, "_shared", {})
    monkeypatch.setattr(backend, "_tensors", lambda *given: kept(*given) | stored)
    denoiser = backend.open_engine(bundle, "denoiser", backends.Settings(threads=1)).module
    assert len(stored) == 16
    assert all((denoiser.get_buffer(name) == 7).all() for name in stored)


def test_equal_tensors_that_are_stored_once_are_found_under_each_of_their_names(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from fye_rt.backends import torch as backend

    one, two = torch.ones(2), torch.full((3,), 2.0)
    save_file({"unet.one": one, "vae.two": two}, tmp_path / "weights.safetensors")
    shared = {"unet.again": "unet.one", "unet.two": "vae.two", "vae.one": "unet.one"}
    stored: Any = SimpleNamespace(
        path=tmp_path, weights="weights.safetensors", manifest={"weights": {"shared": shared}}
    )
    found = backend._tensors(stored, ("unet.",))
    assert set(found) == {"unet.one", "unet.again", "unet.two"}
    assert torch.equal(found["unet.again"], one) and torch.equal(found["unet.two"], two)


def test_weights_of_other_networks_are_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    from fye_rt.backends import torch as backend

    kept = backend._tensors
    monkeypatch.setattr(backend, "_shared", {})
    monkeypatch.setattr(backend, "_tensors", lambda *given: {k: v[..., :1] for k, v in kept(*given).items()})
    with pytest.raises(BackendError, match="weights don't fit the networks"):
        backend.open_engine(bundle, "guider", backends.Settings())
    monkeypatch.setattr(
        backend, "_tensors", lambda *given: {**kept(*given), "lmk_guider.more": next(iter(kept(*given).values()))}
    )
    with pytest.raises(BackendError, match="no network has more"):
        backend.open_engine(bundle, "guider", backends.Settings())


def test_frames_become_bytes_as_on_the_host(bundle: Bundle) -> None:
    engine = backends.load("torch")(bundle, "vae_decoder", backends.Settings(threads=1))
    given = inputs(bundle, "vae_decoder")
    assert engine.pixels_of is None  # of a CPU, where nothing has to be copied
    np.testing.assert_array_equal(engine._pixels_of(given["latents"]), to_uint8(engine.run(given)["frames"]))
    with pytest.raises(NumericalError, match="vae_decoder returned NaN"):
        engine._pixels_of(np.full_like(given["latents"], np.nan))


class ImitatedGraph:
    """In a CUDA graph's place: runs again what was run while it was captured, on the same memory."""

    capturing: "ImitatedGraph | None" = None

    def __init__(self) -> None:
        self.captured: list[Any] = []
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        for compute, given, result in self.captured:
            result.copy_(compute(*given))

    @classmethod
    @contextmanager
    def capture(cls, graph: "ImitatedGraph", pool: object) -> Iterator[None]:
        cls.capturing = graph
        yield
        cls.capturing = None


def test_evaluations_are_replayed_from_the_second_run_of_a_shape_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from fye_rt.backends import torch as backend

    monkeypatch.setattr(torch.cuda, "CUDAGraph", ImitatedGraph)
    monkeypatch.setattr(torch.cuda, "graph", ImitatedGraph.capture)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
    runs = []

    def compute(latents: Any, timestep: Any, features: Any, portrait: Any) -> Any:
        return latents * timestep + features + 10 * portrait

    def module(*given: Any) -> tuple[Any]:
        result = compute(*given)
        runs.append(result.shape)
        if ImitatedGraph.capturing is not None:
            ImitatedGraph.capturing.captured.append((compute, given, result))
        return (result,)

    replayed = backend._Replayed(module)  # type: ignore[arg-type]
    portraits = [torch.tensor(1.0), torch.tensor(2.0)]
    features = {size: [torch.rand(size), torch.rand(size)] for size in (3, 4)}
    for turn in range(8):
        for size in (3, 4):  # two shapes in turn
            given = torch.rand(size), torch.tensor([turn]), features[size][turn // 4], portraits[turn // 2 % 2]
            (result,) = replayed(*given)
            assert torch.equal(result, compute(*given)), turn
    assert runs == [(3,), (4,), (3,), (4,)]  # the first of each as it is, the second captured
    captured = [replayed._captured[key] for key in replayed._captured]
    assert [graph._graph.replays for graph in captured] == [7, 7]

    held = features[3][1]
    held += 1  # what is held does not change, so it is not copied every time
    (result,) = replayed(torch.zeros(3), torch.tensor([1]), held, portraits[1])
    assert torch.equal(result, compute(torch.zeros(3), torch.tensor([1]), held - 1, portraits[1]))


def test_denoisers_alone_are_replayed_and_on_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from fye_export.graphs import graph_specs
    from fye_export.random_checkpoint import PRESETS
    from fye_rt.backends import torch as backend

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
    for name, spec in graph_specs(PRESETS["tiny"]).items():
        for device in ("cuda", "cpu"):
            engine = backend.TorchEngine(torch.nn.Identity(), spec, torch.device(device), "fp16")
            wanted = device == "cuda" and name in ("denoiser", "denoiser_cond")
            assert isinstance(engine._call, backend._Replayed) == wanted
            assert engine.loop is None  # there are no kernels
            assert (engine.pixels_of is not None) == (device == "cuda")
