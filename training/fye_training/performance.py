"""Expressions and head movements over time, from a seed."""

from dataclasses import dataclass

import numpy as np

from fye_rt.errors import InputError
from fye_training.expressions import EXAGGERATION, EXPRESSIONS, INDEX
from fye_training.topology import Array

FPS = 25.0

Group = dict[str, float]  # expressions that act together, with their largest weights


def _both(**weights: float) -> Group:
    return {f"{name}{side}": weight for name, weight in weights.items() for side in ("Left", "Right")}


MOUTHS: tuple[Group, ...] = (
    {"jawOpen": 1.0},
    {"jawOpen": 1.4, **_both(mouthStretch=0.6)},
    {"jawOpen": 0.6, **_both(mouthSmile=1.0, cheekSquint=0.6)},
    {"jawOpen": 1.1, **_both(mouthSmile=1.2, mouthUpperUp=0.6, eyeSquint=0.5)},
    _both(mouthSmile=1.0, mouthDimple=0.3),
    _both(mouthSmile=1.4, cheekSquint=1.0, mouthUpperUp=0.5),
    {"mouthSmileLeft": 1.1, "mouthDimpleLeft": 0.5},
    {"mouthSmileRight": 1.1, "mouthDimpleRight": 0.5},
    {**_both(mouthFrown=1.2), "mouthShrugLower": 0.7},
    {"jawOpen": 0.7, **_both(mouthFrown=1.0, mouthLowerDown=0.8)},
    {"mouthPucker": 1.1},
    {"mouthFunnel": 1.0, "jawOpen": 0.5},
    {"mouthPucker": 0.7, "jawOpen": 0.9},
    _both(mouthStretch=1.1, mouthLowerDown=0.7),
    {**_both(mouthPress=1.0), "mouthRollLower": 0.8, "mouthRollUpper": 0.8},
    {"mouthLeft": 1.0, "mouthPucker": 0.5},
    {"mouthRight": 1.0, "mouthPucker": 0.5},
    {"jawLeft": 1.0, "jawOpen": 0.5},
    {"jawRight": 1.0, "jawOpen": 0.5},
    {"cheekPuff": 1.0, "mouthPucker": 0.4},
    _both(noseSneer=1.0, mouthUpperUp=1.0),
)
LIDS: tuple[Group, ...] = (
    _both(eyeBlink=1.0),
    _both(eyeBlink=0.55),
    {"eyeBlinkLeft": 1.0, "cheekSquintLeft": 0.7},
    {"eyeBlinkRight": 1.0, "cheekSquintRight": 0.7},
    _both(eyeWide=1.0),
    _both(eyeSquint=1.0),
)
BROWS: tuple[Group, ...] = (
    _both(browDown=1.3),
    {"browInnerUp": 1.3},
    {"browInnerUp": 1.1, **_both(browOuterUp=1.2)},
    _both(browOuterUp=1.2),
    {"browOuterUpLeft": 1.2, "browDownRight": 0.8},
    {"browOuterUpRight": 1.2, "browDownLeft": 0.8},
)
SYLLABLES: Group = {
    "jawOpen": 0.7,
    "mouthFunnel": 0.5,
    "mouthPucker": 0.4,
    "mouthClose": 0.3,
    **_both(mouthStretch=0.4, mouthLowerDown=0.5, mouthUpperUp=0.3),
}
TURNS = np.array((8.0, 14.0, 7.0))  # standard deviation of pitch, yaw and roll, in degrees
MOST_TURN = 2.7 * TURNS  # beyond this turn the nose hides the far eye


@dataclass(frozen=True, slots=True)
class Style:
    """Strengths of a kind of performance, in weights, seconds, degrees and centimetres."""

    mouth: float = 0.0
    pause: float = 1.2
    brows: float = 0.0
    lids: float = 0.0
    speech: float = 0.0
    gaze: float = 0.25
    rotation: tuple[float, float, float] = (3.0, 5.0, 2.5)
    translation: tuple[float, float, float] = (0.3, 0.2, 0.3)


