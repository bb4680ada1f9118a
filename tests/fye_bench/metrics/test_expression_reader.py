"""The expression reader reads true frames well, and was trained on other characters than it is used on."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from fye_bench.metrics import expression_reader
from fye_bench.metrics.expression import QUANTITIES, expression, readable, regions
from fye_bench.metrics.expression_reader import IDENTITIES, WEIGHTS, ExpressionReader, train
from fye_bench.metrics.truth import FIRST_CALIBRATION, FIRST_IDENTITY, FIRST_READER, Drawn, Shown, cases, draw
from fye_rt.errors import InputError
from fye_training.expressions import INDEX
from fye_training.identity import HELD_OUT_SEED
from fye_training.performance import resting
from fye_training.shape import Shape


@pytest.fixture(scope="module")
def drawn() -> list[Drawn]:
    """One clip of each family, exaggerated and talking among them."""
    return [draw(case, (128, 128), frames=5, stride=6) for case in cases(4)]


def test_the_sets_of_characters_of_the_reader_are_disjoint() -> None:
    # sample sheets of training, suite, calibration, reader
    starts = [0, FIRST_IDENTITY, FIRST_CALIBRATION, FIRST_READER]
    assert all(after - before >= 5000 for before, after in pairwise(starts)) and IDENTITIES < HELD_OUT_SEED
    trained = {HELD_OUT_SEED + FIRST_READER + number for number in range(IDENTITIES)}
    assert not trained & {case.identity_seed for case in cases(1000)}


def test_the_weights_of_the_reader_are_small() -> None:
    assert WEIGHTS.stat().st_size <= 300_000


def test_the_error_of_the_reader_on_true_frames_is_small(drawn: list[Drawn]) -> None:
    reader, errors, moves = ExpressionReader.load(), [], []
    for one in drawn:
        truth = expression(one.character.shape, one.acting)
        seen = readable(one.character.shape, truth[1:], one.face)
        rest = reader.read(one.portrait[None], one.character.shape, one.portrait_face)
        off = reader.read(one.frames, one.character.shape, one.face) - rest - (truth[1:] - truth[0])
        errors.append(np.where(seen, np.abs(off), np.nan))
        moves.append(np.where(seen, truth[1:], np.nan))
    floor = np.nanmean(np.concatenate(errors), axis=0)
    # an eye is 14 pixels wide at this size, and a pixel is 0.07 of it; eyes are 60 pixels apart at most
    assert (floor < 0.05).all(), dict(zip(QUANTITIES, floor.round(3), strict=True))


def test_each_quantity_of_the_reader_responds_to_its_expression() -> None:
    acting = resting(7)
    for frame, names in enumerate(
        (
            ("eyeBlinkRight",),
            ("eyeLookOutLeft", "eyeLookInRight"),
            ("eyeLookUpLeft", "eyeLookUpRight"),
            ("browOuterUpLeft",),
            ("jawOpen",),
            ("mouthSmileLeft", "mouthSmileRight"),
        ),
        start=1,
    ):
        acting.weights[frame, [INDEX[name] for name in names]] = 1.0
    values = expression(Shape(), acting)
    change = {name: (values[1:] - values[0])[:, column] for column, name in enumerate(QUANTITIES)}
    assert values[1, 0] == pytest.approx(0, abs=0.02) and change["eye_left"][0] == 0
    assert change["gaze_right"][1] > 0.15 and change["gaze_right"][2] == pytest.approx(0, abs=0.01)
    assert change["gaze_up"][2] > 0.15
    assert change["brow_left"][3] > 0.1 and change["brow_right"][3] == pytest.approx(0, abs=0.01)
    assert change["mouth"][4] > 0.3
    assert change["smile"][5] > 0.05 and change["mouth_width"][5] > 0.1


def test_a_crop_knows_the_head_and_not_the_expression(drawn: list[Drawn]) -> None:
    exaggerated = drawn[2]
    picture = np.repeat(exaggerated.portrait[None], len(exaggerated), axis=0)
    truth, rest = exaggerated.face, exaggerated.portrait_face.still(len(exaggerated))
    assert not np.array_equal(truth.mesh, rest.mesh)
    moved = regions(picture, exaggerated.character.shape, Shown(truth.mesh, rest.pose, truth.points, truth.size))
    still = regions(picture, exaggerated.character.shape, rest)
    assert np.array_equal(moved.eyes, still.eyes) and np.array_equal(moved.mouth, still.mouth)


def test_an_eye_that_is_turned_away_is_not_read() -> None:
    one = draw(cases(1)[0], (128, 128), frames=2)
    truth = expression(one.character.shape, one.acting)[1:]
    turned = one.face.pose.copy()
    angle = np.deg2rad(60.0)  # the eyes' planes themselves are turned outwards by some 20 degrees
    turned[:, :3, :3] = ((np.cos(angle), 0, np.sin(angle)), (0, 1, 0), (-np.sin(angle), 0, np.cos(angle)))
    seen = readable(one.character.shape, truth, Shown(one.face.mesh, turned, one.face.points, one.face.size))
    # to the picture's right: the person's left eye disappears, and with it the mean gaze
    assert seen[:, [0, 4, 6, 7, 8]].all() and not seen[:, [1, 2, 3, 5]].any()
    closed = readable(one.character.shape, np.zeros_like(truth), one.face)
    assert not closed[:, 2:4].any() and closed[:, :2].all()


def test_training_with_the_same_seed_gives_the_same_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SIZES": (64,), "FRAMES": 8, "BATCH": 16}.items():
        monkeypatch.setattr(expression_reader, name, value)
    first, second = (train(identities=4, epochs=1) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    ExpressionReader(first)


def test_other_weights_are_refused_with_the_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"run: python -m fye_bench\.metrics\.expression_reader"):
        ExpressionReader.load(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", weight=np.zeros(3))
    with pytest.raises(InputError, match="not an expression reader's weights"):
        ExpressionReader.load(tmp_path / "other.npz")
