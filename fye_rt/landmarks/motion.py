"""Motion: a sequence of expression-aware face landmarks, and its file format."""

import os
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import InputError, OutputError
from fye_rt.files import atomic_file, refuse_pointer
from fye_rt.files.rows import Rows, by_parts, check_room, is_large, parts

POINTS = 478  # MediaPipe's 468 mesh points, then 5 points of the right iris and 5 of the left
MESH_POINTS = 468
BLENDSHAPES = 51  # MediaPipe's 52 without the first, "_neutral"
MAX_FRAMES = 1_000_000  # nine hours at 30 frames per second
MAX_VALUE = 1e6  # pixels, centimetres and weights of a real face lie far below
FORMAT_VERSION = 1
# Steps between neighbouring frames that no head makes except while it keeps shaking: (threshold, increase per second).
# A real talking head moves by at most 0.04 face sizes from frame to frame and 1.3 a second; its size changes by 0.02,
# its mesh by 0.32 cm. Cuts between three real people move by 1 and more; where one face is laid over the other, by 0.1,
# and the mesh by 0.95 cm.
_CUT_MOVED = (0.2, 2.5)  # mean of all points, in face sizes
_CUT_RESIZED = (0.2, 1.2)  # logarithm of the face's size
_CUT_RESHAPED = (0.5, 3.0)  # mean of the metric mesh, centimetres
_CUT_RATIO = 4.0  # times the 0.9 quantile of the steps around a cut; in jumpy videos all steps are alike
_STILL = 0.1  # times the 0.9 quantile of all steps: below, a frame repeats the last one, compressed again
_LONGEST_STILL = 0.1  # seconds; anything longer may be a still picture, from which the video cuts

_FLOATS = {  # field: shape of one frame
    "points": (POINTS, 3),
    "mesh": (MESH_POINTS, 3),
    "pose": (4, 4),
    "blendshapes": (BLENDSHAPES,),
    "times": (),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Motion:
    """Face landmarks of F frames; a still picture is a motion of one frame.

    Attributes:
        points: float64 (F, 478, 3); x and y in units of the picture's width and height (y down), z in units of
            its width. Points may lie outside [0, 1].
        mesh: float64 (F, 468, 3), the metric face mesh in centimetres, in the canonical face's frame.
        pose: float64 (F, 4, 4), canonical frame to camera frame (x right, y up, looking along -z), centimetres.
        blendshapes: float64 (F, 51), MediaPipe's expression weights in its order, "_neutral" dropped.
        times: float64 (F,), seconds, strictly increasing; frame rates may vary.
        fps: nominal frames per second.
        source_size: height and width in pixels of the picture the landmarks come from.
        valid: bool (F,); False where no face was found and the frame was interpolated.
        notices: lines for the user who started the detection; not stored in the file.
        rest: float64 (468, 3), the driving face at rest, from which expressions are differences; None: the mesh of the
            frame with the least expression. Edited motions have one, as their frames no longer show it.
        anchor: float64 (3,), the head's place from which its movement counts; None: that of the first frame.

    Raises:
        InputError: a wrong shape, a value that is not finite, 0 or more than a million frames, times that do not
            increase, or a pose that is not a rotation and a translation.
    """

    points: NDArray[np.float64]
    mesh: NDArray[np.float64]
    pose: NDArray[np.float64]
    blendshapes: NDArray[np.float64]
    times: NDArray[np.float64]
    fps: float
    source_size: tuple[int, int]
    valid: NDArray[np.bool_]
    notices: tuple[str, ...] = ()
    rest: NDArray[np.float64] | None = None
    anchor: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        frames = len(self.points)
        check_frames(frames)
        for name, shape in _FLOATS.items():
            array = np.ascontiguousarray(getattr(self, name), np.float64)
            _require(array.shape == (frames, *shape), f"{name} has shape {array.shape}, expected {(frames, *shape)}")
            # not <= instead of >: NaN compares false
            sane = all((np.abs(array[part]) <= MAX_VALUE).all() for part in parts(frames))
            _require(sane, f"{name} is not finite or absurdly large")
            object.__setattr__(self, name, array)
        valid = np.ascontiguousarray(self.valid)
        _require(valid.dtype == np.bool_ and valid.shape == (frames,), f"valid is not bool ({frames},)")
        object.__setattr__(self, "valid", valid)
        _require(bool(self.times[0] >= 0), "its first time is negative")
        _require(bool((np.diff(self.times) > 0).all()), "its times do not increase from frame to frame")
        _require(0.1 <= self.fps <= 1000, f"{self.fps} frames per second is not between 0.1 and 1000")
        _require(all(1 <= side <= 65536 for side in self.source_size), f"source size {self.source_size} is not valid")
        _require(_is_rigid(self.pose), "pose has a matrix that is not a rotation and a translation")

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, frames: slice) -> "Motion":
        """Return the frames of a slice; a stride divides the nominal frame rate."""
        arrays = {name: getattr(self, name)[frames] for name in (*_FLOATS, "valid")}
        return replace(self, **arrays, fps=self.fps / (frames.step or 1))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a compressed .npz with a format version; the same motion always gives the same bytes.

        Raises:
            OutputError: as `fye_rt.files.atomic_file`.
        """
        arrays = {name: getattr(self, name) for name in (*_FLOATS, "valid")}
        arrays |= {"fps": np.float64(self.fps), "source_size": np.array(self.source_size, np.int64)}
        arrays["format_version"] = np.int64(FORMAT_VERSION)
        with atomic_file(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name, array in arrays.items():
                entry = zipfile.ZipInfo(f"{name}.npy")  # its fixed date of 1980 keeps the bytes reproducible
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.file_size = array.nbytes + 1024  # about; the archive corrects it
                with archive.open(entry, "w") as stream:
                    np.lib.format.write_array(stream, np.asarray(array), version=(1, 0), allow_pickle=False)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file of `save`. Shapes and sizes are checked before any data is read; nothing is unpickled.

        Raises:
            InputError: `path` is missing, damaged, of another format version or over the limit of a million frames.
            OutputError: a long motion finds no room in the folder for temporary files.
        """
        path = Path(path)
        refuse_pointer(path, InputError)
        try:
            with zipfile.ZipFile(path) as archive:
                return cls(**_read_fields(archive))
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file; give a motion file that `fye landmarks` wrote") from error
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except OutputError:
            raise
        except Exception as error:  # zipfile, zlib and numpy raise a dozen kinds on damaged bytes
            reason = str(error) or type(error).__name__
            raise InputError(f"{path} is not a motion file ({reason}); make one with `fye landmarks`") from error


