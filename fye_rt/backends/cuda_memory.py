"""GPU memory and one stream of work, through cuda-core."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import BackendError

TYPES = {"FLOAT": np.float32, "HALF": np.float16, "BF16": np.uint16, "INT64": np.int64}  # by TensorRT's names
INSTALL = "run: pip install 'fye-rt[cuda]'"


class Gpu:
    """The current GPU, shared by all engines of one Animator, which run one after another on one stream.

    Attributes:
        device: cuda-core device.
        stream: cuda-core stream.
        scratch: working memory of all engines; each overwrites it.
    """

    def __init__(self) -> None:
        """Open the current GPU; raises BackendError if no GPU can be used."""
        try:
            from cuda.core import Device, LegacyPinnedMemoryResource

            self.device = Device()
            self.device.set_current()
            self.stream = self.device.create_stream()
            self._pinned = LegacyPinnedMemoryResource()
        except ImportError as error:
            raise BackendError(f"cuda-core is missing ({error}); {INSTALL}") from error
        except Exception as error:  # the driver's and the bindings' own types
            raise BackendError(f"no GPU can be used ({error}); see: fye doctor") from error
        self.scratch: Any = None
        self._staging: tuple[Any, NDArray[np.uint8]] | None = None

    def enter(self) -> None:
        """Make this the current GPU of the calling thread."""
        self.device.set_current()

    def allocate(self, size: int) -> Any:
        """Allocate a Buffer of `size` bytes, freed with its last reference; raises BackendError if memory runs out."""
        try:
            return self.device.allocate(max(1, size), stream=self.stream)
        except Exception as error:
            raise BackendError(
                f"the GPU has no {size / 2**20:.0f} MB left ({error}); make smaller clips or close what else uses it"
            ) from error

    def work_in(self, size: int) -> None:
        """Grow `scratch` to at least `size` bytes."""
        if self.scratch is None or self.scratch.size < size:
            self.scratch = None  # frees the old memory first
            self.scratch = self.allocate(size)

    def put(self, values: NDArray[np.float32], dtype: str) -> Any:
        """Copy an array in a type of TensorRT to a new Buffer and wait for it; raises BackendError as `allocate`."""
        array = as_tensorrt_dtype(values, dtype)
        buffer = self.allocate(array.nbytes)
        if self._staging is None or len(self._staging[1]) < buffer.size:
            self._staging = None
            self._staging = self.pinned(buffer.size)
        pinned, host = self._staging
        host[: array.nbytes].view(array.dtype).reshape(array.shape)[...] = array
        buffer.copy_from(part(pinned, buffer.size), stream=self.stream)
        self.wait()
        return buffer

    def wait(self) -> None:
        """Wait for all queued work; raises BackendError if some of it failed."""
        try:
            self.stream.sync()
        except Exception as error:
            raise BackendError(f"the GPU failed ({error}); start again") from error

    def pinned(self, size: int) -> tuple[Any, NDArray[np.uint8]]:
        """Allocate pinned host memory, which the GPU copies from and to: a Buffer, and an array of its bytes."""
        buffer = self._pinned.allocate(size)
        return buffer, np.from_dlpack(buffer).view(np.uint8)


class Place:
    """Memory of one array on the GPU, and a staging buffer on the host for its transfers. Growing moves it.

    Attributes:
        holds: the object whose numbers are stored, set by the caller that copied them; None after `upload`.
    """

    def __init__(self, gpu: Gpu, dtype: Any) -> None:
        self._gpu, self._dtype = gpu, np.dtype(dtype)
        self._device: Any = None
        self._host: tuple[Any, NDArray[np.uint8]] | None = None
        self._size = 0
        self.holds: object = None

    @property
    def address(self) -> int:
        """Address of the first byte, on the GPU."""
        return int(self._device.handle)

    def reserve(self, shape: Sequence[int]) -> None:
        """Reserve GPU memory for an array of `shape`; the old content is lost if the memory has to move."""
        self._size = int(np.prod(shape, dtype=np.int64)) * self._dtype.itemsize
        if self._device is None or self._device.size < self._size:
            self._device = self.holds = None
            self._device = self._gpu.allocate(self._size)

    def upload(self, array: NDArray[Any]) -> None:
        """Queue the copy of an array of the reserved shape and this dtype; the copy before must be complete."""
        buffer, host = self._staging()
        host.view(self._dtype).reshape(array.shape)[...] = array
        part(self._device, self._size).copy_from(buffer, stream=self._gpu.stream)
        self.holds = None

    def copy(self, source: Any) -> None:
        """Queue the copy of a Buffer of the reserved size."""
        part(self._device, self._size).copy_from(source, stream=self._gpu.stream)

    def download(self) -> None:
        """Queue the copy to the host."""
        buffer, _ = self._staging()
        part(self._device, self._size).copy_to(buffer, stream=self._gpu.stream)

    def array(self, shape: Sequence[int]) -> NDArray[Any]:
        """Return a copy of the downloaded array; the download must be complete."""
        return self._staging()[1].view(self._dtype).reshape(shape).copy()

    def _staging(self) -> tuple[Any, NDArray[np.uint8]]:
        if self._host is None or len(self._host[1]) < self._size:
            self._host = None
            self._host = self._gpu.pinned(self._device.size)
        buffer, host = self._host
        return part(buffer, self._size), host[: self._size]


def part(buffer: Any, size: int) -> Any:
    """Return a view of the first `size` bytes of a Buffer."""
    if buffer.size == size:
        return buffer
    return type(buffer).from_handle(buffer.handle, size, owner=buffer)


def as_tensorrt_dtype(array: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """Convert an array, unless it has the type already, to TensorRT's FLOAT, HALF, INT64, or BF16 (as uint16 bits)."""
    if dtype != "BF16":
        return array.astype(TYPES[dtype], copy=False)
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)  # round to nearest, ties to even
