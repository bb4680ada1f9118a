"""Jobs are read line by line, and a bad line is a job that failed."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fye_rt.batch.jobs import MAX_LINE, BadJob, Job, read_jobs
from fye_rt.batch.worker import AnimatorSpec, key
from fye_rt.bundle import Bundle
from fye_rt.errors import InputError
from fye_rt.options import Crop, Forecast, Options
from tests.fye_rt.command_line import TINY

MODEL = Bundle.load(TINY)
DEFAULTS = {"seed": 5, "forecast": "fast", "frames": 9, "size": "64x64", "guidance": None}
GOOD = {"portrait": "a.png", "motion": "b.mp4"}


def read(path: Path, *lines: Any, defaults: Any = DEFAULTS) -> list[Job | BadJob]:
    path = path / "jobs.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return read_jobs(path, defaults, MODEL)


def test_a_job_is_named_after_its_files_and_takes_the_defaults(tmp_path: Path) -> None:
    (job,) = read(tmp_path, GOOD)
    assert isinstance(job, Job) and (job.line, job.name) == (1, "a--b")
    request = job.requests[0]
    assert (request.portrait, request.motion) == (tmp_path / "a.png", tmp_path / "b.mp4")
    assert (request.portrait_landmarks, request.frames, request.size) == (None, 9, (64, 64))
    assert request.options == MODEL.resolve(Options(seed=5, forecast=Forecast(method="fast"), windows="progressive"))


def test_a_job_may_set_every_option(tmp_path: Path) -> None:
    own = {"name": "x", "frames": 3, "size": "72x80", "seed": 1, "steps": 4, "portrait_landmarks": "/l.npz"}
    (job,) = read(tmp_path, GOOD | own | {"forecast": {"method": "newton", "order": 2}, "guidance": 1})
    assert isinstance(job, Job)
    request = job.requests[0]
    assert (job.name, request.portrait_landmarks) == ("x", Path("/l.npz"))
    newton = Forecast(method="newton", order=2)
    options = Options(seed=1, steps=4, guidance=1, shared_noise=0, forecast=newton, windows="progressive")
    assert (request.options, request.frames, request.size) == (options, 3, (72, 80))


@pytest.mark.parametrize(
    ("settings", "own", "forecast"),
    [
        ({}, {}, Forecast(method="balanced")),
        ({}, {"solver": "dpm"}, Forecast(method="off")),
        ({}, {"evaluations": 7}, Forecast(method="calibrated", evaluations=7)),
        ({"forecast": "newton", "order": 2}, {"evaluations": 7}, Forecast(method="newton", order=2, evaluations=7)),
        ({"forecast": "newton", "order": 2}, {"forecast": "fast"}, Forecast(method="fast")),
        ({"forecast": "fast"}, {"forecast": None}, Forecast(method="fast")),
    ],
)
def test_a_job_s_forecast_replaces_the_command_s(
    tmp_path: Path, settings: dict[str, Any], own: dict[str, Any], forecast: Forecast
) -> None:
    (job,) = read(tmp_path, GOOD | own, defaults=settings)
    assert isinstance(job, Job) and job.requests[0].options.forecast == forecast


def test_names_are_told_apart_whatever_the_file_system(tmp_path: Path) -> None:
    jobs = read(tmp_path, GOOD, "", GOOD, GOOD | {"portrait": "A.png"}, GOOD | {"portrait": "../é ü.png"})
    assert [job.name for job in jobs] == ["a--b", "a--b-3", "A--b-4", "é_ü--b"]


@pytest.mark.parametrize(
    ("portrait", "motion", "name"),
    [
        ("肖像.jpg", "跳舞.npz", "肖像--跳舞"),
        ("हिन्दी.png", "-रुको.npz", "हिन्दी---रुको"),
        ("-rf.png", "b.mp4", "rf--b"),
        ("a\nb\x1b[31m.png", "c d?.mp4", "a_b_31m--c_d_"),
        ("😀.png", "🕺.npz", "clip-1"),
        ("\ud800.png", "b.mp4", "b"),
        (60 * "像" + ".png", 60 * "𠀀" + ".npz", 30 * "像" + "--" + 22 * "𠀀"),
    ],
)
def test_names_keep_letters_of_every_script_and_are_safe(portrait: str, motion: str, name: str, tmp_path: Path) -> None:
    (job,) = read(tmp_path, {"portrait": portrait, "motion": motion})
    assert isinstance(job, Job) and job.name == name
    assert len(f"{job.name}-1000000.json".encode()) < 255


def test_a_name_of_any_script_is_taken_once_however_it_is_written(tmp_path: Path) -> None:
    names = ["肖像", "Été", "E\u0301te\u0301", "STRASSE", "straße"]
    jobs = read(tmp_path, *(GOOD | {"name": name} for name in names))
    assert [isinstance(job, Job) for job in jobs] == [True, True, False, True, False]
    assert isinstance(jobs[4], BadJob) and jobs[4].error == "line 4 has the name 'straße' already"


def test_names_made_of_files_differ_from_names_that_jobs_set(tmp_path: Path) -> None:
    jobs = read(tmp_path, GOOD, GOOD | {"name": "a--b-3"}, GOOD, GOOD | {"name": "-a"}, GOOD | {"name": "像" * 67})
    assert [job.name for job in jobs[:3]] == ["a--b", "a--b-3", "a--b-3-3"]
    assert [type(job) for job in jobs[3:]] == [BadJob, BadJob]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "is not JSON"),
        ("\x00", "is not JSON"),
        ("[" * 60000, "nested too deeply|is not JSON"),
        ("[1]", "not a JSON object"),
        ('{"portrait": "a", "portrait": "b", "motion": "c"}', "says 'portrait' twice; remove one"),
        (" " * MAX_LINE + "{}", "more than 65536 bytes"),
        ({"portrait": "a.png"}, "motion is missing"),
        ({"motion": "a.png"}, "portrait is missing"),
        (GOOD | {"portrait": 3}, "portrait=3 is not a path"),
        (GOOD | {"motion": "a\x00b"}, "is not a path"),
        (GOOD | {"beauty": 9}, "'beauty' is not known; a job has portrait"),
        (GOOD | {"compute": "fp16"}, "'compute' is not known"),
        (GOOD | {"name": "../../etc/passwd"}, "name='../../etc/passwd' is not valid"),
        (GOOD | {"name": ".hidden"}, "is not valid"),
        (GOOD | {"name": 7}, "name=7 is not valid"),
        (GOOD | {"frames": 0}, "frames=0"),
        (GOOD | {"frames": True}, "frames=True"),
        (GOOD | {"size": 512}, "size=512"),
        (GOOD | {"crop_scale": 20}, "^crop_scale=20 is not valid"),
        (GOOD | {"size": "512"}, "512x384"),
        (GOOD | {"steps": 0}, "steps=0"),
        (GOOD | {"steps": True}, "steps=True"),
        (GOOD | {"seed": "x"}, "seed='x'"),
        (GOOD | {"forecast": "magic"}, "forecast='magic'"),
        (GOOD | {"forecast": {"magic": 1}}, "forecast has no 'magic'"),
        (GOOD | {"forecast": [1]}, "forecast"),
        (GOOD | {"windows": 3}, "windows=3"),
        (GOOD | {"landmarker": "a.task"}, "'landmarker' is not known"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_bad_line_says_what_is_wrong_and_spares_the_others(line: Any, said: str, tmp_path: Path) -> None:
    first, bad, last = read(tmp_path, GOOD, line, GOOD | {"name": "last"})
    assert isinstance(first, Job) and isinstance(last, Job) and last.line == 3
    assert isinstance(bad, BadJob) and bad.line == 2 and bad.name in ("line-2", "a--b-2")
    assert re.search(said, bad.error), bad.error


def test_bytes_that_are_no_text_are_a_bad_line(tmp_path: Path) -> None:
    (tmp_path / "jobs.jsonl").write_bytes(b'\xff\xfe\n{"portrait": "a", "motion": "b"}')
    bad, good = read_jobs(tmp_path / "jobs.jsonl", DEFAULTS, MODEL)
    assert isinstance(bad, BadJob) and isinstance(good, Job)


def test_a_missing_file_and_one_without_jobs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"jobs.jsonl: No such file"):
        read_jobs(tmp_path / "jobs.jsonl", DEFAULTS, MODEL)
    for lines in ((), ("", " ")):
        with pytest.raises(InputError, match="has no jobs; give one a line"):
            read(tmp_path, *lines)


def test_jobs_with_one_portrait_are_one_group(tmp_path: Path) -> None:
    one, two, other = read(tmp_path, GOOD, GOOD | {"motion": "c.npz"}, GOOD | {"portrait": "d.png"})
    assert isinstance(one, Job) and isinstance(two, Job) and isinstance(other, Job)
    assert one.group == two.group != other.group


FACES = {"portrait": "two.png", "faces": [{"face": "left", "motion": "a.mp4"}, {"face": 2, "motion": "b.npz"}]}


def test_a_job_may_animate_several_faces(tmp_path: Path) -> None:
    (job,) = read(tmp_path, FACES | {"seed": 3, "motion": "c.npz", "feather": 0.1})
    assert isinstance(job, Job) and job.name == "two--a"
    left, right = job.requests
    assert (left.portrait, left.motion, right.motion) == (tmp_path / "two.png", tmp_path / "a.mp4", tmp_path / "b.npz")
    assert (left.crop.face, right.crop.face, left.options.seed, left.frames) == ("left", 2, 3, 9)
    for request in job.requests:
        crop = request.crop
        assert (crop.paste, crop.area, crop.mask, crop.feather) == (True, "face", "face", 0.1)
    own = {"faces": [{"face": 1}, {"face": 2, "crop_scale": 3, "paste_mask": "oval"}]}
    (job,) = read(tmp_path, GOOD | own)
    assert isinstance(job, Job)
    assert [(request.crop.scale, request.crop.mask) for request in job.requests] == [(2.3, "face"), (3, "oval")]
    assert {request.motion for request in job.requests} == {tmp_path / "b.mp4"}
    (job,) = read(tmp_path, FACES, defaults={"paste_mask": "oval", "crop": None})
    assert isinstance(job, Job)
    assert {(request.crop.mask, request.crop.area) for request in job.requests} == {("oval", "face")}


def test_a_crop_may_be_an_object_at_any_level(tmp_path: Path) -> None:
    defaults = {"crop_scale": 4.0, "feather": 0.2, "paste": True}
    (job,) = read(tmp_path, GOOD | {"crop": {"rotate": True, "feather": 0.1}}, defaults=defaults)
    assert isinstance(job, Job)
    assert job.requests[0].crop == Crop(scale=4.0, rotate=True, feather=0.1, paste=True)
    faces = [{"face": 1}, {"crop": {"face": 2, "scale": 3.0}}]
    (job,) = read(tmp_path, GOOD | {"crop": {"scale": 2.0}, "faces": faces}, defaults={})
    assert isinstance(job, Job)
    shared = {"area": "face", "paste": True, "mask": "face"}
    assert [request.crop for request in job.requests] == [
        Crop(face=1, scale=2.0, **shared),
        Crop(face=2, scale=3.0, **shared),
    ]
    (bad,) = read(tmp_path, GOOD | {"crop": {"scale": 3.0}, "crop_scale": 2.0})
    assert isinstance(bad, BadJob) and "crop_scale is given twice" in bad.error


def test_a_job_without_a_crop_to_the_face_leaves_out_the_command_s_settings_of_one(tmp_path: Path) -> None:
    jobs = read(tmp_path, GOOD, GOOD | {"crop": "none"}, GOOD | {"crop": "face"}, defaults={"crop_scale": 3.0})
    assert [job.requests[0].crop.scale for job in jobs if isinstance(job, Job)] == [3.0, 2.3, 3.0]
    (bad,) = read(tmp_path, GOOD | {"crop": "none", "crop_scale": 3.0})
    assert isinstance(bad, BadJob) and bad.error.startswith("crop_scale concerns a crop to the face")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"faces": []}, "faces is not valid"),
        ({"faces": {"face": 1}}, "faces is not valid"),
        ({"faces": [1]}, "faces is not valid"),
        ({"faces": [{"face": "left"}]}, "motion is missing"),
        ({"faces": [{"face": "left", "motion": "a.mp4", "size": "64x64"}]}, "'size' is not known; a face has motion"),
        ({"faces": [{"motion": "a.mp4"}, {"motion": "b.mp4"}]}, "faces 1 and 2 are the same one, face='largest'"),
        ({"paste": False}, "set paste"),
    ],
)
def test_faces_that_make_no_clip_are_a_failed_job(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    (job,) = read(tmp_path, FACES | change)
    assert isinstance(job, BadJob) and message in job.error


def test_silence_is_another_clip(tmp_path: Path) -> None:
    for name in GOOD.values():
        (tmp_path / name).write_bytes(name.encode())
    first, second = read(tmp_path, GOOD, GOOD | {"audio": "none"})
    assert isinstance(first, Job) and isinstance(second, Job)
    assert key(first, "bundle", AnimatorSpec(TINY)) != key(second, "bundle", AnimatorSpec(TINY))