def neutral_frame(motion: Motion) -> int:
    """Return the index of the frame with the least expression: the smallest sum of blendshapes."""
    return int(np.argmin(motion.blendshapes.sum(axis=1)))


def find_cuts(motion: Motion) -> list[int]:
    """Find the frames at which the motion continues with another face, or another framing of the same face.

    A cut is a step that is too large for its time, that exceeds the steps of the second before and after, and that the
    next frame does not reverse. Interpolated frames are skipped.

    Returns:
        Index of the first frame after each cut.
    """
    frames = np.flatnonzero(motion.valid)
    times = motion.times[frames]

    def points(part: Any) -> NDArray[np.float64]:
        return motion.points[frames[part]][..., :2] * motion.source_size[::-1]

    extents = by_parts(len(frames), (2,), lambda part: np.ptp(points(part), axis=1))
    size = np.sqrt(np.maximum(extents, 1e-6).prod(axis=1))  # of the face, pixels

    def moved(i: int, j: int) -> float:
        return float(np.linalg.norm(points(j) - points(i), axis=1).mean() / np.sqrt(size[i] * size[j]))

    def resized(i: int, j: int) -> float:
        return float(abs(np.log(size[j] / size[i])))

    def reshaped(i: int, j: int) -> float:
        return float(np.linalg.norm(motion.mesh[frames[j]] - motion.mesh[frames[i]], axis=1).mean())

    before = np.arange(len(frames) - 1)
    seconds = np.diff(times)
    cuts: set[int] = set()
    for measure, (at_once, a_second) in ((moved, _CUT_MOVED), (resized, _CUT_RESIZED), (reshaped, _CUT_RESHAPED)):
        steps = np.array([measure(k, k + 1) for k in before.tolist()])
        if measure is moved:
            seconds = _with_stills(seconds, steps)
        for k in np.flatnonzero(steps > at_once + a_second * seconds).tolist():
            near = (np.abs(times[:-1] - times[k]) <= max(1.0, 4 * seconds[k])) & (before != k)
            usual = float(np.quantile(steps[near], 0.9)) if near.any() else 0.0
            around = [(i, j) for i in (k - 1, k) for j in (k + 1, k + 2) if i >= 0 and j < len(frames)]
            lasts = k + 2 < len(frames) and min(measure(i, j) for i, j in around) > steps[k] / 2
            if lasts and steps[k] > _CUT_RATIO * usual:
                cuts.add(int(frames[k + 1]))
    return sorted(cuts)


