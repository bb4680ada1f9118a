import re
from typing import Any

import numpy as np
import pytest

from fye_rt import ClipRequest, Crop, Forecast, Options
from fye_rt.errors import FyeError, InputError, OptionError
from fye_rt.settings import CROP_SETTINGS, parse_request


def test_the_defaults_are_the_documented_ones() -> None:
    noise = {"guidance": None, "seed": 0, "shared_noise": None, "compute": "auto"}
    windows = {"windows": "context", "window_size": 24, "window_overlap": 4}
    assert Options() == Options(steps=30, forecast="off", solver="ddim", **noise, **windows)
    assert Options().resolved() == Options(guidance=3.5, shared_noise=0.0)


def test_options_left_out_come_from_the_bundle() -> None:
    assert Options(guidance=0.0).resolved(2.0, 0.5) == Options(guidance=0.0, shared_noise=0.5)
    assert Options(shared_noise=0.0).resolved(2.0, 0.5) == Options(guidance=2.0, shared_noise=0.0)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("steps", 0, "1 to 1000"),
        ("steps", 2.0, "a whole number"),
        ("steps", "2", "a whole number"),
        ("guidance", -0.1, "0 to 100"),
        ("guidance", np.nan, "0 to 100"),
        ("guidance", "3.5", "0 to 100"),
        ("shared_noise", 1.01, "0 to 1"),
        ("shared_noise", -0.1, "0 to 1"),
        ("seed", 2**64, r"0 to 2\*\*64 - 1"),
        ("window_size", 33, "1 to 32"),
        ("window_overlap", 24, "0 to 23, below window_size=24"),
        ("forecast", "magic", "off, reuse, taylor, newton, paper, calibrated, adaptive, quality, balanced, fast"),
        ("solver", "euler", "ddim, dpm, unipc"),
        ("windows", "doors", "context, reference, tiles, progressive"),
        ("compute", "int4", "auto, fp32, bf16, fp16, int8, fp8"),
    ],
)
def test_a_value_outside_its_range_is_refused_with_the_range(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(OptionError, match=f"^{name}=.* is not valid; allowed: {allowed}$") as caught:
        Options(**{name: value})
    assert isinstance(caught.value, FyeError)


def test_progressive_windows_have_at_least_three_frames() -> None:
    Options(windows="progressive", window_size=3, window_overlap=0)
    with pytest.raises(OptionError, match="window_size=2 is not valid; allowed: 3 to 32 with progressive windows"):
        Options(windows="progressive", window_size=2, window_overlap=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "off", "order": 1}, "order=1 does not go with forecast='off'; it takes no settings"),
        ({"method": "paper", "order": 2}, "order=2 does not go with forecast='paper'; it takes evaluations, interval"),
        ({"method": "reuse", "order": 0}, "order=0 does not go with"),
        ({"method": "newton", "tolerance": 0.1}, "tolerance=0.1 does not go with"),
        ({"method": "newton", "order": 5}, "order=5 is not valid; allowed: 0 to 4"),
        ({"method": "newton", "evaluations": 0}, "evaluations=0 is not valid; allowed: 1 or more"),
        ({"method": "newton", "evaluations": 2.5}, "evaluations=2.5 is not valid"),
        ({"method": "newton", "evaluations": 5, "interval": 3}, "say the same thing twice"),
        ({"method": "newton", "quantity": "noise"}, "allowed: v, x0, epsilon"),
        ({"method": "adaptive", "tolerance": 0}, "tolerance=0 is not valid; allowed: above 0"),
        ({"method": "adaptive", "tolerance": np.nan}, "above 0"),
        ({"method": "adaptive", "max_evaluations": 1}, "2 or more"),
    ],
)
def test_an_impossible_forecast_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        Forecast(**settings)


def test_the_name_of_a_method_is_a_forecast() -> None:
    assert Options(forecast="taylor").forecasting == Forecast(method="taylor")
    chosen = Forecast(method="newton", order=2, evaluations=8)
    assert Options(forecast=chosen).forecasting is chosen
    assert Options(forecast=chosen).as_dict()["forecast"] == {"method": "newton", "order": 2, "evaluations": 8}


def test_other_solvers_take_no_forecast() -> None:
    with pytest.raises(OptionError, match="solver='dpm' takes none"):
        Options(forecast="reuse", solver="dpm")


def test_a_request_defaults_to_progressive_windows_and_balanced() -> None:
    request = parse_request({"portrait": "a.png", "motion": "b.mp4", "steps": None})
    assert (request.portrait, request.motion, request.size, request.frames) == ("a.png", "b.mp4", None, None)
    assert request.options == Options(windows="progressive", forecast=Forecast(method="balanced"))


@pytest.mark.parametrize(
    ("settings", "forecast"),
    [
        ({"solver": "dpm"}, Forecast(method="off")),
        ({"solver": "unipc"}, Forecast(method="off")),
        ({"evaluations": 5}, Forecast(method="calibrated", evaluations=5)),
        ({"forecast": "newton", "order": 2}, Forecast(method="newton", order=2)),
        ({"forecast": {"method": "newton", "order": 2}}, Forecast(method="newton", order=2)),
    ],
)
def test_settings_choose_the_forecast(settings: dict[str, Any], forecast: Forecast) -> None:
    assert parse_request(settings).options.forecasting == forecast


