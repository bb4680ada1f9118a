"""A drawn suite is the same everywhere, spread evenly, and its truth is what the runtime's landmarks ask for."""

import json
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from fye_bench.metrics.judge import Judge, summarise
from fye_bench.metrics.truth import FIRST_IDENTITY, FIRST_READER, Truth
from fye_bench.suites import drawing
from fye_bench.suites.drawing import CHARACTERS, FIRST_CHARACTER, draw_suite
from fye_bench.suites.drawn import DrawnTruth
from fye_bench.suites.suite import Pair, Suite, drawn_otherwise, faults, notes
from fye_rt import media
from fye_rt.errors import InputError, OptionError, OutputError
from fye_rt.landmarks import Motion, retarget
from fye_training import demo
from fye_training.identity import FAMILIES, HELD_OUT_SEED, identity
from fye_training.performance import KINDS
from fye_training.portrait import render

SIZE = (64, 64)
CELLS = tuple(product(FAMILIES, KINDS))
LABELS = (("portrait", "family"), ("motion", "kind"))


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    return draw_suite(tmp_path_factory.mktemp("drawn") / "suite", portraits=24, motions=6, frames=4, size=SIZE)


def drawn(pair: Pair, size: tuple[int, int] = SIZE) -> Truth:
    assert isinstance(pair.truth, DrawnTruth)
    return pair.truth.draw(size, Motion.load(pair.motion.path))


def test_the_files_of_a_drawn_suite_match_its_manifest(suite: Suite) -> None:
    assert (len(suite.portraits), len(suite.motions)) == (24, 6)
    assert not list(faults(suite)) and not list(notes(suite)) and not list(drawn_otherwise(suite))
    assert Suite.load(suite.folder) == suite
    for portrait in suite.portraits.values():
        assert media.read_image(portrait.path).shape == (*SIZE, 3)
        assert portrait.landmarks and len(Motion.load(portrait.landmarks.path)) == 1
    for motion in suite.motions.values():
        found = Motion.load(motion.path)
        assert len(found) == 4 and found.fps == pytest.approx(25 / 3)
        assert found.times[1] == pytest.approx(3 / 25)


def test_a_suite_drawn_twice_has_the_same_bytes(suite: Suite, tmp_path: Path) -> None:
    again = draw_suite(tmp_path / "again", portraits=24, motions=6, frames=4, size=SIZE)
    names = sorted(path.relative_to(suite.folder) for path in suite.folder.rglob("*") if path.is_file())
    assert len(names) == 24 * 2 + 6 + 1
    assert all((suite.folder / name).read_bytes() == (again.folder / name).read_bytes() for name in names)
    assert again.digest == suite.digest


def test_a_suite_drawn_with_another_seed_shows_other_characters(suite: Suite, tmp_path: Path) -> None:
    other = draw_suite(tmp_path / "other", portraits=1, motions=1, frames=2, size=SIZE, seed=1)
    first, second = (next(iter(one.portraits.values())).sha256 for one in (suite, other))
    assert first != second
    truth = other.pairs[0].truth
    assert isinstance(truth, DrawnTruth) and truth.identity == HELD_OUT_SEED + FIRST_CHARACTER + CHARACTERS


def test_the_characters_of_a_drawn_suite_are_used_nowhere_else(suite: Suite) -> None:
    seeds = {pair.truth.identity for pair in suite.pairs if isinstance(pair.truth, DrawnTruth)}
    least = min(seeds) - HELD_OUT_SEED
    assert least == FIRST_CHARACTER and least - max(*demo.CHARACTERS.values(), FIRST_READER, FIRST_IDENTITY) > 50_000


def test_every_motion_drives_its_performer_and_another_portrait(suite: Suite) -> None:
    own = [pair for pair in suite.pairs if pair.mode == "self"]
    cross = [pair for pair in suite.pairs if pair.mode == "cross"]
    assert {pair.motion.name for pair in own} == set(suite.motions)
    assert sorted(pair.portrait.name for pair in cross) == sorted(suite.portraits)
    for pair in suite.pairs:
        same = pair.portrait.name[-4:] == pair.motion.name[-4:]
        assert same == (pair.mode == "self")
    performers = {pair.motion.name: pair.portrait.family for pair in own}
    assert [performers[name] for name in suite.motions] == [FAMILIES[m % 4] for m in range(6)]
    assert [motion.kind for motion in suite.motions.values()] == [KINDS[m % 5] for m in range(6)]


def test_any_first_pairs_of_a_full_suite_cover_families_and_kinds_evenly() -> None:
    cast = [drawing._truth(number, 0) for number in range(500)]
    content = {
        "portraits": {f"p{i:04d}": {"family": truth.family} for i, truth in enumerate(cast)},
        "motions": {f"m{m:04d}": {"kind": KINDS[m % 5]} for m in range(40)},
    }
    pairs = drawing._pairs(content, cast)
    assert len(pairs) == 540
    counts: list[Counter[object]] = [Counter(dict.fromkeys(what, 0)) for what in (FAMILIES, KINDS, CELLS)]
    own = 0
    for n, pair in enumerate(pairs, start=1):
        family, kind = (content[f"{what}s"][pair[what]][label] for what, label in LABELS)
        for count, shown in zip(counts, (family, kind, (family, kind)), strict=True):
            count[shown] += 1
            assert max(count.values()) - min(count.values()) <= 1, (n, count)
        own += pair["mode"] == "self"
        assert abs(own - n * 40 / 540) <= 2


