import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fye_rt import Animator, Options
from fye_rt.arrays import Array
from fye_rt.clips.frames import frames_of
from fye_rt.clips.resume import PieceFolder, digest
from fye_rt.errors import InputError, OptionError, OutputError
from fye_rt.forecast import Forecaster, Jump, even, jump_table, newton
from fye_rt.forecasts.adaptive import Adaptive
from fye_rt.network import PortraitState
from fye_rt.noise import frame_noise
from fye_rt.pieces import key_frame_pieces
from fye_rt.progressive import PieceInputs, PieceRecord, denoise_pieces
from fye_rt.schedule import SchedulerConfig, schedule
from tests.fye_rt.command_line import LANDMARKS, PORTRAIT, ROOT, TINY, Fye
from tests.fye_rt.networks import function_network

SCHEDULE = schedule(10, SchedulerConfig())
PIECES = key_frame_pieces(90, 8)  # three levels
LONG = Options(steps=2, windows="progressive", window_size=8)


def record() -> PieceRecord:
    numbers = np.random.default_rng(3).standard_normal((2, 3, 1, 4, 1, 5, 6)).astype(np.float32)
    ways = {k: {step: numbers[i, j] for j, step in enumerate((0, 4, 9))} for i, k in enumerate((16, 24))}
    jumps = (Jump(0, 4, 0.1, (1 / 3, -2.0), 0.7, 0.3), Jump(4, 10, 1e-300, (0.5,), outside=(0.25, 0.25)))
    return PieceRecord(np.concatenate(list(numbers[0]), axis=2), ways, jumps, numbers[1, 0])


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    written = record()
    PieceFolder(tmp_path / "a" / "b", {"seed": 1}).write(7, written)
    kept = PieceFolder(tmp_path / "a" / "b", {"seed": 1})
    read = kept.read(7)
    assert read is not None and kept.read(8) is None
    np.testing.assert_array_equal(read.latents, written.latents)
    assert read.jumps == written.jumps and read.end is not None
    np.testing.assert_array_equal(read.end, written.end)
    assert list(read.trajectories) == [16, 24]
    for k, way in written.trajectories.items():
        assert list(read.trajectories[k]) == list(way) == [0, 4, 9]
        for step, latents in way.items():
            np.testing.assert_array_equal(read.trajectories[k][step], latents)


def test_a_record_without_trajectories_comes_back(tmp_path: Path) -> None:
    kept = PieceFolder(tmp_path, {})
    kept.write(0, PieceRecord(np.ones((1, 4, 2, 3, 3), np.float32), {}))
    read = kept.read(0)
    assert read is not None and read.latents.shape == (1, 4, 2, 3, 3)
    assert read.trajectories == {} and read.end is None


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_damaged_record_counts_as_not_there(damage: str, tmp_path: Path) -> None:
    kept = PieceFolder(tmp_path, {})
    kept.write(0, record())
    (file,) = tmp_path.glob("*.npz")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes({"cut": content[:-1], "changed": content, "empty": b""}[damage])
    assert kept.read(0) is None
    kept.write(0, record())
    assert kept.read(0) is not None


def test_a_folder_of_another_clip_is_refused_with_the_difference(tmp_path: Path) -> None:
    PieceFolder(tmp_path, {"seed": 1, "landmarks": "a", "guidance": 2.0})
    with pytest.raises(InputError, match=r"differs in seed, landmarks; delete it"):
        PieceFolder(tmp_path, {"seed": 2, "landmarks": "b", "guidance": 2.0})
    with pytest.raises(InputError, match=r"differs in guidance"):
        PieceFolder(tmp_path, {"seed": 1, "landmarks": "a"})


@pytest.mark.parametrize("damage", ["[" * 100_000, "{", "\udcff"])
def test_a_folder_with_damaged_inputs_is_refused(damage: str, tmp_path: Path) -> None:
    PieceFolder(tmp_path, {"seed": 1})
    (file,) = tmp_path.glob("*.json")
    file.write_bytes(damage.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match="cannot be read; choose another folder"):
        PieceFolder(tmp_path, {"seed": 1})


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        PieceFolder(tmp_path, {})
    with pytest.raises(OutputError, match="cannot write"):
        PieceFolder(tmp_path / "notes.txt", {})
    for content, text in (("{", r"clip\.json cannot be read"), ("[]", "holds another clip")):
        (tmp_path / "clip.json").write_text(content)
        with pytest.raises(InputError, match=text):
            PieceFolder(tmp_path, {})