STYLES = {
    "calm": Style(mouth=0.4, brows=0.3),
    "talking": Style(mouth=0.35, brows=0.5, speech=1.0, rotation=(5.0, 7.0, 4.0)),
    "exaggerated": Style(mouth=1.0, pause=0.4, brows=1.0, lids=1.0, gaze=0.7, rotation=(7.0, 10.0, 6.0)),
    "gaze": Style(mouth=0.2, brows=0.3, gaze=1.0),
    "head turns": Style(mouth=0.4, brows=0.3, gaze=0.4, rotation=(14.0, 26.0, 12.0), translation=(0.8, 0.5, 0.8)),
}
KINDS = tuple(STYLES)


@dataclass(frozen=True, slots=True, eq=False)
class Performance:
    """Expressions and head movements in F frames.

    Attributes:
        weights: float64 (F, 51), expressions in MediaPipe's order, in [0, 1.5].
        rotation: float64 (F, 3), degrees: pitch (chin down), yaw (to the picture's right), roll (counterclockwise).
        translation: float64 (F, 3), centimetres from the head's placement: x right, y up, z towards the camera.
    """

    weights: Array
    rotation: Array
    translation: Array

    def __len__(self) -> int:
        return len(self.weights)

    def __add__(self, later: "Performance") -> "Performance":
        names = ("weights", "rotation", "translation")
        return Performance(*(np.concatenate((getattr(self, name), getattr(later, name))) for name in names))

    def __getitem__(self, frames: slice) -> "Performance":
        return Performance(self.weights[frames], self.rotation[frames], self.translation[frames])


def resting(frames: int) -> Performance:
    """Frames of a neutral face that looks straight ahead."""
    return Performance(np.zeros((frames, len(EXPRESSIONS))), np.zeros((frames, 3)), np.zeros((frames, 3)))


def poses(seed: int, count: int) -> Performance:
    """Unrelated frames that cover a face's range: mouth, eyes, brows, gaze and head vary independently in each."""
    random = np.random.default_rng(seed)
    performance = resting(count)
    weights = performance.weights
    for groups, share in ((MOUTHS, 0.85), (LIDS, 0.5), (BROWS, 0.6)):
        choice = random.integers(len(groups), size=count)
        choice[random.random(count) > share] = -1
        # one strength per group, full in a quarter of the frames, and a slight variation of each expression
        strength = np.minimum(random.uniform(0.15, 1.3, count), 1.0)
        for number, group in enumerate(groups):
            rows = np.flatnonzero(choice == number)
            for name, most in group.items():
                weights[rows, INDEX[name]] = most * strength[rows] * random.uniform(0.9, 1.0, len(rows))
    _look(weights, random.uniform(-1.0, 1.0, (count, 2)) * (random.random(count) < 0.7)[:, None])
    performance.rotation[:] = np.clip(random.normal(size=(count, 3)) * TURNS, -MOST_TURN, MOST_TURN)
    performance.translation[:] = random.normal(size=(count, 3)) * (0.5, 0.35, 0.5)
    return performance


