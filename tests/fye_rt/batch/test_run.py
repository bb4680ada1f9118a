"""A batch makes each clip once, records what fails, and goes on where it was cut short."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fye_rt import media
from fye_rt.animator import Animator
from fye_rt.batch import worker
from fye_rt.batch.folder import Record
from fye_rt.batch.jobs import BadJob, Job, read_jobs
from fye_rt.batch.run import RECORDS, RESULTS, SUMMARY, Folder, run
from fye_rt.batch.worker import AnimatorSpec
from fye_rt.batch.workers import Alone
from fye_rt.bundle import Bundle
from fye_rt.cli.main import main
from fye_rt.errors import OutputError
from tests.fye_rt.command_line import LANDMARKS, PORTRAIT, ROOT, TINY, Fye

FAST = ("--bundle", str(TINY), "--steps", "1", "--frames", "1", "--threads", "1", "--forecast", "off", "--quiet")
DEFAULTS = {"steps": 1, "frames": 1, "forecast": "off"}  # FAST, in Python
MODEL = Bundle.load(TINY)


def write_jobs(folder: Path, *jobs: dict[str, Any] | str) -> Path:
    whole = {"portrait": str(PORTRAIT), "motion": str(LANDMARKS)}
    lines = [job if isinstance(job, str) else json.dumps(whole | job) for job in jobs]
    path = folder / "jobs.jsonl"
    path.write_text("\n".join(lines))
    return path


def results(folder: Path) -> list[Record]:
    return [json.loads(line) for line in (folder / RESULTS).read_text().splitlines()]


def start(jobs: Path, output: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "fye_rt", "batch", str(jobs), "-o", str(output), *FAST, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The portraits that were encoded."""
    portraits: list[bytes] = []
    encode = Animator.encode_portrait

    def count(self: Animator, image: Any, clip_pixels: Any = None) -> Any:
        portraits.append(image.tobytes())
        return encode(self, image, clip_pixels)

    monkeypatch.setattr(Animator, "encode_portrait", count)
    return portraits


def test_a_batch_encodes_each_portrait_once(fye: Fye, tmp_path: Path, encoded: list[bytes], opencv: None) -> None:
    other = str(PORTRAIT.parents[1] / "cartoons" / "portrait.png")
    jobs = write_jobs(tmp_path, {"name": "a"}, {"name": "b", "portrait": other}, {"name": "c", "seed": 1})
    assert fye("batch", jobs, "-o", tmp_path / "out", *FAST) == f"{tmp_path / 'out'}: 3 clips\n"
    records = results(tmp_path / "out")
    facts = [(record["name"], record["line"], record["status"], record["frames"]) for record in records]
    assert facts == [("a", 1, "done", 1), ("b", 2, "done", 1), ("c", 3, "done", 1)]
    assert len({record["sha256"] for record in records}) == 3
    for record in records:
        assert media.probe_video(tmp_path / "out" / record["output"]).frames == 1
        assert worker.sha256(tmp_path / "out" / record["output"]) == record["sha256"]
    assert len(encoded) == 2
    summary = json.loads((tmp_path / "out" / SUMMARY).read_text())
    assert (summary["jobs"], summary["done"], summary["failed"], summary["workers"]) == (3, 3, 0, 1)


def test_bad_jobs_are_recorded_and_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str], opencv: None) -> None:
    (tmp_path / "broken.png").write_text("no picture")
    broken = {"name": "broken", "portrait": "broken.png"}
    jobs = write_jobs(tmp_path, {"name": "gone", "portrait": "gone.png"}, "{", broken, {"name": "good"})
    assert main(["batch", str(jobs), "-o", str(tmp_path / "out"), *FAST]) == 1
    said = capsys.readouterr()
    assert said.out.splitlines() == [f"{tmp_path / 'out'}: 1 clips", f"{tmp_path / 'out' / RESULTS}: 3 failed of 4"]
    lines = said.err.splitlines()
    assert [line.split(":")[1].strip() for line in lines] == ["line 1, gone", "line 2, line-2", "line 3, broken"]
    assert [record["status"] for record in results(tmp_path / "out")] == ["failed", "failed", "failed", "done"]
    assert "No such file" in results(tmp_path / "out")[0]["error"]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.mp4")) == ["good.mp4"]


