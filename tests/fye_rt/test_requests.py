"""Every field of a request can be set from the command line, from Python and in a batch; errors name it everywhere."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

import fye_rt.batch.run
from fye_rt import ClipRequest, Control, Crop, Forecast, Options
from fye_rt.batch.jobs import BadJob, Job
from fye_rt.batch.worker import AnimatorSpec
from fye_rt.cli.arguments import as_flags
from fye_rt.cli.main import app, main
from fye_rt.landmarks.control import EDITS, STRENGTHS
from fye_rt.landmarks.control_file import parse_control
from fye_rt.settings import CROP_SETTINGS, SETTINGS, parse_request

COMMANDS = typer.main.get_command(app).commands
COMPOSED = {"options": Options, "crop": Crop}
SETTING_OF = {(Crop, field): name for name, field in CROP_SETTINGS.items()}
SOURCES = {"portrait": "a.png", "motion": "b.mp4"}
# a value of each setting that is not its default, and what else it needs
CLIP = {"portrait_landmarks": "l.npz", "landmarker": "m.task", "size": (64, 128), "frames": 3, "forecast": "fast"}
STEPS = {"steps": 7, "guidance": 2.5, "seed": 9, "shared_noise": 0.5, "solver": "dpm", "compute": "bf16"}
WINDOWS = {"windows": "tiles", "window_size": 16, "window_overlap": 2, "evaluations": 5}
NEWTON = {"interval": 4, "warm_up": 2, "last_step": False, "quantity": "x0", "order": 2, "face_mask": True}
ADAPTIVE = {"tolerance": 0.1, "max_evaluations": 8}
CROP = {"crop": "1,2,30,40", "crop_scale": 3.0, "crop_rotate": True, "face": 2, "paste": True}
PASTE = {"paste_mask": "oval", "feather": 0.5, "paste_color": "mean", "alpha": True}
DRIVING = {"start": 1.5, "seconds": 2.0, "driving_face": "left", "gaps": "hold", "mirror": True, "audio": "none"}
DRIVING |= {"fps": 12.0, "crf": 30}
SAMPLES: dict[str, tuple[Any, dict[str, Any]]] = {name: (x, {}) for name, x in (CLIP | STEPS | WINDOWS).items()}
SAMPLES |= {name: (value, {}) for name, value in (CROP | DRIVING).items()}
SAMPLES |= {name: (value, {"paste": True}) for name, value in PASTE.items()}
SAMPLES |= {name: (value, {"forecast": "newton"}) for name, value in NEWTON.items()}
SAMPLES |= {name: (value, {"forecast": "adaptive"}) for name, value in ADAPTIVE.items()}
KEYFRAMES = [{"time": 1, "values": {"yaw": 3.0}, "easing": "hold"}]
CONTROL: dict[str, Any] = {"region": "mouth", "rotation": "relative", "neutral": 3, "gaze_mode": "camera"}
CONTROL |= {"match_size": True, "close_lips": True, "smooth": 0.5, "arkit": {"jawOpen": 0.5}, "keyframes": KEYFRAMES}
CONTROL |= dict.fromkeys(STRENGTHS, 0.5) | dict.fromkeys(EDITS, 0.25)


def names() -> set[str]:
    """Of all fields, those of what a request composes included; `Forecast.method` is called forecast."""
    found = {field.name for field in fields(ClipRequest)} - COMPOSED.keys()
    for part in COMPOSED.values():
        found |= {SETTING_OF.get((part, field.name), field.name) for field in fields(part)}
    return found - {"control"} | {field.name for field in fields(Forecast)} - {"method"}


def value_of(request: ClipRequest, name: str) -> Any:
    if name == "forecast":
        return request.options.forecasting.method
    if name in CROP_SETTINGS:
        return getattr(request.crop, CROP_SETTINGS[name])
    holders = (request, request.options, request.options.forecasting, request.crop)
    return next(getattr(holder, name) for holder in holders if hasattr(holder, name))


def test_a_parsed_request_has_every_field() -> None:
    assert set(SETTINGS) - {"control", "edit"} == names() == SAMPLES.keys() | SOURCES.keys()
    assert CONTROL.keys() == {field.name for field in fields(Control)}


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_every_field_can_be_set(name: str) -> None:
    value, others = SAMPLES[name]
    assert value_of(parse_request({**SOURCES, **others, name: value}), name) == value
    assert value_of(parse_request({**SOURCES, **others}), name) != value


def as_arguments(settings: dict[str, Any]) -> list[str]:
    """Settings as the command line has them; `False` is --no-NAME."""
    words: list[str] = []
    for name, value in settings.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-"))
        else:
            words += [flag, "x".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    return words


class Asked(BaseException):
    """Ends a command where the work would begin."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[ClipRequest]:
    """The requests that `fye animate` and `fye batch` parse; neither makes a clip."""
    found: list[ClipRequest] = []

    class Recorder:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def __enter__(self) -> "Recorder":
            return self

        def __exit__(self, *_: object) -> None: ...

        def render(self, request: ClipRequest, **_: Any) -> None:
            found.append(request)
            raise Asked

    def run(jobs: list[Job | BadJob], *others: Any) -> None:
        for job in jobs:
            assert isinstance(job, Job), job
            found.extend(job.requests)
        raise Asked

    monkeypatch.setattr(fye_rt, "Animator", Recorder)
    monkeypatch.setattr(fye_rt.batch.run, "run", run)
    return found


