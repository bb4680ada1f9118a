import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fye_rt import Animator, Bundle, Forecast, Options, backends
from fye_rt.arrays import Array, to_uint8
from fye_rt.bundle import TensorSpec, symbols
from fye_rt.clips.frames import frames_of
from fye_rt.clips.live import live_frames
from fye_rt.engine import CPU_PIXELS, Arrays, Engine, Settings
from fye_rt.errors import BusyError, InputError, NumericalError
from fye_rt.network import MotionState, PortraitState
from fye_rt.noise import frame_noise
from fye_rt.timings import Timings
from tests.fye_rt.conftest import States

GUIDED = {"image_encoder", "vae_encoder", "reference", "guider", "denoiser", "vae_decoder"}
TWO_STEPS = Options(steps=2)
Answer = Callable[[str, TensorSpec, Mapping[str, Any]], Array]
Opened = list[tuple[str, "weakref.ref[Engine]"]]


class FakeEngine(Engine):
    """Gives what `answer` makes of a graph's name, an output's specification and the inputs."""

    compute = "fp32"
    pixels = CPU_PIXELS

    def __init__(self, bundle: Bundle, graph: str, answer: Answer) -> None:
        self._graph, self._outputs, self._answer = graph, bundle.graphs[graph].outputs, answer

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        return {spec.name: self._answer(self._graph, spec, inputs) for spec in self._outputs}


def zeros(graph: str, spec: TensorSpec, inputs: Mapping[str, Any]) -> Array:
    """Zeros for as many frames of 64x64 as the inputs have."""
    frames = inputs["latents"].shape[2] if "latents" in inputs else len(inputs.get("landmark_images", ()))
    sizes = symbols(frames, 64, 64)
    return np.zeros([dim if isinstance(dim, int) else sizes[dim] for dim in spec.shape], np.float32)


@pytest.fixture
def fake(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Animator]:
    """An Animator of fake engines, which give the answers of a function."""

    def make(answer: Answer) -> Animator:
        def load(name: str) -> backends.Open:
            return lambda bundle, graph, settings: FakeEngine(bundle, graph, answer)

        monkeypatch.setattr(backends, "load", load)
        return Animator(bundle)

    return make


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    """Every engine that is opened, by graph; the reference is dead once its memory was given back."""
    engines: Opened = []
    load = backends.load

    def watched(name: str) -> backends.Open:
        open_engine = load(name)

        def watch(bundle: Bundle, graph: str, settings: Settings) -> Engine:
            engine = open_engine(bundle, graph, settings)
            engines.append((graph, weakref.ref(engine)))
            return engine

        return watch

    monkeypatch.setattr(backends, "load", watched)
    return engines


def alive(opened: Opened) -> set[str]:
    return {graph for graph, engine in opened if engine() is not None}


def test_a_clip_has_the_size_and_the_length_of_its_motion(animator: Animator, states: States) -> None:
    portrait, motion = states
    assert (portrait.size, motion.size, len(motion)) == ((64, 72), (64, 72), 5)
    latents = animator.denoise(*states, options=TWO_STEPS)
    assert (latents.shape, latents.dtype) == ((1, 4, 5, 8, 9), np.float32)
    frames = animator.decode(latents)
    assert (frames.shape, frames.dtype) == ((5, 64, 72, 3), np.float32)
    assert frames.min() >= 0
    assert frames.max() <= 1


def test_a_motion_of_one_frame_makes_a_clip_of_one_frame(
    animator: Animator, states: States, images: NDArray[np.uint8]
) -> None:
    latents = animator.denoise(states[0], animator.encode_motion(images[:1]), options=TWO_STEPS)
    assert animator.decode(latents).shape == (1, 64, 72, 3)


def test_frames_are_coded_alike_alone_and_among_others(
    animator: Animator, states: States, images: NDArray[np.uint8]
) -> None:
    many = animator.encode_motion(np.concatenate([images] * 4))  # more than one call of the network takes
    np.testing.assert_allclose(many.features[15:], states[1].features, atol=1e-5)
    latents = np.random.default_rng(0).standard_normal((1, 4, 40, 16, 16), np.float32)
    # 32 frames of this size are decoded at once
    np.testing.assert_allclose(animator.decode(latents)[-1:], animator.decode(latents[:, :, -1:]), atol=1e-5)