def test_a_setting_of_pasting_is_for_the_jobs_that_paste(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faces = {"portrait": "gone.png", "faces": [{"face": "left"}, {"face": "right"}]}
    jobs = write_jobs(tmp_path, faces, {"name": "plain"})
    assert main(["batch", str(jobs), "-o", str(tmp_path / "out"), *FAST, "--feather", "0.1"]) == 1
    assert "2 failed of 2" in capsys.readouterr().out
    gone, plain = (record["error"] for record in results(tmp_path / "out"))
    assert "No such file" in gone and plain.startswith("feather concerns frames that are pasted; set paste")


@pytest.mark.slow
def test_a_second_run_makes_failed_clips_only(fye: Fye, tmp_path: Path, encoded: list[bytes], opencv: None) -> None:
    late = tmp_path / "late.png"
    jobs = write_jobs(tmp_path, {"name": "a"}, {"name": "b", "portrait": str(late)})
    assert main(["batch", str(jobs), "-o", str(tmp_path / "out"), *FAST]) == 1
    late.write_bytes(PORTRAIT.read_bytes())
    encoded.clear()
    assert "2 clips, 1 of them from earlier runs" in fye("batch", jobs, "-o", tmp_path / "out", *FAST)
    assert len(encoded) == 1
    before = (tmp_path / "out" / RESULTS).read_bytes()
    assert "2 clips, 2 of them from earlier runs" in fye("batch", jobs, "-o", tmp_path / "out", *FAST)
    assert len(encoded) == 1 and (tmp_path / "out" / RESULTS).read_bytes() == before


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, opencv: None) -> Path:
    """A folder with a portrait, jobs.jsonl with twelve jobs, and out/, where they are done. Not to be written to."""
    folder = tmp_path_factory.mktemp("batch")
    (folder / "portrait.png").write_bytes(PORTRAIT.read_bytes())
    jobs = write_jobs(folder, *({"name": f"clip{n}", "portrait": "portrait.png", "seed": n} for n in range(12)))
    assert main(["batch", str(jobs), "-o", str(folder / "out"), *FAST]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("change", ["seed", "portrait", "clip gone", "clip cut", "record cut"])
def test_a_changed_job_is_made_again(change: str, finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    name = "clip3"
    match change:
        case "seed":
            text = (folder / "jobs.jsonl").read_text()
            (folder / "jobs.jsonl").write_text(text.replace('"seed": 3', '"seed": 99'))
        case "portrait":
            (folder / "portrait.png").write_bytes((PORTRAIT.parents[1] / "animals" / "portrait.png").read_bytes())
        case "clip gone":
            (folder / "out" / f"{name}.mp4").unlink()
        case "clip cut":
            (folder / "out" / f"{name}.mp4").write_bytes(b"")
        case "record cut":
            (folder / "out" / RECORDS / f"{name}.json").write_text('{"status": "done", "ke')
    jobs = read_jobs(folder / "jobs.jsonl", DEFAULTS, MODEL)
    engine, digest = AnimatorSpec(TINY, threads=1), Bundle.load(TINY).digest
    with Folder(folder / "out") as out:
        again = [job.name for job in jobs if isinstance(job, Job) and out.finished(job, digest, engine) is None]
    assert again == ([f"clip{n}" for n in range(12)] if change == "portrait" else [name])


def test_a_job_that_fails_later_loses_its_old_clip(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    jobs = write_jobs(folder, {"name": "clip3", "motion": "gone.mp4"})
    assert main(["batch", str(jobs), "-o", str(folder / "out"), *FAST]) == 1
    assert not (folder / "out" / "clip3.mp4").exists()


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_result(finished: Path, tmp_path: Path) -> None:
    jobs, cut = finished / "jobs.jsonl", tmp_path / "cut"
    process = start(jobs, cut, "--workers", "2")
    deadline = time.monotonic() + 120
    while not list(cut.glob(f"{RECORDS}/clip*.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list(cut.glob(f"{RECORDS}/clip*.json"))) < 12
    assert main(["batch", str(jobs), "-o", str(cut), *FAST]) == 0
    assert (cut / RESULTS).read_bytes() == (finished / "out" / RESULTS).read_bytes()
    assert json.loads((cut / SUMMARY).read_text())["of_them_there_already"] >= 1
    for number in range(12):
        assert (cut / f"clip{number}.mp4").read_bytes() == (finished / "out" / f"clip{number}.mp4").read_bytes()


def test_two_runs_do_not_write_into_one_folder(tmp_path: Path) -> None:
    with (
        Folder(tmp_path / "out"),
        pytest.raises(OutputError, match="another run writes into"),
        Folder(tmp_path / "out"),
    ):
        pass
    with Folder(tmp_path / "out"):
        pass


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path, fye: Fye) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "letter.txt").write_text("keep me")
    said = fye.refuses("batch", write_jobs(tmp_path, {}), "-o", out, *FAST)
    assert "holds other files than a batch's; choose a new folder" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--workers", "99"], "99 workers share"),
        (["--steps", "0"], "--steps 0"),
        (["--size", "9"], "--size 9"),
        (["--bundle", "none"], "none"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_in_the_command_is_one_line(arguments: list[str], said: str, tmp_path: Path, fye: Fye) -> None:
    given = [*FAST, *arguments] if "--workers" not in arguments else ["--bundle", str(TINY), *arguments]
    assert said in fye.refuses("batch", write_jobs(tmp_path, {}), "-o", tmp_path / "out", *given)


def test_no_job_of_ten_thousand_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fye_rt.files.results._sync", lambda file: None)  # ten thousand waits for the disk
    lines = [{"name": f"job{n}", "portrait": f"{n // 50}.png"} if n % 100 else "bad" for n in range(10_000)]
    jobs = read_jobs(write_jobs(tmp_path, *lines), {}, MODEL)
    assert sum(isinstance(job, BadJob) for job in jobs) == 100
    seen: list[str] = []

    def work(job: Job) -> Record:
        seen.append(job.name)
        if job.line % 100 == 50:
            raise RuntimeError("nobody foresaw this")
        return {"name": job.name, "line": job.line, "status": "done", "error": None, "peak_memory_bytes": 1}

    with Folder(tmp_path / "out") as folder:
        engine = AnimatorSpec(TINY)
        outcome = run(jobs, folder, "digest", engine, lambda: Alone(lambda: work), lambda *_: None)
    assert (outcome.done, len(outcome.failed)) == (9_800, 200)
    assert len(seen) == len(set(seen)) == 9_900
    records = results(tmp_path / "out")
    assert [record["line"] for record in records] == list(range(1, 10_001))
    assert {record["error"] for record in records if record["status"] == "failed"} == {
        "RuntimeError: nobody foresaw this",
        "it is not JSON (Expecting value: line 1 column 1 (char 0)); correct it, or make it again",
    }


def test_results_are_written_when_the_run_is_given_up(tmp_path: Path) -> None:
    jobs = read_jobs(write_jobs(tmp_path, {"name": "a"}, {"name": "b"}), {}, MODEL)

    def work(job: Job) -> Record:
        if job.name == "b":
            raise KeyboardInterrupt
        return {"name": job.name, "line": job.line, "status": "done", "error": None, "peak_memory_bytes": 1}

    with Folder(tmp_path / "out") as folder, pytest.raises(KeyboardInterrupt):
        run(jobs, folder, "digest", AnimatorSpec(TINY), lambda: Alone(lambda: work), lambda *_: None)
    assert [record["name"] for record in results(tmp_path / "out")] == ["a"]
    assert json.loads((tmp_path / "out" / SUMMARY).read_text())["not_begun"] == 1


def test_a_changed_file_of_the_same_size_is_another_input(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    first = worker.sha256(path)
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert worker.sha256(path) != first
