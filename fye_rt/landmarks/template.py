"""Read the reference's landmark templates: .npy files with a pickled array of dictionaries.

A pickle is a program. The interpreter below knows only four of NumPy's names, and they stand for inert records: no
NumPy code sees the stream's state, and no object with behaviour can be created.
"""

import io
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import InputError
from fye_rt.files import refuse_pointer
from fye_rt.landmarks.motion import BLENDSHAPES, MESH_POINTS, POINTS, Motion, check_frames, read_header

TEMPLATE_FPS = 7.0  # the reference's rate for its results; templates have no frame rate
MAX_BYTES = 256 << 20  # about 5,800 frames of 46 kB
_MOST_FRAMES = 18_000  # of which a hostile file may have many in few bytes
_DTYPES = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}
_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")  # NumPy 1 and NumPy 2


def load_template(path: str | os.PathLike[str], fps: float = TEMPLATE_FPS) -> Motion:
    """Read one of the reference's templates, or its record of one portrait's landmarks.

    Args:
        path: a .npy with an object array, or a single object, of dictionaries with the keys lmks (478, 3),
            lmks3d (468, 3), trans_mat (4, 4), bs (51 numbers), width and height; other keys are ignored.
        fps: frame rate of the motion; the file has none.

    Returns:
        The motion, every frame valid.

    Raises:
        InputError: `path` is missing, damaged, over a limit (256 MiB, 18,000 frames), or has anything but plain
            containers and NumPy arrays of numbers.
    """
    path = Path(path)
    refuse_pointer(path, InputError)
    try:
        with path.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size > MAX_BYTES:
                raise InputError(f"it exceeds the limit of {MAX_BYTES >> 20} MiB; cut it into shorter templates")
            shape, _, dtype = read_header(stream)
            if dtype != np.dtype(object) or len(shape) > 1:
                raise ValueError(f"it contains {dtype} {shape}, not a list of frames")
            content = _Unpickler(io.BytesIO(stream.read(MAX_BYTES))).load()
        return _to_motion(content, fps)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; give a landmark template (.npy)") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle fails in any way its opcodes can
        reason = str(error) or type(error).__name__
        raise InputError(f"{path} is not a landmark template ({reason}); use a motion of `fye landmarks`") from error


class _Record:
    """Stand-in for a NumPy object of the stream: its constructor's arguments and its state, uninterpreted."""

    __slots__ = ("arguments", "state")

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        self.arguments = arguments
        self.state: Any = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array(_Record):
    """arguments: (class, shape, kind); state: (version, shape, dtype, Fortran order, data)."""


class _Dtype(_Record):
    """arguments: (name, align, copy); state: (version, byte order, ...)."""


class _Scalar(_Record):
    """arguments: (dtype, data)."""


_ALLOWED: dict[tuple[str, str], type[_Record]] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    **{(module, "_reconstruct"): _Array for module in _MODULES},
    **{(module, "scalar"): _Scalar for module in _MODULES},
}


# The pure-Python interpreter: the one in C lets a 10-byte stream reserve 64 GB through a memo index.
class _Unpickler(pickle._Unpickler):
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)
    del dispatch[pickle.BYTEARRAY8[0]]  # fills as many bytes as the stream claims before it reads any

    def find_class(self, module: str, name: str) -> Any:
        record = _ALLOWED.get((module, name))
        if record is None:
            raise InputError(
                f"its pickle asks for {f'{module}.{name}'!a}, which has no use in a template and may be an attack; "
                "nothing was run; use a template from a source you trust"
            )
        return lambda *arguments: record(arguments)  # a new function each time: a stream may set attributes on it


def _to_motion(content: Any, fps: float) -> Motion:
    frames = _array_items(content) if isinstance(content, _Array) else content
    if isinstance(frames, dict):
        frames = [frames]
    if not isinstance(frames, list):
        raise ValueError("it does not contain a list of frames")
    check_frames(len(frames))
    if len(frames) > _MOST_FRAMES:
        raise InputError(f"the template has {len(frames)} frames, the limit is {_MOST_FRAMES}")
    sizes = {(int(_number(frame["height"])), int(_number(frame["width"]))) for frame in frames}
    if len(sizes) > 1:
        raise ValueError(f"its frames have different sizes: {sorted(sizes)}")
    return Motion(
        points=_stack(frames, "lmks", (POINTS, 3)),
        mesh=_stack(frames, "lmks3d", (MESH_POINTS, 3)),
        pose=_stack(frames, "trans_mat", (4, 4)),
        blendshapes=_stack(frames, "bs", (BLENDSHAPES,)),
        times=np.arange(len(frames)) / fps,
        fps=fps,
        source_size=sizes.pop(),
        valid=np.ones(len(frames), np.bool_),
    )


def _stack(frames: Sequence[dict[str, Any]], key: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    stacked = np.empty((len(frames), *shape))
    for index, frame in enumerate(frames):
        value = frame[key]
        if isinstance(value, list) and len(value) == shape[0]:
            stacked[index] = [_number(item) for item in value]
        elif isinstance(value, _Array) and tuple(value.state[1]) == shape:
            stacked[index] = _array(value)
        else:
            raise ValueError(f"{key} of frame {index} is not an array of shape {shape}")
    return stacked


def _array_items(array: _Array) -> list[Any]:
    _, _, dtype, _, items = array.state
    if not isinstance(dtype, _Dtype) or dtype.arguments[0] != "O8" or not isinstance(items, list):
        raise ValueError("it does not contain an array of frames")
    return items


def _array(record: _Array) -> NDArray[np.float64]:
    _, shape, dtype, fortran, data = record.state
    return np.frombuffer(data, _numeric_dtype(dtype)).reshape(shape, order="F" if fortran else "C").astype(np.float64)


def _number(value: Any) -> float:
    if isinstance(value, _Scalar):
        dtype, data = value.arguments
        return float(np.frombuffer(data, _numeric_dtype(dtype), count=1)[0])
    if isinstance(value, int | float):
        return float(value)
    raise ValueError(f"a {type(value).__name__} takes the place of a number")


def _numeric_dtype(record: Any) -> np.dtype:
    if not isinstance(record, _Dtype) or record.arguments[0] not in _DTYPES:
        raise ValueError("an array contains something other than numbers")
    return np.dtype(record.arguments[0]).newbyteorder(record.state[1] if record.state else "=")