def test_a_seed_determines_the_latents(animator: Animator, states: States) -> None:
    first, again, other = (animator.denoise(*states, options=Options(steps=2, seed=seed)) for seed in (7, 7, 8))
    assert np.array_equal(first, again)
    assert np.abs(first - other).max() > 0.1


def test_given_noise_replaces_the_noise_of_the_seed(animator: Animator, states: States) -> None:
    noise = frame_noise(7, range(5), 8, 9)
    kept = noise.copy()
    given = animator.denoise(*states, noise, Options(steps=2, seed=8))
    assert np.array_equal(given, animator.denoise(*states, options=Options(steps=2, seed=7)))
    assert np.array_equal(noise, kept)


def test_on_step_sees_every_step_and_progress_every_evaluation(animator: Animator, states: States) -> None:
    steps: list[tuple[int, int]] = []
    done: list[tuple[str, int, int]] = []
    latents = animator.denoise(
        *states,
        options=Options(steps=2, window_size=3, window_overlap=1),
        on_step=lambda index, timestep, latents: steps.append((index, timestep)),
        progress=lambda *step: done.append(step),
    )
    assert steps == [(0, 999), (1, 499)]
    assert done == [("denoise", k, 4) for k in range(1, 5)]  # two windows in each step
    frames: list[tuple[str, int, int]] = []
    animator.decode(latents, progress=lambda *step: frames.append(step))
    assert frames[-1] == ("decode", 5, 5)


@pytest.mark.parametrize("windows", ["context", "reference", "tiles", "progressive"])
def test_every_window_gets_its_own_frames(windows: str, fake: Callable[..., Animator]) -> None:
    def answer(graph: str, spec: TensorSpec, inputs: Mapping[str, Any]) -> Array:
        if graph == "denoiser":  # a network in which frames do not meet: windows must not change its clip
            landmarks = inputs["landmark_features"][:, :4].transpose(1, 0, 2, 3)[None]
            assert inputs["latents"].shape == landmarks.shape
            return np.sin(3 * inputs["latents"] + landmarks)
        return zeros(graph, spec, inputs)

    animator = fake(answer)
    portrait = animator.encode_portrait(np.zeros((64, 64, 3), np.uint8))
    features = np.random.default_rng(0).standard_normal((7, 8, 8, 8), np.float32)
    options = Options(steps=3, windows=windows, window_size=3, window_overlap=1)
    cut = animator.denoise(portrait, MotionState(features, (64, 64)), options=options)
    whole = animator.denoise(portrait, MotionState(features, (64, 64)), options=Options(steps=3))
    np.testing.assert_allclose(cut, whole, atol=1e-5)


def test_progressive_windows_divide_only_long_clips(animator: Animator, states: States) -> None:
    done: list[tuple[str, int, int]] = []
    options = Options(steps=2, windows="progressive", window_size=3, window_overlap=0)
    latents = animator.denoise(*states, options=options, progress=lambda *step: done.append(step))
    assert latents.shape == (1, 4, 5, 8, 9)
    assert done == [("denoise", k, 6) for k in range(1, 7)]  # three key frames, two intervals of three
    whole = Options(steps=2, windows="progressive")
    np.testing.assert_array_equal(
        animator.denoise(*states, options=whole), animator.denoise(*states, options=TWO_STEPS)
    )


def test_key_frames_follow_the_movement_of_the_landmarks(fake: Callable[..., Animator]) -> None:
    together: list[int] = []

    def answer(graph: str, spec: TensorSpec, inputs: Mapping[str, Any]) -> Array:
        if spec.name == "v_conditional":
            together.append(inputs["latents"].shape[2])
        return zeros(graph, spec, inputs)

    animator = fake(answer)
    images = np.zeros((40, 64, 64, 3), np.uint8)
    for k in range(20, 40):
        images[k, k : k + 8, 2 * k - 40 : 2 * k - 32] = 200
    motion = animator.encode_motion(images)
    options = Options(steps=1, windows="progressive")
    animator.denoise(animator.encode_portrait(images[0]), motion, options=options)
    still, *_, moving = together[1:]
    assert still > moving