@pytest.mark.parametrize("size", ["64x72", [64, 72], (64, 72)])
def test_a_size_is_height_and_width_in_text_or_numbers(size: Any) -> None:
    assert parse_request({"size": size}).size == (64, 72)


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"stepz": 3}, OptionError, "'stepz' is not known; allowed: portrait, motion"),
        ({"size": "64"}, OptionError, "size='64' is not valid"),
        ({"size": [64]}, OptionError, 'size=[64] is not valid; give "HxW"'),
        ({"size": [64, 72, 3]}, OptionError, "size=[64, 72, 3] is not valid"),
        ({"size": "64x65"}, InputError, "the clip is 64x65; sides are multiples of 8, 64 to 2048"),
        ({"frames": 0}, OptionError, "frames=0 is not valid; allowed: 1 or more"),
        ({"frames": 2.5}, OptionError, "frames=2.5 is not valid"),
        ({"frames": True}, OptionError, "frames=True"),
        ({"guidance": True}, OptionError, "guidance=True"),
        ({"forecast": "fast", "order": 2}, OptionError, "order=2 does not go with forecast='fast'"),
        ({"steps": "many"}, OptionError, "steps='many' is not valid"),
        ({"forecast": {"order": 1, "speed": 2}}, OptionError, "forecast has no 'speed'"),
        ({"forecast": {"magic": 1}}, OptionError, "forecast has no 'magic'"),
    ],
)
def test_impossible_settings_are_refused_by_name(settings: dict[str, Any], kind: type[FyeError], message: str) -> None:
    with pytest.raises(kind, match=re.escape(message)):
        parse_request(settings)


def test_a_request_is_validated_however_it_is_made() -> None:
    for frames in (0, -1):
        with pytest.raises(OptionError, match=f"frames={frames}"):
            ClipRequest(portrait="a.png", motion="b.mp4", frames=frames)
    with pytest.raises(InputError, match="56x64"):
        ClipRequest(portrait="a.png", motion="b.mp4", size=(56, 64))


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("crop", "all", "auto, face, none, X,Y,W,H"),
        ("crop", "1,2,3", "auto, face, none, X,Y,W,H"),
        ("crop", "1,-2,30,40", "auto, face, none, X,Y,W,H"),
        ("crop_scale", 0.9, "1 to 10"),
        ("face", 0, "largest, left, right, center, or a number from 1"),
        ("face", "top", "largest, left, right, center, or a number from 1"),
        ("paste_mask", "star", "box, oval, face"),
        ("feather", 1.1, "0 to 1"),
        ("paste_color", "blue", "none, mean"),
        ("paste", 1, "true or false"),
        ("start", -1, "0 or more seconds"),
        ("seconds", 0, "above 0"),
        ("driving_face", "0", "largest, left, right, center, or a number from 1"),
        ("gaps", "fill", "refuse, hold, skip"),
        ("mirror", "yes", "true or false"),
        ("fps", 0, "0.1 to 1000"),
        ("crf", 52, "0 to 51"),
        ("crf", 17.5, "0 to 51"),
    ],
)
def test_a_setting_outside_its_range_is_refused_with_the_range(name: str, value: Any, allowed: str) -> None:
    shown = re.escape(f"Crop.{CROP_SETTINGS[name]}" if name in CROP_SETTINGS else name)
    with pytest.raises(OptionError, match=f"^{shown}=.* is not valid; allowed: {re.escape(allowed)}$"):
        parse_request({name: value})


def test_settings_of_pasting_need_something_that_is_pasted() -> None:
    for name, value in {"paste_mask": "oval", "feather": 0.1, "paste_color": "mean", "alpha": True}.items():
        shown = f"Crop.{CROP_SETTINGS[name]} concerns frames that are pasted; set Crop.paste"
        with pytest.raises(OptionError, match=f"^{re.escape(shown)}"):
            parse_request({name: value})
        parse_request({name: value, "paste": True})


@pytest.mark.parametrize("setting", [{"scale": 3.0}, {"rotate": True}])
def test_settings_of_a_crop_to_the_face_need_one(setting: dict[str, Any]) -> None:
    (name,) = setting
    for area in ("none", "0,0,8,8"):
        with pytest.raises(OptionError, match=rf"^Crop\.{name} concerns a crop to the face; .*Crop\.area='{area}'$"):
            Crop(area=area, **setting)
    for area in ("auto", "face"):
        Crop(area=area, **setting)
    with pytest.raises(OptionError, match=rf"takes the whole picture; leave out Crop\.{name}"):
        ClipRequest(portrait="", motion="", crop=Crop(**setting), options=Options(windows="reference"))


def test_a_face_is_not_chosen_where_its_landmarks_are_given() -> None:
    with pytest.raises(OptionError, match=r"^Crop\.face chooses among detected faces; leave it out, or"):
        parse_request({"face": "left", "portrait_landmarks": "own.npz"})


def test_the_reference_implementation_takes_the_whole_picture() -> None:
    parse_request({"windows": "reference", "crop": "none"})
    for crop in ("face", "0,0,8,8"):
        with pytest.raises(OptionError, match=r"windows='reference' takes the whole picture; leave out Crop\.area"):
            parse_request({"windows": "reference", "crop": crop})


def test_an_object_and_settings_beside_it_count_together() -> None:
    crop = parse_request({"crop": {"area": "face", "paste": True}, "crop_scale": 3.0, "feather": 0.1}).crop
    assert crop == Crop(area="face", paste=True, scale=3.0, feather=0.1)
    options = parse_request({"forecast": {"method": "newton", "order": 2}, "evaluations": 7}).options
    assert options.forecast == Forecast(method="newton", order=2, evaluations=7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop": {"scale": 3.0}, "crop_scale": 3.0}, "crop_scale is given twice, in crop and beside it"),
        ({"forecast": {"method": "newton", "order": 1}, "order": 2}, "order is given twice, in forecast and beside it"),
        ({"crop": {"size": 3}}, "crop has no 'size'; it has area, scale,"),
        ({"frames": {"count": 3}}, "frames={'count': 3} is not valid"),
    ],
)
def test_an_object_that_contradicts_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=f"^{re.escape(message)}"):
        parse_request(settings)
