"""NVIDIA GPUs of this machine, as the driver reports them, without heavy imports."""

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

# only one of the two wheels may be installed: they overwrite each other's files
ONNXRUNTIME_GPU = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'onnxruntime-gpu[cuda,cudnn]'"
_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


@dataclass(frozen=True, slots=True)
class Gpu:
    """An NVIDIA GPU.

    Attributes:
        name: product name.
        sm: architecture, such as "sm_90".
        memory: size in bytes.
    """

    name: str
    sm: str
    memory: int


@dataclass(frozen=True, slots=True)
class Found:
    """The driver's answer.

    Attributes:
        gpus: the GPUs that CUDA_VISIBLE_DEVICES leaves visible.
        cuda: newest CUDA version that the driver supports, such as "13.0"; "" if the driver is missing or fails.
        reason: why `gpus` is empty, or "".
    """

    gpus: tuple[Gpu, ...]
    cuda: str
    reason: str


@cache
def gpus() -> Found:
    """Ask the driver once and remember its answer."""
    return look(ctypes.CDLL)


def look(load: Callable[[str], Any]) -> Found:
    """Ask the driver, which `load` opens as a shared library by its name, as `ctypes.CDLL` does."""
    try:
        driver = load(_DRIVER)
    except OSError:
        return Found((), "", "there is no NVIDIA driver")
    number, device, size, text = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(256)
    if error := driver.cuInit(0):
        return Found((), "", f"the NVIDIA driver finds no GPU (CUDA error {error})")
    driver.cuDriverGetVersion(ctypes.byref(number))
    cuda = f"{number.value // 1000}.{number.value % 1000 // 10}"
    driver.cuDeviceGetCount(ctypes.byref(number))
    devices = []
    for ordinal in range(number.value):
        driver.cuDeviceGet(ctypes.byref(device), ordinal)
        driver.cuDeviceGetName(text, len(text), device)
        driver.cuDeviceTotalMem_v2(ctypes.byref(size), device)
        version = []
        for attribute in (_MAJOR, _MINOR):
            driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
            version.append(number.value)
        devices.append(Gpu(text.value.decode(errors="replace"), f"sm_{version[0]}{version[1]}", size.value))
    return Found(tuple(devices), cuda, "" if devices else "the NVIDIA driver shows no GPU")
