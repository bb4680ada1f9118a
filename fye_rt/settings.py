"""Settings by name, as the command line and files hold them, parsed into a `ClipRequest`."""

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from fye_rt.errors import OptionError
from fye_rt.landmarks.control_file import parse_control
from fye_rt.options import ClipRequest, Crop, Forecast, Options, is_whole

DEFAULT_WINDOWS = "progressive"  # for long clips; with one window all kinds are the same
DEFAULT_FORECAST = "balanced"  # the fastest that costs no quality; that of `Options` is "off"
_REQUEST = tuple(f.name for f in fields(ClipRequest) if f.name not in ("options", "control", "crop", "size"))
_OPTIONS = tuple(f.name for f in fields(Options) if f.name != "forecast")
FORECAST_SETTINGS = tuple(f.name for f in fields(Forecast) if f.name != "method")
CROP_SETTINGS = {"crop": "area", "crop_scale": "scale", "crop_rotate": "rotate", "paste_mask": "mask"}
CROP_SETTINGS |= {"paste_color": "color"} | {name: name for name in ("face", "paste", "feather", "alpha")}
_OBJECTS = {"forecast": {"method": "forecast"} | {name: name for name in FORECAST_SETTINGS}}  # settings by field
_OBJECTS["crop"] = {field: name for name, field in CROP_SETTINGS.items()}
SETTINGS = (*_REQUEST, "size", "forecast", *_OPTIONS, *FORECAST_SETTINGS, *CROP_SETTINGS, "control", "edit")


def parse_request(settings: Mapping[str, Any]) -> ClipRequest:
    """Build a request from settings by name, as the command line and files hold them.

    Args:
        settings: values for names in SETTINGS. An absent one, or None, has the default of `ClipRequest`, except that
            windows are progressive, and that the forecast is balanced: off with a solver other than DDIM, calibrated
            with `evaluations`. `size` may be "HxW", faces "N"; `forecast`, `crop` and `control` an object of a class's
            fields, `control` also its JSON file; `edit` comes on top of it: an object, or "smile=0.6,yaw=10".

    Raises:
        OptionError: an unknown setting, or a value outside its range.
        InputError: a size that no clip can have.
    """
    known = flattened({name: value for name, value in settings.items() if value is not None})
    known = {"portrait": "", "motion": ""} | known
    for name in ("face", "driving_face"):  # numbers are texts on the command line
        if isinstance(known.get(name), str) and re.fullmatch("[0-9]{1,4}", known[name]):
            known[name] = int(known[name])
    if unknown := [name for name in known if name not in SETTINGS]:
        raise OptionError(f"{', '.join(map(repr, unknown))} is not known; allowed: {', '.join(SETTINGS)}")
    size = known.get("size")
    if isinstance(size, str):
        size = parse_size(size)
    elif size is not None and not (isinstance(size, tuple | list) and len(size) == 2 and all(map(is_whole, size))):
        raise OptionError(f'size={size!r} is not valid; give "HxW"')
    try:
        options = Options(
            forecast=_forecast(known),
            **{"windows": DEFAULT_WINDOWS} | {name: known[name] for name in _OPTIONS if name in known},
        )
    except TypeError as error:
        raise OptionError(f"an option is of the wrong type ({error})") from error
    crop = Crop(**{field: known[name] for field, name in _OBJECTS["crop"].items() if name in known})
    rest: dict[str, Any] = {name: known[name] for name in _REQUEST if name in known}
    rest |= {"crop": crop, "control": parse_control(known.get("control", {}), known.get("edit"))}
    return ClipRequest(options=options, size=None if size is None else (size[0], size[1]), **rest)


def flattened(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Replace objects in `forecast` and `crop` by settings; raise OptionError for a field unknown or given twice."""
    objects = {name: value for name, value in settings.items() if name in _OBJECTS and isinstance(value, Mapping)}
    flat = {name: value for name, value in settings.items() if name not in objects}
    for name, values in objects.items():
        for field, value in values.items():
            if (setting := _OBJECTS[name].get(field)) is None:
                raise OptionError(f"{name} has no {field!r}; it has {', '.join(_OBJECTS[name])}")
            if setting in flat:
                raise OptionError(f"{setting} is given twice, in {name} and beside it; leave one out")
            flat[setting] = value
    return flat


def _forecast(settings: Mapping[str, Any]) -> Forecast:
    method = settings.get("forecast")
    if method is None:
        plain = settings.get("solver", "ddim") == "ddim"
        method = ("calibrated" if "evaluations" in settings else DEFAULT_FORECAST) if plain else "off"
    return Forecast(method=method, **{name: settings[name] for name in FORECAST_SETTINGS if name in settings})


def parse_size(text: str) -> tuple[int, int]:
    """Parse "HxW" into (height, width).

    Raises:
        OptionError: the text has another form.
    """
    sides = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if sides is None:
        raise OptionError(f"size={text!r} is not valid; give height and width in pixels, for instance 512x384")
    return int(sides[1]), int(sides[2])
