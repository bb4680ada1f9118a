"""A GPU's memory and one stream of work, through cuda-core."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import BackendError

INSTALL = "run: pip install 'fye-rt[tensorrt]'"


class Gpu:
    """The current GPU, as all engines of one Animator see it: they work one after another, on one stream.

    Attributes:
        device: of cuda-core.
        stream: likewise.
        scratch: memory that every engine works in, and none finds as it left it.
    """

    def __init__(self) -> None:
        """Raises BackendError where no GPU can be used."""
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
        """Make it the GPU of this thread."""
        self.device.set_current()

    def allocate(self, size: int) -> Any:
        """A cuda-core Buffer of so many bytes; it is freed when nobody holds it any more.

        Raises:
            BackendError: there is not so much left.
        """
        try:
            return self.device.allocate(max(1, size), stream=self.stream)
        except Exception as error:
            raise BackendError(
                f"the GPU has no {size / 2**20:.0f} MB left ({error}); make smaller clips or close what else uses it"
            ) from error

    def work_in(self, size: int) -> None:
        """Have scratch of at least so many bytes."""
        if self.scratch is None or self.scratch.size < size:
            self.scratch = None  # the old goes first
            self.scratch = self.allocate(size)

    def put(self, array: NDArray[Any]) -> Any:
        """A new Buffer with an array's numbers; waits until they are there.

        Raises:
            BackendError: as `allocate`.
        """
        buffer = self.allocate(array.nbytes)
        if self._staging is None or len(self._staging[1]) < buffer.size:
            self._staging = None
            self._staging = self.pinned(buffer.size)
        there, here = self._staging
        here[: array.nbytes].view(array.dtype).reshape(array.shape)[...] = array
        buffer.copy_from(part(there, buffer.size), stream=self.stream)
        self.wait()
        return buffer

    def wait(self) -> None:
        """Until everything queued so far is finished.

        Raises:
            BackendError: some of it failed.
        """
        try:
            self.stream.sync()
        except Exception as error:
            raise BackendError(f"the GPU failed ({error}); start again") from error

    def pinned(self, size: int) -> tuple[Any, NDArray[np.uint8]]:
        """Memory of the host that the GPU copies from and to: a Buffer, and an array of its bytes."""
        buffer = self._pinned.allocate(size)
        return buffer, np.from_dlpack(buffer).view(np.uint8)


class Place:
    """An array's place on the GPU, with one on the host for the way there and back. It grows, and then moves.

    Attributes:
        holds: whose numbers lie there, for whoever copied them; None after `upload`.
    """

    def __init__(self, gpu: Gpu, dtype: Any) -> None:
        self._gpu, self._dtype = gpu, np.dtype(dtype)
        self._device: Any = None
        self._host: tuple[Any, NDArray[np.uint8]] | None = None
        self._size = 0
        self.holds: object = None

    @property
    def address(self) -> int:
        """Of the first byte, on the GPU."""
        return int(self._device.handle)

    def reserve(self, shape: Sequence[int]) -> None:
        """Have room on the GPU for an array of that shape; what was there is lost if it has to move."""
        self._size = int(np.prod(shape, dtype=np.int64)) * self._dtype.itemsize
        if self._device is None or self._device.size < self._size:
            self._device = self.holds = None
            self._device = self._gpu.allocate(self._size)

    def upload(self, array: NDArray[Any]) -> None:
        """Queue the copy of an array of the reserved shape and this dtype; the one before must have been made."""
        host = self._staging()
        host.view(self._dtype).reshape(array.shape)[...] = array
        part(self._device, self._size).copy_from(part(self._host_buffer(), self._size), stream=self._gpu.stream)
        self.holds = None

    def copy(self, source: Any) -> None:
        """Queue the copy of a Buffer of the reserved size."""
        part(self._device, self._size).copy_from(source, stream=self._gpu.stream)

    def download(self) -> None:
        """Queue the copy to the host."""
        self._staging()
        part(self._device, self._size).copy_to(part(self._host_buffer(), self._size), stream=self._gpu.stream)

    def array(self, shape: Sequence[int]) -> NDArray[Any]:
        """What was downloaded, once that is finished; the caller's own."""
        return self._staging().view(self._dtype).reshape(shape).copy()

    def _staging(self) -> NDArray[np.uint8]:
        if self._host is None or len(self._host[1]) < self._size:
            self._host = None
            self._host = self._gpu.pinned(self._device.size)
        return self._host[1][: self._size]

    def _host_buffer(self) -> Any:
        assert self._host is not None
        return self._host[0]


def part(buffer: Any, size: int) -> Any:
    """The first bytes of a Buffer."""
    if buffer.size == size:
        return buffer
    return type(buffer).from_handle(buffer.handle, size, owner=buffer)


def as_tensorrt_dtype(array: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """Numbers as TensorRT reads them.

    Args:
        array: to be copied where its type is another.
        dtype: a name of TensorRT's: "FLOAT", "HALF", "BF16", whose bits come as uint16, or "INT64".
    """
    if dtype != "BF16":
        return array.astype({"FLOAT": np.float32, "HALF": np.float16, "INT64": np.int64}[dtype], copy=False)
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)  # to the nearest, ties to even
