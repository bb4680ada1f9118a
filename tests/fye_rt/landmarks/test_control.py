"""What a control accepts, and what it says of a value that it refuses."""

import math
from typing import Any

import pytest

from fye_rt.errors import OptionError
from fye_rt.landmarks.control import ARKIT, CURVES, Control, Keyframe
from fye_rt.landmarks.control_file import parse_control


@pytest.mark.parametrize("name", CURVES)
def test_every_value_has_a_range_that_the_refusal_names(name: str) -> None:
    low, high = CURVES[name]
    assert getattr(Control(**{name: low}), name) == low and getattr(Control(**{name: high}), name) == high
    for value in (low - 0.01, high + 0.01, 1e9, math.nan, math.inf, "1", None, True, [0.0]):
        with pytest.raises(OptionError, match=rf"^{name}=.* is not valid; allowed: {low:g} to {high:g}$"):
            Control(**{name: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"smlie": 0.5}, r"control has no 'smlie'; allowed: expression, .*smile"),
        ({"region": "nose"}, "region='nose' is not valid; allowed: all, expression, pose, mouth, eyes"),
        ({"rotation": "both"}, "rotation='both' is not valid; allowed: absolute, relative"),
        ({"neutral": "last"}, "neutral='last' is not valid; allowed: auto, first, portrait, N, FILE.npz"),
        ({"neutral": -1}, "neutral=-1 is not valid"),
        ({"neutral": True}, "neutral=True is not valid"),
        ({"gaze_mode": "up"}, "gaze_mode='up' is not valid; allowed: driver, camera, fixed"),
        ({"match_size": 1}, "match_size=1 is not valid; allowed: true or false"),
        ({"smooth": 1.5}, "smooth=1.5 is not valid; allowed: 0 to 1"),
        ({"arkit": {"mouthGrin": 1.0}}, "arkit='mouthGrin' is not valid; allowed: browDownLeft"),
        ({"arkit": {"jawOpen": 2.0}}, "jawOpen=2.0 is not valid; allowed: 0 to 1"),
        ({"arkit": ["jawOpen"]}, "arkit=.* is not valid; give weights by name"),
        ({"keyframes": {"time": 0}}, "keyframes is not valid; give a list of objects: time, values, easing"),
        ({"keyframes": [{"time": 0}]}, "a keyframe .* is not valid; give an object of time, values and easing"),
        ({"keyframes": [{"time": -1, "values": {"yaw": 1}}]}, "time=-1 is not valid; allowed: 0 or more seconds"),
        ({"keyframes": [{"time": math.nan, "values": {"yaw": 1}}]}, "time=nan is not valid"),
        ({"keyframes": [{"time": 0, "values": {}}]}, "values={} of a keyframe is not valid"),
        ({"keyframes": [{"time": 0, "values": {"region": 1}}]}, "'region' is not a value of a control; allowed: expr"),
        ({"keyframes": [{"time": 0, "values": {"yaw": 50}}]}, "yaw=50 is not valid; allowed: -45 to 45"),
        ({"keyframes": [{"time": 0, "values": {"yaw": 1}, "easing": "bounce"}]}, "easing='bounce' is not valid"),
        ({"keyframes": 2 * [{"time": 1, "values": {"yaw": 1}}]}, "keyframes give yaw twice at 1 seconds"),
    ],
)
def test_a_bad_setting_is_refused_with_what_is_allowed(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse_control(settings)


def test_a_report_names_what_differs_from_the_default_and_reads_back() -> None:
    control = Control(
        smile=0.5,
        region="mouth",
        arkit={"jawOpen": 0.25},
        keyframes=[Keyframe(time=2, values={"yaw": 5.0}), Keyframe(time=1, values={"smile": 0.1}, easing="hold")],
    )
    report = control.as_dict()
    assert set(report) == {"smile", "region", "arkit", "keyframes"}
    assert [entry["time"] for entry in report["keyframes"]] == [1, 2]
    assert parse_control(report) == control and Control().as_dict() == {} and Control().is_neutral


def test_names_are_those_of_mediapipes_scores() -> None:
    from fye_training.expressions import EXPRESSIONS

    assert ARKIT == EXPRESSIONS