@pytest.mark.parametrize("windows", ["context", "progressive"])
def test_pieces_of_frames_equal_those_of_the_stages(
    windows: str, animator: Animator, states: States, images: NDArray[np.uint8]
) -> None:
    options = Options(steps=2, windows=windows, window_size=3, window_overlap=1)
    progress: list[tuple[str, int, int]] = []
    timings = Timings()
    pieces = list(frames_of(animator, states[0], images, options, lambda *step: progress.append(step), timings))
    assert (len(pieces) > 1) == (windows == "progressive")
    latents = animator.denoise(*states, options=options)
    np.testing.assert_array_equal(np.concatenate(pieces), to_uint8(animator.decode(latents)))
    assert [step for step in progress if step[0] == "decode"][-1] == ("decode", 5, 5)
    assert set(timings.seconds) == {"encode_motion", "denoise", "decode"}


def test_two_clips_may_be_made_alternately(animator: Animator, states: States, images: NDArray[np.uint8]) -> None:
    options = Options(steps=2, windows="progressive", window_size=3, window_overlap=0)
    expected = list(frames_of(animator, states[0], images, options))
    first_clip, second_clip = (frames_of(animator, states[0], images, options) for _ in range(2))
    served: list[NDArray[np.uint8]] = []
    first = next(first_clip)
    thread = threading.Thread(target=lambda: served.append(next(second_clip)))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(served[0], first)
    for made, piece in zip([first, *first_clip], expected, strict=True):
        np.testing.assert_array_equal(made, piece)