def animated(name: str, tmp_path: Path) -> None:
    value, others = SAMPLES[name]
    sources = [str(tmp_path / source) for source in SOURCES.values()]
    output = tmp_path / ("clip.webm" if name == "alpha" else "clip.mp4")
    with pytest.raises(Asked):
        main(["animate", *sources, "-o", str(output), *as_arguments({**others, name: value})])


def in_batch(job: dict[str, Any], settings: dict[str, Any], tmp_path: Path) -> None:
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text(json.dumps(SOURCES | job))
    with pytest.raises(Asked):
        main(["batch", str(jobs), "-o", str(tmp_path / "out"), *as_arguments(settings)])


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_the_command_line_can_set_every_field(name: str, asked: list[ClipRequest], tmp_path: Path) -> None:
    animated(name, tmp_path)
    assert str(value_of(asked[0], name)) == str(SAMPLES[name][0])


@pytest.mark.parametrize("name", sorted(SAMPLES.keys() - {"portrait_landmarks", "compute"}))
def test_a_batch_can_set_every_field_for_all_its_jobs(name: str, asked: list[ClipRequest], tmp_path: Path) -> None:
    value, others = SAMPLES[name]
    in_batch({}, {**others, name: value}, tmp_path)
    assert str(value_of(asked[0], name)) == str(value)


@pytest.mark.parametrize("name", sorted(SAMPLES.keys() - {"landmarker", "compute"}))
def test_a_job_can_set_every_field(name: str, asked: list[ClipRequest], tmp_path: Path) -> None:
    value, others = SAMPLES[name]
    if name == "size":
        value = "64x128"
    in_batch({**others, name: value}, {}, tmp_path)
    expected = tmp_path / value if name == "portrait_landmarks" else SAMPLES[name][0]
    assert str(value_of(asked[0], name)) == str(expected)


def test_the_workers_of_a_batch_compute_as_its_command_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found: list[str] = []

    def run(jobs: object, folder: object, digest: str, spec: AnimatorSpec, *_: object) -> None:
        found.append(spec.compute)
        raise Asked

    monkeypatch.setattr(fye_rt.batch.run, "run", run)
    in_batch({}, {"compute": "bf16"}, tmp_path)
    assert found == ["bf16"]


@pytest.mark.parametrize("command", ["animate", "batch"])
def test_help_names_every_field(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    flags = {"--" + name.replace("_", "-") for name in SAMPLES if (command, name) != ("batch", "portrait_landmarks")}
    assert {flag for flag in flags if not re.search(rf"{flag}\b", shown)} == set()


@pytest.mark.parametrize("name", sorted(CONTROL))
def test_python_commands_and_jobs_can_set_every_field_of_a_control(
    name: str, asked: list[ClipRequest], tmp_path: Path
) -> None:
    expected = parse_control({name: CONTROL[name]})
    assert expected != Control() and name in expected.as_dict()
    file = tmp_path / "control.json"
    file.write_text(json.dumps({name: CONTROL[name]}))
    words = (
        ["--control", str(file)] if isinstance(CONTROL[name], dict | list) else ["--edit", f"{name}={CONTROL[name]}"]
    )
    words = [word.replace("True", "true") for word in words]
    sources = [str(tmp_path / source) for source in SOURCES.values()]
    with pytest.raises(Asked):
        main(["animate", *sources, "-o", str(tmp_path / "clip.mp4"), *words])
    in_batch({"control": {name: CONTROL[name]}}, {}, tmp_path)
    in_batch({}, {"control": file}, tmp_path)
    assert [request.control for request in asked] == 3 * [expected]


def test_edits_come_on_top_of_a_control(asked: list[ClipRequest], tmp_path: Path) -> None:
    control = {"smile": 0.5, "yaw": 5.0, "arkit": {"jawOpen": 0.5}}
    in_batch({"control": control, "edit": "yaw=8,cheekPuff=1,region=mouth"}, {}, tmp_path)
    weights = {"jawOpen": 0.5, "cheekPuff": 1}
    assert asked[0].control == Control(smile=0.5, yaw=8, region="mouth", arkit=weights)


@pytest.mark.parametrize("command", ["animate", "batch"])
def test_help_names_every_field_of_a_control(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    shown = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    assert [name for name in CONTROL if not re.search(rf"\b{name}\b", shown)] == []


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_the_help_of_every_field_is_a_sentence(name: str) -> None:
    flag = "--" + name.replace("_", "-")
    option = next(parameter for parameter in COMMANDS["animate"].params if flag in parameter.opts)
    assert option.help and option.help[0].isupper() and option.help.endswith(".")


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("window_size=40 is not valid; allowed: 1 to 32", "--window-size 40 is not valid; allowed: 1 to 32"),
        ("run again with compute='fp32'", "run again with --compute fp32"),
        (
            "use a smaller size, a smaller window_size or low_memory",
            "use a smaller size, a smaller --window-size or --low-memory",
        ),
        (
            "order=2 does not go with forecast='fast'; it takes none",
            "--order 2 does not go with --forecast fast; it takes none",
        ),
        ("leave out --window-size", "leave out --window-size"),
        ("Crop.scale=0.9 is not valid; allowed: 1 to 10", "--crop-scale 0.9 is not valid; allowed: 1 to 10"),
        ("Crop.area='1,2,3' is not valid", "--crop 1,2,3 is not valid"),
        ("Crop.feather concerns frames; set Crop.paste, too", "--feather concerns frames; set --paste, too"),
        ("Crop.alpha=True needs a whole clip", "--alpha needs a whole clip"),
        ("/a/steps.png is no image", "/a/steps.png is no image"),
    ],
)
def test_messages_name_flags_on_the_command_line(message: str, shown: str) -> None:
    assert as_flags(message) == shown
