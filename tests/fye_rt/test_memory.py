"""Memory that runs out ends in one line that names the work and what needs less; what comes after goes on."""

import errno
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av.error
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from PIL import Image

from fye_rt import media
from fye_rt.animator import Animator
from fye_rt.batch.workers import Died, Server
from fye_rt.bundle import Bundle
from fye_rt.cli.arguments import as_flags
from fye_rt.clips.live import live_frames
from fye_rt.errors import BackendError, InputError, OutOfMemoryError, OutputError, lacking, memory_for
from fye_rt.options import Options
from tests.fye_rt.command_line import PORTRAIT, TINY, python

MUCH = 2**50  # bytes or more; no address space has room for it
Torch = type("OutOfMemoryError", (RuntimeError,), {})  # as PyTorch's, whose name tells it


def of_onnxruntime() -> None:
    shape = helper.make_tensor_value_info("shape", TensorProto.INT64, [1])
    filled = helper.make_tensor_value_info("filled", TensorProto.FLOAT, ["n"])
    graph = helper.make_graph([helper.make_node("ConstantOfShape", ["shape"], ["filled"])], "graph", [shape], [filled])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    session.run(None, {"shape": np.array([MUCH], np.int64)})


def of_numpy() -> None:
    np.empty(MUCH)


EXHAUST: dict[str, Callable[[], object]] = {
    "ONNX Runtime": of_onnxruntime,
    "NumPy": of_numpy,
    "PyTorch": lambda: pytest.importorskip("torch").empty(MUCH),
    "OpenCV": lambda: pytest.importorskip("cv2").copyMakeBorder(np.zeros((1, 1, 3), np.uint8), 0, 2**30, 0, 2**30, 0),
    "Pillow": lambda: Image.new("RGB", (2**30, 2**20)),
    "PyAV": lambda: av.error.err_check(-errno.ENOMEM, "avcodec_send_packet()"),
}