def _with_stills(seconds: NDArray[np.float64], steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how long each step may have taken: a video of few frames a second may repeat each of them."""
    longer, still = seconds.copy(), 0.0
    least = _STILL * float(np.quantile(steps, 0.9)) if len(steps) else 0.0
    for k, step in enumerate(steps):
        longer[k] = max(seconds[k], min(still + seconds[k], _LONGEST_STILL))
        still = still + seconds[k] if step < least else 0.0
    return longer


def check_frames(frames: int) -> None:
    """Raise InputError, with the number, unless `frames` is 1 to a million."""
    if frames < 1:
        raise InputError("the motion has no frames; at least one is needed")
    if frames > MAX_FRAMES:
        raise InputError(f"the motion has {frames} frames, the limit is {MAX_FRAMES:,}; cut it into shorter clips")


def _read_fields(archive: zipfile.ZipFile) -> dict[str, Any]:
    version = int(_read(archive, "format_version", np.int64, ()))
    if version != FORMAT_VERSION:
        raise InputError(f"motion format {version} is not known (only {FORMAT_VERSION}); install a matching fye-rt")
    with archive.open("times.npy") as stream:
        shape, _, _ = read_header(stream)
    if len(shape) != 1:
        raise ValueError(f"times has shape {shape}")
    check_frames(shape[0])
    fields: dict[str, Any] = {
        name: _read(archive, name, np.float64, (*shape, *frame)) for name, frame in _FLOATS.items()
    }
    fields["valid"] = _read(archive, "valid", np.bool_, shape)
    fields["fps"] = float(_read(archive, "fps", np.float64, ()))
    height, width = _read(archive, "source_size", np.int64, (2,))
    return fields | {"source_size": (int(height), int(width))}


def _read(archive: zipfile.ZipFile, name: str, kind: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
    """Read an array whose dtype and shape must be as expected, so that a header cannot ask for more memory."""
    with archive.open(f"{name}.npy") as stream:
        stored, fortran, dtype = read_header(stream)
        if stored != shape or dtype != kind or fortran:
            raise ValueError(f"{name} is {dtype} {stored}, expected {np.dtype(kind)} {shape}")
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if is_large(size):
            check_room(size)  # before a small file of repeated frames, or a hostile one, fills the disk
            return _read_long(stream, name, np.dtype(kind), shape)
        data = stream.read(size + 1)  # one more, so that zipfile reaches the end and compares the checksum
    if len(data) != size:
        raise ValueError(f"{name} has {len(data)} bytes, expected {size}")
    return np.frombuffer(data, kind).reshape(shape)


def _read_long(stream: IO[bytes], name: str, kind: np.dtype, shape: tuple[int, ...]) -> NDArray[Any]:
    rows = Rows(shape[1:], kind.type)
    size = int(np.prod(shape[1:], dtype=np.int64)) * kind.itemsize
    for part in parts(shape[0]):
        count = part.stop - part.start
        data = stream.read(count * size)
        if len(data) != count * size:
            raise ValueError(f"{name} has no more than {part.start} frames, expected {shape[0]}")
        rows.append(np.frombuffer(data, kind).reshape(count, *shape[1:]))
    if stream.read(1):
        raise ValueError(f"{name} has more than {shape[0]} frames")
    return rows.array()


def _is_rigid(pose: NDArray[np.float64]) -> bool:
    """Return whether poses are a rotation times a scale (MediaPipe's is near 1) and a translation, within 1 %."""
    rotation, determinant = pose[:, :3, :3], np.linalg.det(pose[:, :3, :3])
    if not (determinant > 1e-3).all() or not np.allclose(pose[:, 3], (0, 0, 0, 1), atol=1e-6):
        return False
    gram = rotation @ rotation.transpose(0, 2, 1) / np.cbrt(determinant)[:, None, None] ** 2
    return bool(np.allclose(gram, np.eye(3), atol=1e-2))


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise InputError(f"{message}; find the landmarks again with `fye landmarks`")


def read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read shape, Fortran order and dtype; leave the stream at the first byte of the data.

    Raises:
        ValueError: not a .npy stream of format version 1 or 2.
    """
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise ValueError(f".npy format version {version[0]}.{version[1]} is not known")
