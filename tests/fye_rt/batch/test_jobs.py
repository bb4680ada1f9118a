"""Jobs are read line by line, and a bad line is a job that failed."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fye_rt.batch.jobs import MAX_LINE, BadJob, Defaults, Job, read_jobs
from fye_rt.errors import InputError
from fye_rt.options import Forecast, Options

DEFAULTS = Defaults(Options(seed=5, forecast="fast"), frames=9, size=(64, 64))
GOOD = {"portrait": "a.png", "motion": "b.mp4"}


def read(path: Path, *lines: Any) -> list[Job | BadJob]:
    path = path / "jobs.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return read_jobs(path, DEFAULTS)


def test_a_job_is_named_after_its_files_and_takes_the_defaults(tmp_path: Path) -> None:
    (job,) = read(tmp_path, GOOD)
    assert job == Job(1, "a--b", tmp_path / "a.png", tmp_path / "b.mp4", None, DEFAULTS)


def test_a_job_may_say_all_of_it_itself(tmp_path: Path) -> None:
    own = {"name": "x", "frames": 3, "size": "72x80", "seed": 1, "steps": 4, "portrait_landmarks": "/l.npz"}
    (job,) = read(tmp_path, GOOD | own | {"forecast": {"method": "newton", "order": 2}, "guidance": 1})
    assert isinstance(job, Job)
    assert (job.name, job.portrait_landmarks) == ("x", Path("/l.npz"))
    options = Options(seed=1, steps=4, guidance=1, forecast=Forecast(method="newton", order=2))
    assert job.settings == Defaults(options, 3, (72, 80))


def test_names_are_told_apart_whatever_the_file_system(tmp_path: Path) -> None:
    jobs = read(tmp_path, GOOD, "", GOOD, GOOD | {"portrait": "A.png"}, GOOD | {"portrait": "../é ü.png"})
    assert [job.name for job in jobs] == ["a--b", "a--b-3", "A--b-4", "é_ü--b"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "is not JSON"),
        ("\x00", "is not JSON"),
        ("[" * 60000, "nested too deeply|is not JSON"),
        ("[1]", "not a JSON object"),
        ('{"portrait": "a", "portrait": "b", "motion": "c"}', "says one thing twice"),
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
        (GOOD | {"size": "512"}, "512x384"),
        (GOOD | {"steps": 0}, "steps=0"),
        (GOOD | {"steps": True}, "steps=True"),
        (GOOD | {"seed": "x"}, "seed='x'"),
        (GOOD | {"forecast": "magic"}, "forecast='magic'"),
        (GOOD | {"forecast": {"magic": 1}}, "forecast has no 'magic'"),
        (GOOD | {"forecast": [1]}, "forecast"),
        (GOOD | {"windows": None}, "windows=None"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_bad_line_says_what_is_wrong_and_spares_the_others(line: Any, said: str, tmp_path: Path) -> None:
    first, bad, last = read(tmp_path, GOOD, line, GOOD | {"name": "last"})
    assert isinstance(first, Job) and isinstance(last, Job) and last.line == 3
    assert isinstance(bad, BadJob) and bad.line == 2 and bad.name in ("line-2", "a--b-2")
    assert re.search(said, bad.error), bad.error


def test_a_name_is_given_once(tmp_path: Path) -> None:
    _, second = read(tmp_path, GOOD | {"name": "one"}, GOOD | {"name": "ONE"})
    assert isinstance(second, BadJob) and second.error == "line 1 has the name 'ONE' already"


def test_bytes_that_are_no_text_are_a_bad_line(tmp_path: Path) -> None:
    (tmp_path / "jobs.jsonl").write_bytes(b'\xff\xfe\n{"portrait": "a", "motion": "b"}')
    bad, good = read_jobs(tmp_path / "jobs.jsonl", DEFAULTS)
    assert isinstance(bad, BadJob) and isinstance(good, Job)


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_a_file_without_jobs_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no jobs; give one a line"):
        read(tmp_path, *text.splitlines())


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"jobs.jsonl: No such file"):
        read_jobs(tmp_path / "jobs.jsonl", DEFAULTS)


def test_jobs_with_one_portrait_are_one_group(tmp_path: Path) -> None:
    one, two, other = read(tmp_path, GOOD, GOOD | {"motion": "c.npz"}, GOOD | {"portrait": "d.png"})
    assert isinstance(one, Job) and isinstance(two, Job) and isinstance(other, Job)
    assert one.group == two.group != other.group