@pytest.mark.parametrize("library", EXHAUST)
def test_every_library_s_memory_error_is_known(library: str) -> None:
    text = r"^not enough memory for the test; use less$"
    with pytest.raises(OutOfMemoryError, match=text), memory_for("the test", "less"):
        EXHAUST[library]()


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("std::bad_alloc"),
        RuntimeError("Exception from src/inference/src/cpp/core.cpp:114:\nbad allocation"),
        ValueError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception: std::bad_alloc"),
        RuntimeError("Exception from src/plugins/intel_cpu/memory.cpp: Failed to allocate 4294967296 bytes"),
        RuntimeError("could not create a memory object: not enough memory"),
        ImportError("libopenblas.so: failed to map segment from shared object"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_messages_of_too_little_memory_are_known(error: Exception) -> None:
    assert lacking(error) == "not enough memory"


@pytest.mark.parametrize(
    "error",
    [
        Torch("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("[ONNXRuntimeError] : 1 : FAIL : CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc"),
        RuntimeError("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        BackendError("TensorRT cannot run for denoiser: Error Code 2: OutOfMemory (Requested size was 1073741824)"),
        Exception("CUDA_ERROR_OUT_OF_MEMORY: The API call failed because it was unable to allocate enough memory"),
    ],
)
def test_messages_of_too_little_gpu_memory_are_known(error: Exception) -> None:
    assert lacking(error) == "not enough memory on the GPU"


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory", "out of memory.png"),
        InputError("out of memory.png is empty"),
        BlockingIOError(errno.EAGAIN, "write could not complete without blocking", 0),
        OutputError("cannot write bad_alloc.mp4: No space left on device"),
        ValueError("a bug of ours"),
    ],
)
def test_other_errors_are_not_taken_for_memory_errors(error: Exception) -> None:
    assert not lacking(error)
    with pytest.raises(type(error)), memory_for("the test", "less"):
        raise error


def test_an_error_that_memory_caused_is_a_memory_error() -> None:
    text = r"^not enough memory for the clip; use less$"
    with pytest.raises(OutOfMemoryError, match=text), memory_for("the clip", "less"):
        raise InputError("face.png is a damaged image") from MemoryError()


@pytest.mark.parametrize("kind", [InputError, OutputError, OutOfMemoryError])
def test_an_error_is_one_line_whatever_a_file_is_called(kind: type[Exception]) -> None:
    assert str(kind("a\nfile \x1b[31m\r.png: too\u2028large")) == "a file  [31m .png: too large"


def test_the_innermost_work_is_named() -> None:
    text = r"^not enough memory for the graph; use less$"
    command, graph = memory_for("the command", "more"), memory_for("the graph", "less")
    with pytest.raises(OutOfMemoryError, match=text) as caught, command, graph:
        of_numpy()
    assert isinstance(caught.value.__cause__, MemoryError)


@pytest.fixture
def no_threads() -> Iterator[None]:
    """No new thread gets the stack that it asks for."""
    before = threading.stack_size(2**46)
    yield
    threading.stack_size(before)


def test_a_thread_that_cannot_be_started_is_reported(no_threads: None, tiny_bundle: Path) -> None:
    with Animator(Bundle.load(tiny_bundle), "onnxruntime", threads=1) as animator:
        image = np.zeros((64, 64, 3), np.uint8)
        state = animator.encode_portrait(image)
        text = r"^no thread or process could be started.*\(ulimit -v, -u\), for the stream; use less$"
        with pytest.raises(OutOfMemoryError, match=text), memory_for("the stream", "less"):
            next(live_frames(animator, state, iter([image]), Options()))


# a process that first makes a small clip, and then has 80 or 200 MB of address space more than that took, or 8 to
# decode: room for small clips however the memory was split before, and for no large ones
LIMITED = """
import gc, json, os, resource, sys
import av, cv2, numpy as np, PIL.Image
from fye_rt import Animator, Bundle, MotionState, Options, PortraitState, media
from fye_rt.cli.main import main
from fye_rt.engine import return_freed_memory
from fye_rt.errors import OutOfMemoryError, lacking

tiny, portrait, folder = sys.argv[1:]
said = {}

def keep(name, work):
    try:
        work()
        said[name] = ""
    except OutOfMemoryError as error:
        said[name] = str(error)
    except Exception as error:
        said[name] = lacking(error)

def clip(side):
    animator.animate(np.zeros((side, side, 3), np.uint8), np.zeros((2, side, side, 3), np.uint8), Options(steps=1))

def run(*arguments):
    said[arguments[0]] = main([*arguments, "--bundle", tiny, "--steps", "1", "--threads", "1", "--quiet"])

def limit(more):
    gc.collect()  # what an error before still held must not be freed later
    return_freed_memory()
    size = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize")) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (size + more * 2**20, resource.RLIM_INFINITY))

bundle = Bundle.load(tiny)
shapes = bundle.graphs["reference"].output_shapes({"portrait_latents": (1, 4, 192, 192), "clip_tokens": (1, 17, 40)})
shapes |= {spec.name: spec.shape for spec in bundle.graphs["denoiser"].inputs if spec.name.startswith("clip_")}
with Animator(bundle, "onnxruntime", threads=1) as animator:
    clip(64)
    state = PortraitState({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, (1536, 1536))
    motion = MotionState(np.zeros((24, 8, 192, 192), np.float32), (1536, 1536))
    images, latents = np.zeros((8, 1536, 1536, 3), np.uint8), np.zeros((1, 4, 1, 192, 192), np.float32)
    limit(80)
    keep("denoise", lambda: animator.denoise(state, motion, options=Options(steps=1)))
    keep("portrait", lambda: animator.encode_portrait(images[0]))
    keep("motion", lambda: animator.encode_motion(images))
    keep("decode", lambda: animator.decode(latents))
    keep("clip", lambda: clip(1536))
    limit(8)
    keep("picture", lambda: media.read_image(f"{folder}/large.png"))
    limit(8)
    keep("video", lambda: media.probe_video(f"{folder}/large.mp4"))
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])  # libavcodec decodes without threads then
    limit(8)
    keep("video, on one core", lambda: media.probe_video(f"{folder}/large.mp4"))
    limit(200)
    keep("smaller", lambda: clip(64))
run("animate", portrait, f"{folder}/landmarks", "-o", f"{folder}/out.mp4")
run("batch", f"{folder}/jobs.jsonl", "-o", f"{folder}/batch")
print(json.dumps(said))
"""
Exhausted = tuple[dict[str, Any], str, Path]


@pytest.fixture(scope="module")
def exhausted(tmp_path_factory: pytest.TempPathFactory) -> Exhausted:
    """What is said in a process that has little memory left, its stderr, and the folder of its files."""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc and RLIMIT_AS, as Linux has them")
    folder = tmp_path_factory.mktemp("limited")
    for name, side in (("landmarks", 1536), ("small", 64)):
        (folder / name).mkdir()
        for number in range(2):
            media.write_image(folder / name / f"{number}.png", np.zeros((side, side, 3), np.uint8))
    media.write_image(folder / "large.png", np.zeros((4096, 4096, 3), np.uint8))
    media.write_video(folder / "large.mp4", [np.zeros((4320, 7680, 3), np.uint8)], 25)
    jobs = ({"name": name, "portrait": str(PORTRAIT), "motion": name} for name in ("landmarks", "small"))
    (folder / "jobs.jsonl").write_text("\n".join(map(json.dumps, jobs)))
    one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    # glibc keeps no room that the limit does not see: large blocks are mapped each, small ones share one heap
    counted = {"MALLOC_MMAP_THRESHOLD_": str(2**20), "MALLOC_ARENA_MAX": "1"}
    run = python("-c", LIMITED, TINY, PORTRAIT, folder, env=os.environ | one_thread | counted)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1]), run.stderr, folder


