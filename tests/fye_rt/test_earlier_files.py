"""Files written by 0.1.0 of 30 November 2026 are read: a motion, a resume folder, jobs and a batch's folder.

The shipped bundles have not changed since. `fye landmarks`, `fye animate --resume` and `fye batch` of that time made
tests/data/earlier, the latter two with tiny in 64x64, from tests/data/media/astronaut.mp4 and its first frame.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fye_rt import Bundle, media
from fye_rt.batch.jobs import Job, read_jobs
from fye_rt.clips.resume import PieceFolder
from fye_rt.errors import InputError
from fye_rt.landmarks import Motion
from tests.fye_rt.command_line import TINY, Fye

EARLIER = Path(__file__).resolve().parents[1] / "data" / "earlier"
FRAMES = 9
CLIP = ("--size", "64x64", "--window-size", 4, "--window-overlap", 1, "--steps", 4, "--forecast", "off")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The earlier files beside a picture and its landmarks."""
    shutil.copytree(EARLIER, tmp_path, dirs_exist_ok=True)
    _, frame = next(media.read_video(EARLIER.parent / "media" / "astronaut.mp4"))
    media.write_image(tmp_path / "portrait.png", media.fit_image(frame, 64, 64))
    Motion.load(EARLIER / "motion.npz")[:1].save(tmp_path / "face.npz")
    return tmp_path


def test_a_motion_is_read(tmp_path: Path) -> None:
    motion = Motion.load(EARLIER / "motion.npz")
    assert len(motion) == FRAMES and motion.fps == pytest.approx(30000 / 1001) and motion.valid.all()
    motion.save(tmp_path / "again.npz")
    again = Motion.load(tmp_path / "again.npz")
    for name in ("points", "mesh", "pose", "blendshapes", "times", "valid"):
        np.testing.assert_array_equal(getattr(again, name), getattr(motion, name), err_msg=name)


def test_the_pieces_of_a_clip_are_read(tmp_path: Path) -> None:
    shutil.copytree(EARLIER / "resume", tmp_path / "resume")
    facts = json.loads((EARLIER / "resume" / "clip.json").read_text())
    assert facts.pop("format") == 2
    records = [PieceFolder(tmp_path / "resume", facts).read(number) for number in range(5)]
    assert [record.latents.shape[2] for record in records if record is not None] == [0, 3, 2, 4]
    assert records[0] is not None and len(records[0].jumps) == 4 and records[4] is None


def test_the_pieces_of_another_clip_are_refused(tmp_path: Path) -> None:
    shutil.copytree(EARLIER / "resume", tmp_path / "resume")
    facts = json.loads((EARLIER / "resume" / "clip.json").read_text()) | {"seed": 1}
    with pytest.raises(InputError, match="holds another clip, which differs in seed; delete it, or choose another"):
        PieceFolder(tmp_path / "resume", facts)


def test_a_clip_is_stored_under_the_same_facts(fye: Fye, folder: Path) -> None:
    sources = (folder / "portrait.png", folder / "motion.npz", "--portrait-landmarks", folder / "face.npz")
    model = ("--bundle", TINY, "--backend", "onnxruntime")
    fye("animate", *sources, "-o", folder / "clip.mp4", *model, *CLIP, "--resume", folder / "new", "--quiet")
    stored, earlier = (json.loads((folder / name / "clip.json").read_text()) for name in ("new", "resume"))
    machine = {"cpu", "onnxruntime", "threads", "portrait", "landmarks"}  # the last two are sums of floats
    assert stored.keys() == earlier.keys()
    assert {name: stored[name] for name in stored.keys() - machine} == {
        name: earlier[name] for name in earlier.keys() - machine
    }


def test_jobs_are_read() -> None:
    first, second = read_jobs(EARLIER / "jobs.jsonl", {}, Bundle.load(TINY))
    assert isinstance(first, Job) and (first.name, first.requests[0].options.seed) == ("first", 3)
    assert isinstance(second, Job) and second.requests[0].options.forecasting.interval == 2


def test_the_folder_of_a_batch_is_taken_up(fye: Fye, folder: Path) -> None:
    command = ("batch", folder / "jobs.jsonl", "-o", folder / "batch", "--bundle", TINY, "--backend", "onnxruntime")
    assert f"{folder / 'batch'}: 2 clips" in fye(*command)
    assert f"{folder / 'batch'}: 2 clips, 2 of them from earlier runs" in fye(*command)