def test_only_progressive_windows_denoise_over_600_frames(fake: Callable[..., Animator]) -> None:
    asked: list[int] = []

    class Long:
        shape = (700, 64, 64, 3)

        def __len__(self) -> int:
            return 700

        def __getitem__(self, frames: Any) -> NDArray[np.uint8]:
            count = len(range(700)[frames]) if isinstance(frames, slice) else len(frames)
            asked.append(count)
            return np.zeros((count, 64, 64, 3), np.uint8)

    animator = fake(zeros)
    portrait = animator.encode_portrait(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(InputError, match=r"the clip has 700 frames; .*windows='progressive'"):
        next(frames_of(animator, portrait, Long(), Options(steps=1)))
    assert not asked
    made = frames_of(animator, portrait, Long(), Options(steps=1, windows="progressive"))
    assert sum(map(len, made)) == 700
    assert max(asked) <= 24


@pytest.fixture
def live(fake: Callable[..., Animator]) -> tuple[Animator, PortraitState]:
    """An Animator whose frames are as bright as their landmark images, and a portrait of 64x64."""

    def answer(graph: str, spec: TensorSpec, inputs: Mapping[str, Any]) -> Array:
        if graph == "guider":
            grey = inputs["landmark_images"].mean(axis=(1, 2, 3))
            return np.broadcast_to(grey[:, None, None, None], (len(grey), 8, 8, 8)).astype(np.float32)
        if graph == "denoiser":  # x0 is the features, whatever the noise: v = -x0 where alpha_bar is 0
            features = inputs["landmark_features"][:, :4].transpose(1, 0, 2, 3)[None]
            return -features
        if graph == "vae_decoder":
            grey = inputs["latents"].mean(axis=(0, 1, 3, 4))
            return np.broadcast_to(grey[:, None, None, None], (len(grey), 64, 64, 3)).astype(np.float32)
        return zeros(graph, spec, inputs)

    animator = fake(answer)
    return animator, animator.encode_portrait(np.zeros((64, 64, 3), np.uint8))


LIVE = Options(steps=1, window_size=4, window_overlap=1)


def greys(levels: Iterable[int | None]) -> Iterator[NDArray[np.uint8] | None]:
    for level in levels:
        yield None if level is None else np.full((64, 64, 3), level, np.uint8)


def gated(gate: threading.Event, before: Iterable[int], after: Iterable[int]) -> Iterator[NDArray[np.uint8] | None]:
    yield from greys(before)
    assert gate.wait(60)
    yield from greys(after)


def levels(frames: Iterable[NDArray[np.uint8]]) -> list[list[int]]:
    return [piece[:, 0, 0, 0].tolist() for piece in frames]


def test_a_stream_gives_windows_pinned_to_the_frames_before(live: tuple[Animator, PortraitState]) -> None:
    made = levels(live_frames(*live, greys(range(20, 29)), LIVE))
    assert [len(piece) for piece in made] == [4, 3, 2]  # the source ends early
    assert np.abs(np.concatenate(made) - np.arange(20, 29)).max() <= 1  # truncated to levels


@pytest.mark.parametrize(
    ("before", "after", "more"), [(4, 3, {}), (2, 2, {"patience": 0.2})], ids=["full windows", "a stalling source"]
)
def test_frames_come_out_while_landmarks_still_come_in(
    before: int, after: int, more: dict[str, Any], live: tuple[Animator, PortraitState]
) -> None:
    goes_on = threading.Event()
    frames = live_frames(*live, gated(goes_on, range(before), range(after)), LIVE, **more)
    assert len(next(frames)) == before
    goes_on.set()
    assert len(next(frames)) == after
    assert next(frames, None) is None


def test_a_frame_without_a_face_repeats_the_one_before(live: tuple[Animator, PortraitState]) -> None:
    made = np.concatenate(levels(live_frames(*live, greys([None, None, 40, None, 90, None]), LIVE)))
    assert np.abs(made - [40, 40, 90, 90]).max() <= 1
    assert levels(live_frames(*live, greys([None] * 9), LIVE)) == []


def test_a_frame_of_another_size_ends_the_stream(live: tuple[Animator, PortraitState]) -> None:
    def source() -> Iterator[NDArray[np.uint8] | None]:
        yield from greys(range(5))
        yield np.zeros((64, 72, 3), np.uint8)

    frames = live_frames(*live, source(), LIVE)
    assert [len(next(frames)), len(next(frames))] == [4, 1]
    with pytest.raises(InputError, match=r"image is uint8 \(64, 72, 3\); give uint8 \(64, 64, 3\)"):
        next(frames)


def test_a_closed_stream_closes_its_source(live: tuple[Animator, PortraitState]) -> None:
    closed = threading.Event()

    def source() -> Iterator[NDArray[np.uint8] | None]:
        try:
            yield from greys(range(200))
        finally:
            closed.set()

    frames = live_frames(*live, source(), LIVE)
    next(frames)
    frames.close()
    assert closed.wait(60)
    live[0].close()  # nothing holds it


def test_a_waiting_stream_does_not_block_the_animator(live: tuple[Animator, PortraitState]) -> None:
    more = threading.Event()
    stream = live_frames(*live, gated(more, [], [1, 2]), LIVE)
    made: list[list[int]] = []
    waiting = threading.Thread(target=lambda: made.extend(levels(stream)))
    waiting.start()
    live[0].encode_portrait(np.zeros((64, 64, 3), np.uint8))
    more.set()
    waiting.join(60)
    assert len(made) == 1


def test_a_face_mask_needs_a_motion_that_knows_the_face(fake: Callable[..., Animator]) -> None:
    animator = fake(zeros)
    images = np.zeros((3, 64, 64, 3), np.uint8)
    images[:, 20:40, 24:40] = 200
    portrait, motion = animator.encode_portrait(images[0]), animator.encode_motion(images)
    assert motion.face is not None and motion.face.shape == (3, 8, 8) and motion.face.any()
    options = Options(steps=4, forecast=Forecast(method="taylor", evaluations=2, face_mask=True))
    animator.denoise(portrait, motion, options=options)
    with pytest.raises(InputError, match="face_mask"):
        animator.denoise(portrait, MotionState(motion.features, motion.size), options=options)


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_without_guidance_only_the_conditional_graph_is_loaded(
    guidance: float, bundle: Bundle, states: States, opened: Opened
) -> None:
    with Animator(bundle, "onnxruntime") as animator:
        animator.denoise(*states, options=Options(steps=1, guidance=guidance))
        assert alive(opened) == {"denoiser_cond"}


def test_guidance_just_above_one_agrees_with_the_conditional_graph(animator: Animator, states: States) -> None:
    without = animator.denoise(*states, options=Options(steps=2, guidance=1))
    barely = animator.denoise(*states, options=Options(steps=2, guidance=1 + 1e-9))
    np.testing.assert_allclose(without, barely, atol=1e-4)  # two graphs, float32 in another order
    assert np.abs(without - animator.denoise(*states, options=TWO_STEPS)).max() > 1e-3


@pytest.mark.slow
def test_low_memory_frees_graphs_that_run_once(bundle: Bundle, images: NDArray[np.uint8], opened: Opened) -> None:
    def clip(low_memory: bool) -> Array:
        with Animator(bundle, "onnxruntime", low_memory=low_memory) as animator:
            for _ in range(2):  # what was released is loaded again
                states = animator.encode_portrait(images[0]), animator.encode_motion(images)
                frames = animator.decode(animator.denoise(*states, options=TWO_STEPS))
            assert alive(opened) == ({"denoiser"} if low_memory else GUIDED)
            return frames

    kept = clip(low_memory=False)
    opened.clear()
    assert np.array_equal(clip(low_memory=True), kept)


def test_warm_up_loads_every_graph_of_a_clip(bundle: Bundle, images: NDArray[np.uint8], opened: Opened) -> None:
    with Animator(bundle, "onnxruntime") as animator:
        animator.warm_up((64, 64), frames=2)
        assert sorted(graph for graph, _ in opened) == sorted(GUIDED)
        states = animator.encode_portrait(images[0]), animator.encode_motion(images)
        animator.decode(animator.denoise(*states, options=TWO_STEPS))
        assert len(opened) == len(GUIDED)


def test_a_second_thread_is_refused_and_the_first_goes_on_unharmed(
    animator: Animator, states: States, images: NDArray[np.uint8]
) -> None:
    expected = animator.denoise(*states, options=TWO_STEPS)
    started, refused = threading.Event(), threading.Event()
    results: list[Array] = []

    def wait(index: int, timestep: int, latents: Array) -> None:
        started.set()
        assert refused.wait(60)

    thread = threading.Thread(target=lambda: results.append(animator.denoise(*states, options=TWO_STEPS, on_step=wait)))
    thread.start()
    assert started.wait(60)
    for call in (
        lambda: animator.encode_portrait(images[0]),
        lambda: animator.encode_motion(images),
        lambda: animator.denoise(*states, options=TWO_STEPS),
        lambda: animator.decode(expected),
        lambda: animator.animate(images[0], images, TWO_STEPS),
        animator.warm_up,
        animator.close,
    ):
        with pytest.raises(BusyError, match="another call"):
            call()
    refused.set()
    thread.join()
    assert np.array_equal(results[0], expected)
    assert np.array_equal(animator.denoise(*states, options=TWO_STEPS), expected)


def test_a_second_thread_is_refused_between_stages_too(animator: Animator, images: NDArray[np.uint8]) -> None:
    refused: list[BaseException] = []

    def intrude(stage: str, done: int, total: int) -> None:
        def call() -> None:
            try:
                animator.encode_motion(images)
            except BusyError as error:
                refused.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        stages.append(stage)

    stages: list[str] = []
    animator.animate(images[0], images, TWO_STEPS, progress=intrude)
    assert {"encode", "denoise", "decode"} == set(stages)
    assert len(refused) == len(stages)


def test_an_animator_serves_again_after_a_call_that_failed(animator: Animator, states: States) -> None:
    class Stopped(Exception):
        pass

    def stop(*step: object) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        animator.denoise(*states, options=TWO_STEPS, on_step=stop)
    animator.denoise(*states, options=TWO_STEPS)


def test_a_closed_animator_frees_its_memory(bundle: Bundle, images: NDArray[np.uint8], opened: Opened) -> None:
    with Animator(bundle, "onnxruntime") as animator:
        motion = animator.encode_motion(images)
        assert alive(opened) == {"guider"}
    assert alive(opened) == set()
    animator.close()  # again, which is no mistake
    with pytest.raises(BusyError, match="closed; make a new one"):
        animator.encode_motion(images)
    assert len(motion) == 5  # results outlive it


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("graph", sorted({*GUIDED, "denoiser_cond"}))
def test_a_network_that_returns_nan_is_reported(graph: str, value: float, fake: Callable[..., Animator]) -> None:
    def answer(asked: str, spec: TensorSpec, inputs: Mapping[str, Any]) -> Array:
        output = zeros(asked, spec, inputs)
        if asked == graph:
            output.flat[-1] = value
        return output

    animator = fake(answer)
    guidance = 1.0 if graph == "denoiser_cond" else 3.5
    with pytest.raises(NumericalError, match="NaN or infinity") as caught:
        portrait = animator.encode_portrait(np.zeros((64, 64, 3), np.uint8))
        motion = animator.encode_motion(np.zeros((3, 64, 64, 3), np.uint8))
        animator.decode(animator.denoise(portrait, motion, options=Options(steps=2, guidance=guidance)))
    message = str(caught.value)
    assert "at step 0 (timestep 999), window 1 of 1" in message if "denoiser" in graph else graph in message