LESS = "use a smaller size or low_memory"
WINDOWED = r" with window_size=24; use a smaller size, a smaller window_size or low_memory"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "text"),
    [
        ("portrait", f"(vae_encoder|encode_portrait) at size 1536x1536; {LESS}"),
        ("motion", f"(guider|encode_motion) at size 1536x1536; {LESS}"),
        ("denoise", f"denoiser at size 1536x1536{WINDOWED}"),
        ("decode", f"vae_decoder at size 1536x1536; {LESS}"),
        ("clip", f"(vae_encoder|encode_portrait) at size 1536x1536; {LESS}"),
    ],
)
def test_a_stage_that_runs_out_of_memory_is_named_with_its_size(exhausted: Exhausted, work: str, text: str) -> None:
    assert re.fullmatch(f"not enough memory for {text}", exhausted[0][work])


@pytest.mark.slow
def test_a_smaller_clip_is_made_after_one_that_was_too_large(exhausted: Exhausted) -> None:
    assert exhausted[0]["smaller"] == ""


@pytest.mark.slow
def test_a_picture_and_a_video_without_memory_for_them_are_not_damaged(exhausted: Exhausted) -> None:
    assert re.fullmatch("not enough memory for .*large.png; use a smaller picture", exhausted[0]["picture"])
    assert re.match("not enough memory|no thread or process", exhausted[0]["video"])
    assert exhausted[0]["video, on one core"] == "not enough memory"


@pytest.mark.slow
def test_a_command_without_memory_ends_in_one_line(exhausted: Exhausted) -> None:
    said, err, folder = exhausted
    assert said["animate"] == 2
    assert len(re.findall("^fye: not enough memory for [a-z_]+ at size 1536x1536; use ", err, re.MULTILINE)) == 1
    assert "Traceback" not in err and not (folder / "out.mp4").exists()


@pytest.mark.slow
def test_a_batch_goes_on_after_a_clip_without_memory(exhausted: Exhausted) -> None:
    said, err, folder = exhausted
    assert said["batch"] == 1
    failed, done = map(json.loads, (folder / "batch" / "results.jsonl").read_text().splitlines())
    assert (failed["name"], failed["status"], done["name"], done["status"]) == ("landmarks", "failed", "small", "done")
    assert failed["error"].startswith("not enough memory for ")
    assert f"fye: line 1, landmarks: {as_flags(failed['error'])}" in err


def test_a_worker_that_cannot_open_the_model_tries_again_with_the_next_clip() -> None:
    opened: list[str] = []

    def make() -> Callable[[Any], Any]:
        opened.append("")
        if len(opened) == 1:
            of_numpy()
        return str

    server = Server(make)
    text = "not enough memory for opening the model; use low_memory or fewer workers"
    assert [server.do(1), server.do(2)] == [Died(text), "2"]  # type: ignore[arg-type]