def test_the_truth_of_a_drawn_pair_is_the_portrait_moved_by_retargeting(suite: Suite) -> None:
    for pair in suite.pairs[:8]:
        truth = drawn(pair)
        assert pair.portrait.landmarks is not None
        portrait, motion = Motion.load(pair.portrait.landmarks.path), Motion.load(pair.motion.path)
        assert np.array_equal(truth.portrait, media.read_image(pair.portrait.path))
        asked = retarget(portrait, motion, SIZE)
        # pictures are 64 pixels wide; the landmarks went through units of the picture's sides
        np.testing.assert_allclose(truth.face.points, asked, atol=1e-10)
        assert truth.frames.shape == (4, *SIZE, 3) and truth.frames.dtype == np.uint8 and len(truth) == 4


def test_a_performer_driven_by_its_own_motion_moves_as_it_performed(suite: Suite) -> None:
    for pair in [pair for pair in suite.pairs if pair.mode == "self"][:4]:
        assert isinstance(pair.truth, DrawnTruth)
        motion, truth = Motion.load(pair.motion.path), drawn(pair)
        performed = render(identity(pair.truth.identity, pair.truth.family), motion, SIZE)
        # a point may cross the boundary of a sixteenth of a pixel by rounding
        assert np.abs(performed.astype(int) - truth.frames).mean() < 0.01
        np.testing.assert_allclose(truth.face.mesh, motion.mesh, atol=1e-12)
        assert np.abs(truth.frames[0].astype(int) - truth.portrait).mean() < 0.01  # begins with a neutral face


def test_a_truth_of_another_size_is_the_same_picture(suite: Suite) -> None:
    pair = suite.pairs[1]
    small, large = drawn(pair), drawn(pair, (128, 128))
    halved = large.frames.reshape(4, 64, 2, 64, 2, 3).mean(axis=(2, 4))
    assert np.abs(halved - small.frames).mean() < 4  # of 255: lines and grain are drawn anew
    np.testing.assert_allclose(large.face.points, 2 * small.face.points, atol=1e-9)


def test_the_judge_reads_the_true_expressions_in_the_true_frames(tmp_path: Path) -> None:
    long = draw_suite(tmp_path / "long", portraits=4, motions=4, frames=16, size=(128, 128))
    truths = [
        pair.truth.draw((128, 128), Motion.load(pair.motion.path)[::4])
        for pair in long.pairs
        if pair.mode == "cross" and isinstance(pair.truth, DrawnTruth)
    ]
    judge = Judge()
    true, copied = ([score(truth) for truth in truths] for score in (judge.true, judge.copied))
    best, worst = summarise(true), summarise(copied)
    assert best["psnr"]["mean"] == 100 and best["identity_error"]["mean"] == 0
    for group in ("eyes", "gaze", "brows", "mouth"):
        assert best[f"{group}_error"]["mean"] < 0.6 * worst[f"{group}_error"]["mean"], group
        assert best[f"{group}_error"]["mean"] < 0.05, group
    assert best["gaze_correlation"]["mean"] > 0.8
    with pytest.raises(InputError, match=rf"character {truths[0].character.seed} of the .*give uint8"):
        judge.compare(truths[0], truths[0].frames[:1])


def test_portraits_drawn_by_another_version_are_reported(suite: Suite, tmp_path: Path) -> None:
    content = json.loads((suite.folder / "suite.json").read_text())
    for pair in content["pairs"]:
        if pair["portrait"] == suite.pairs[0].portrait.name:
            pair["truth"]["drawn"]["placement"] += 1
    (line,) = drawn_otherwise(Suite.of(suite.folder, content))
    assert suite.pairs[0].portrait.name in line and "fye suite drawn" in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"portraits": 0}, "--portraits 0"),
        ({"motions": 50_000}, "give 1 to 49999"),
        ({"frames": 0}, "--frames 0"),
        ({"seed": -1}, "--seed -1"),
        ({"size": (60, 64)}, "multiples of 8"),
    ],
)
def test_invalid_arguments_are_refused_before_a_suite_is_drawn(
    arguments: dict[str, int], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "_draw_portraits", lambda *_: pytest.fail("work has begun"))
    with pytest.raises((OptionError, InputError), match=said):
        draw_suite(tmp_path / "suite", **arguments)


def test_drawing_a_suite_leaves_a_folder_with_other_files_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("keep me")
    with pytest.raises(OutputError, match="choose a new or an empty folder"):
        draw_suite(tmp_path, portraits=1, motions=1, frames=1, size=SIZE)
    assert (tmp_path / "letter.txt").read_text() == "keep me"
