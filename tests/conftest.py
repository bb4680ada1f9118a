"""Fixtures shared by all tests: the recorded numbers of the reference, and bundles to run."""

import importlib
import os
import random
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from fye_rt import machine
from fye_rt.backends import gpu
from fye_rt.bundle import shipped_bundles
from fye_rt.errors import BackendError, InputError
from fye_rt.landmarks import find_landmarker
from fye_rt.media.opencv import load_cv2

if TYPE_CHECKING:
    from fye_export.onnx_graph import Graph

ROOT = Path(__file__).resolve().parents[1]


def _no_gpu() -> str:
    """Why no test runs on a GPU, or "". PyTorch is slow to load, and asked only if the driver shows a GPU."""
    if reason := gpu.gpus().reason:
        return reason
    if find_spec("torch") is None or not importlib.import_module("torch").cuda.is_available():
        return "there is no PyTorch for the GPU"
    return "TRITON_INTERPRET=1 has kernels run on the CPU" if os.environ.get("TRITON_INTERPRET") == "1" else ""


NO_GPU = _no_gpu()  # the one decision of all tests
if NO_GPU:  # kernels run in Triton's interpreter: chosen here, before anything loads Triton, as PyTorch may
    os.environ["TRITON_INTERPRET"] = "1"


# The same examples in every run, and no verdict that depends on how busy the machine is. `make fuzz` looks at others.
SAME = {
    "deadline": None,
    "database": None,
    "suppress_health_check": (HealthCheck.too_slow, HealthCheck.function_scoped_fixture),
}
settings.register_profile("same", derandomize=True, **SAME)
settings.register_profile("fuzz", derandomize=False, print_blob=True, **SAME)
settings.load_profile("same")


def pytest_configure(config: pytest.Config) -> None:
    """Of several workers (pytest-xdist), each has its share of the cores, as every library then sees."""
    worker = getattr(config, "workerinput", None)
    if worker and hasattr(os, "sched_setaffinity"):
        cores, number = sorted(os.sched_getaffinity(0)), int(worker["workerid"].removeprefix("gw"))
        os.sched_setaffinity(0, cores[number % len(cores) :: worker["workercount"]])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One file cuts the golden checkpoint's graphs at the start; others that need them come last, and none waits."""
    needing = {item.path for item in items if "golden_export" in getattr(item, "fixturenames", ())}
    first = ROOT / "tests" / "fye_rt" / "test_parity.py"
    items.sort(key=lambda item: (item.path != first) + (item.path in needing and item.path != first))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none."""
    marker = item.get_closest_marker("gpu")
    if NO_GPU and marker is not None:
        pytest.skip(f"needs a GPU of {marker.kwargs['architecture']}: {NO_GPU}")


@pytest.fixture(scope="module", autouse=True)
def torch_threads() -> Iterator[None]:
    """Threads of PyTorch are set for its process: more than cores would make all later tests a hundred times slower."""
    yield
    if "torch" in sys.modules and (cores := machine.cores()):
        sys.modules["torch"].set_num_threads(cores)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Numbers that a test draws without a seed are the same whichever tests ran before it."""
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True)
def usual_scheduling() -> Iterator[None]:
    """SVT-AV1 gives the thread that calls it real-time priority, where it may: other processes would wait for ever."""
    yield
    if hasattr(os, "sched_setscheduler") and os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture(scope="session")
def data() -> Path:
    """Small fixtures that are part of the repository."""
    return ROOT / "tests" / "data"


@pytest.fixture(scope="session")
def device() -> str:
    """Where kernels and networks run."""
    return "cpu" if NO_GPU else "cuda"


@pytest.fixture(scope="session")
def opencv() -> None:
    """OpenCV loads; its wheel needs system libraries that a bare machine lacks."""
    try:
        load_cv2()
    except BackendError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def talking_head(data: Path) -> Path:
    """A video of a face: 40 frames of 176x144 with sound, see tests/talking_head.py."""
    return data / "media" / "astronaut.mp4"


@pytest.fixture(scope="session")
def landmarker(opencv: None) -> Path:
    """MediaPipe's model file: beside the checkout, or where `fye doctor --get landmarker` puts it."""
    beside = ROOT.parent / "shared" / "models" / "face_landmarker.task"
    if beside.is_file():
        return beside
    try:
        return find_landmarker()
    except InputError:
        pytest.skip("needs MediaPipe's face_landmarker.task; get it with: fye doctor --get landmarker")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Larger reference material that may lie beside a checkout; not needed by users."""
    folder = ROOT.parent / "shared"
    if not (folder / "reference").is_dir():
        pytest.skip("needs the reference material in ../shared, which is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    """Recorded inputs and outputs of the reference implementation, with its tiny checkpoint."""
    return shared / "reference" / "golden"


@pytest.fixture(scope="session")
def golden_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint that the recorded numbers belong to, in the released layout. Not to be written to."""
    from tests import golden_files

    folder = tmp_path_factory.mktemp("golden") / "checkpoint"
    golden_files.write_checkpoint(folder)
    return folder


@pytest.fixture(scope="session")
def golden_export(golden_checkpoint: Path) -> Path:
    """A folder with `golden_bundle` and the graphs it was made of. Not to be written to."""
    from tests import golden_bundle

    return golden_bundle.exported(golden_checkpoint)


@pytest.fixture(scope="session")
def golden_traces(golden_export: Path) -> "dict[str, Graph]":
    """The graphs of `golden_bundle` by name: tracing them takes most of an export's time."""
    from tests import golden_bundle

    return golden_bundle.traces(golden_export)


@pytest.fixture(scope="session")
def golden_bundle(golden_export: Path) -> Path:
    """The golden checkpoint's export in float32. Not to be written to."""
    return golden_export / "bundle"


@pytest.fixture(scope="session")
def tiny_bundle() -> Path:
    """The random bundle that ships."""
    return shipped_bundles() / "tiny"