def perform(seed: int, frames: int, kind: str, start_neutral: bool = True) -> Performance:
    """A clip of a kind of performance, at 25 frames per second.

    Args:
        seed: random seed.
        frames: number of frames, at least 1.
        kind: one of `KINDS`.
        start_neutral: begin with a neutral face that looks straight ahead, and come to life over half a second.

    Raises:
        InputError: an unknown kind.
    """
    if kind not in KINDS:
        raise InputError(f"no kind of performance is called {kind!r}; choose from {', '.join(KINDS)}")
    random = np.random.default_rng((seed, KINDS.index(kind)))
    style = STYLES[kind]
    seconds = np.arange(frames) / FPS
    performance = resting(frames)
    weights = performance.weights
    _hold(weights, random, seconds, MOUTHS, style.mouth, style.pause)
    _hold(weights, random, seconds, BROWS, style.brows, 1.5)
    _hold(weights, random, seconds, LIDS, style.lids, 1.0)
    if style.speech:
        speaking = _smooth_step(_wander(random, seconds, 0.5)[:, 0] + 0.4)
        for name, most in SYLLABLES.items():
            weights[:, INDEX[name]] += (
                # tanh: even a loud syllable opens the mouth no further than SYLLABLES
                most * style.speech * speaking * np.tanh(np.maximum(_wander(random, seconds, 4.0)[:, 0], 0))
            )
    for start in np.cumsum(random.uniform(1.2, 4.0, int(seconds[-1] / 1.2) + 2)):
        # a blink: closed within 0.12 s, open again within 0.2 s
        closed = np.clip(1.0 - np.abs(seconds - start) / np.where(seconds < start, 0.12, 0.2), 0.0, 1.0)
        for side in ("Left", "Right"):
            column = INDEX[f"eyeBlink{side}"]
            weights[:, column] = np.maximum(weights[:, column], closed)
    _look(weights, _gaze(random, seconds, style.gaze))
    # tanh: a head slows down towards the end of its turn
    performance.rotation[:] = MOST_TURN * np.tanh(_wander(random, seconds, 0.6, 3) * style.rotation / MOST_TURN)
    performance.translation[:] = _wander(random, seconds, 0.4, 3) * style.translation
    np.minimum(weights, EXAGGERATION, out=weights)
    if start_neutral:
        alive = _smooth_step(seconds / 0.5)[:, None]
        for array in (weights, performance.rotation, performance.translation):
            array *= alive
    return performance


def _hold(
    weights: Array,
    random: np.random.Generator,
    seconds: Array,
    groups: tuple[Group, ...],
    strength: float,
    pause: float,
) -> None:
    """Add expressions that come, stay a while and go: each rises and falls over 0.15 to 0.4 s."""
    if not strength:
        return
    start = random.uniform(0.0, pause)
    while start < seconds[-1]:
        length, ramp = random.uniform(0.4, 1.8), random.uniform(0.15, 0.4)
        amount = strength * random.uniform(0.5, 1.0)
        envelope = _smooth_step((seconds - start) / ramp) * _smooth_step((start + length + ramp - seconds) / ramp)
        for name, most in groups[random.integers(len(groups))].items():
            column = INDEX[name]
            weights[:, column] = np.maximum(weights[:, column], most * amount * envelope)
        start += length + 2 * ramp + random.uniform(0.0, pause)


def _gaze(random: np.random.Generator, seconds: Array, reach: float) -> Array:
    """Direction (F, 2) in [-1, 1], right and up: fixations with quick saccades between them."""
    direction = np.zeros((len(seconds), 2))
    start, fixation = random.uniform(0.2, 1.0), np.zeros(2)
    while start < seconds[-1]:
        target = np.zeros(2) if random.random() < 0.35 else random.uniform(-reach, reach, 2)
        direction += (target - fixation) * _smooth_step((seconds - start) / 0.08)[:, None]
        fixation, start = target, start + random.uniform(0.4, 1.6)
    return direction


def _look(weights: Array, direction: Array) -> None:
    """Turn both eyes by direction (F, 2) in [-1, 1]: to the picture's right, and up."""
    right, up = direction.T
    for name, amount in (
        # the person's left eye is at the picture's right, so its outward direction is the picture's right
        ("OutLeft", right), ("InRight", right), ("InLeft", -right), ("OutRight", -right),
        ("UpLeft", up), ("UpRight", up), ("DownLeft", -up), ("DownRight", -up),
    ):  # fmt: skip
        weights[:, INDEX[f"eyeLook{name}"]] = np.maximum(amount, 0.0)


def _wander(random: np.random.Generator, seconds: Array, rate: float, count: int = 1) -> Array:
    """Smooth noise (F, count) of about unit range, with frequencies up to `rate` hertz."""
    waves = 5
    frequency = rate * random.uniform(0.25, 1.0, (waves, count))
    phase = random.uniform(0.0, 2 * np.pi, (waves, count))
    amplitude = random.uniform(0.4, 1.0, (waves, count)) / np.sqrt(waves / 2)
    return (amplitude * np.sin(2 * np.pi * frequency * seconds[:, None, None] + phase)).sum(axis=1)


def _smooth_step(x: Array) -> Array:
    """Smooth step: 0 below 0, 1 above 1, without a kink."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)