def test_a_folder_that_fills_up_costs_no_clip(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = PieceFolder(tmp_path / "kept", {})
    kept.write(0, record())
    shutil.rmtree(tmp_path / "kept")
    kept.write(1, record())
    (warning,) = caplog.messages
    assert "cannot write" in warning and "no piece of it is kept" in warning
    (tmp_path / "kept").mkdir()
    kept.write(2, record())  # without those before it, it would be of no use
    assert len(caplog.messages) == 1 and not list((tmp_path / "kept").iterdir())


def test_the_digest_tells_values_shapes_and_types_apart() -> None:
    zeros = np.zeros((2, 3), np.float32)
    others = [[zeros + 1], [zeros.T], [zeros.view(np.int32)], [zeros, zeros], [zeros[:1], zeros[1:]]]
    assert len({digest([zeros]), *map(digest, others)}) == 6
    assert digest([np.asfortranarray(zeros)]) == digest([zeros])


class CountedNetwork:
    """Every frame sees the mean of its window; stops after so many calls."""

    def __init__(self, calls: int = 10**6) -> None:
        self.calls = calls

    def inputs(self, frames: NDArray[np.int64]) -> PieceInputs:
        return PieceInputs(function_network(self), frame_noise(7, frames.tolist(), 4, 4), None)

    def __call__(self, latents: Array, timestep: int, frames: NDArray[np.int64]) -> tuple[None, Array]:
        if self.calls == 0:
            raise KeyboardInterrupt
        self.calls -= 1
        return None, np.tanh(latents + np.float32(np.cos(timestep)) * latents.mean(axis=2, keepdims=True))


def made(network: CountedNetwork, forecaster: Forecaster, store: PieceFolder | None = None) -> Iterator[Array]:
    for _, latents in denoise_pieces(PIECES, network.inputs, SCHEDULE, forecaster, 1.0, store=store):
        yield latents


@pytest.mark.parametrize(
    "forecaster",
    [jump_table(SCHEDULE, even(10, 4), newton(1), "epsilon"), Adaptive(SCHEDULE, 0.2, 10)],
    ids=["table", "adaptive"],
)
@pytest.mark.parametrize("calls", [0, 1, 5, 23, 40])
def test_a_clip_goes_on_where_it_was_interrupted(forecaster: Forecaster, calls: int, tmp_path: Path) -> None:
    counted = CountedNetwork()
    whole = np.concatenate(list(made(counted, forecaster)), axis=2)
    needed = 10**6 - counted.calls
    with pytest.raises(KeyboardInterrupt):
        list(made(CountedNetwork(calls), forecaster, PieceFolder(tmp_path, {})))
    network = CountedNetwork()
    again = np.concatenate(list(made(network, forecaster, PieceFolder(tmp_path, {}))), axis=2)
    np.testing.assert_array_equal(again, whole)
    finished = calls // (needed // len(PIECES))
    assert 10**6 - network.calls == needed - finished * (needed // len(PIECES))
    assert len(list(made(CountedNetwork(0), forecaster, PieceFolder(tmp_path, {})))) > 1  # nothing is left to evaluate


@pytest.fixture(scope="session")
def encoded(animator: Animator) -> PortraitState:
    return animator.encode_portrait(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


def test_another_portrait_or_option_is_another_clip(animator: Animator, encoded: PortraitState, tmp_path: Path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (9, 64, 64, 3), np.uint8)
    other = PortraitState({name: tensor + 1 for name, tensor in encoded.tensors.items()}, encoded.size)
    whole, again = (np.concatenate(list(frames_of(animator, encoded, images, LONG, resume=tmp_path))) for _ in range(2))
    np.testing.assert_array_equal(again, whole)
    different: list[tuple[str, Any]] = [
        ("portrait", (other, images, LONG)),
        ("landmarks", (encoded, images[::-1], LONG)),
        ("landmarks", (encoded, images[:8], LONG)),
        ("seed", (encoded, images, Options(steps=2, windows="progressive", window_size=8, seed=4))),
        ("forecast", (encoded, images, Options(steps=2, windows="progressive", window_size=8, forecast="reuse"))),
    ]
    for name, inputs in different:
        with pytest.raises(InputError, match=f"differs in {name};"):
            next(frames_of(animator, *inputs, resume=tmp_path))
    with pytest.raises(OptionError, match="windows='context'"):
        next(frames_of(animator, encoded, images, Options(), resume=tmp_path / "new"))


def test_resume_needs_progressive_windows(fye: Fye, tmp_path: Path) -> None:
    command = ("animate", PORTRAIT, LANDMARKS, "-o", tmp_path / "out.mp4", "--bundle", TINY, "--resume", tmp_path / "r")
    assert "leave out --windows context" in fye.refuses(*command, "--windows", "context")
    assert "leave out" in fye.refuses(*command, "--stream")
    assert not (tmp_path / "r").exists()


SCRIPT = """
import sys
import numpy as np
from fye_rt import Animator, Bundle, Options
from fye_rt.clips.frames import frames_of
with Animator(Bundle.load(sys.argv[1]), "onnxruntime", threads=1) as animator:
    random = np.random.default_rng(0)
    portrait = animator.encode_portrait(random.integers(0, 256, (64, 64, 3), np.uint8))
    images = random.integers(0, 256, (200, 64, 64, 3), np.uint8)
    options = Options(steps=3, windows="progressive", window_size=16)
    frames = frames_of(animator, portrait, images, options, resume=sys.argv[2] if len(sys.argv) > 3 else None)
    np.save(sys.argv[-1], np.concatenate(list(frames)))
"""


@pytest.mark.slow
def test_a_run_killed_ten_times_ends_with_the_same_bytes(tmp_path: Path) -> None:
    def run(*arguments: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", SCRIPT, TINY, *arguments], cwd=ROOT)

    assert run(tmp_path / "whole.npy").wait() == 0
    kept = tmp_path / "kept"
    random = np.random.default_rng(11)
    killed = 0
    for _ in range(10):
        before = len(list(kept.glob("*.npz")))
        process = run(kept, tmp_path / "resumed.npy")
        while process.poll() is None and len(list(kept.glob("*.npz"))) <= before:
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.05))
        process.kill()
        killed += process.wait() == -9
    pieces = len(list(kept.glob("*.npz")))
    assert killed == 10 and pieces < len(key_frame_pieces(200, 16))
    assert run(kept, tmp_path / "resumed.npy").wait() == 0
    assert (tmp_path / "resumed.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
