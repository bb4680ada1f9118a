import builtins
import io
import os
import pickle
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fye_rt.errors import InputError
from fye_rt.landmarks import Motion, load_template, template
from tests.fye_rt.conftest import ARRAYS


def frames_of(motion: Motion, number: int = 2, **changes: Any) -> list[dict[str, Any]]:
    return [
        {
            "lmks": motion.points[i],
            "lmks3d": motion.mesh[i],
            "trans_mat": motion.pose[i],
            "faces": np.zeros((898, 3), np.int64),
            "bs": motion.blendshapes[i].tolist(),
            "width": 256,
            "height": 256,
        }
        | changes
        for i in range(number)
    ]


def write(path: Path, frames: list[dict[str, Any]]) -> Path:
    """As np.save writes a list of dictionaries, which takes pickles to be trusted for granted."""
    array = np.empty(len(frames), object)
    array[...] = frames
    np.save(path, array, allow_pickle=True)
    return path


def write_pickle(path: Path, pickled: bytes) -> Path:
    """A .npy header of one object, then any pickle."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    path.write_bytes(buffer.getvalue() + pickled)
    return path


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_a_template_of_either_numpy_generation_gives_its_arrays(motion: Motion, tmp_path: Path, module: str) -> None:
    array = np.empty(2, object)
    array[...] = frames_of(motion)
    here = np.array(0).__reduce__()[0].__module__
    pickled = pickle.dumps(array, protocol=3).replace(f"c{here}\n".encode(), f"c{module}\n".encode())
    assert f"c{module}\n".encode() in pickled
    loaded = load_template(write_pickle(tmp_path / "template.npy", pickled), fps=25.0)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(motion, name)[:2])
    assert (loaded.fps, loaded.source_size, loaded.valid.all()) == (25.0, (256, 256), True)
    np.testing.assert_array_equal(loaded.times, [0.0, 0.04])


def test_the_recorded_templates_load(golden: Path, recorded: dict) -> None:
    loaded = load_template(golden / "template_synthetic.npy")
    for name, key in ARRAYS.items():
        np.testing.assert_array_equal(getattr(loaded, name), recorded[f"tmpl_{key}"])
    portrait = load_template(golden / "ref_lmk_synthetic.npy")
    np.testing.assert_array_equal(portrait.mesh[0], recorded["ref_lmks3d"])


def test_other_number_types_and_layouts_give_the_same_values(motion: Motion, tmp_path: Path) -> None:
    changes = {
        "lmks": np.asfortranarray(motion.points[0]),
        "lmks3d": motion.mesh[0].astype(">f4"),
        "bs": [np.float32(value) for value in motion.blendshapes[0]],
        "width": np.int64(640),
        "height": 360,
    }
    loaded = load_template(write(tmp_path / "template.npy", frames_of(motion, 1, **changes)))
    np.testing.assert_array_equal(loaded.points[0], motion.points[0])
    np.testing.assert_array_equal(loaded.mesh[0], motion.mesh[0].astype(np.float32))
    np.testing.assert_array_equal(loaded.blendshapes[0], motion.blendshapes[0].astype(np.float32))
    assert loaded.source_size == (360, 640)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch {}",), "system"),
        (subprocess.call, (["touch", "{}"],), ".call"),
        (builtins.eval, ("open('{}', 'w')",), "eval"),
        (builtins.exec, ("open('{}', 'w')",), "exec"),
        (builtins.getattr, ("", "{}"), "getattr"),
        (np.load, ("{}",), "load"),
        (np.fromfile, ("{}",), "fromfile"),
        (np.memmap, ("{}", "u1", "w+", 0, 1), "memmap"),
        (pickle.loads, (b"cos\nsystem\n(S'touch {}'\ntR.",), "loads"),
    ],
)
def test_malicious_pickles_do_not_run(
    tmp_path: Path, function: Any, arguments: tuple, name: str, protocol: int
) -> None:
    trace = tmp_path / "trace"
    payload = pickle.dumps(Calls(function, *(_fill(argument, trace) for argument in arguments)), protocol)
    with pytest.raises(InputError, match="nothing was run") as caught:
        load_template(write_pickle(tmp_path / "evil.npy", payload))
    assert name in str(caught.value) and "evil.npy" in str(caught.value)
    assert not trace.exists()


def _fill(argument: Any, trace: Path) -> Any:
    if isinstance(argument, str):
        return argument.replace("{}", str(trace))
    if isinstance(argument, bytes):
        return argument.replace(b"{}", str(trace).encode())
    return [_fill(item, trace) for item in argument] if isinstance(argument, list) else argument


@pytest.mark.parametrize(
    "pickled",
    [
        b"cnumpy\nndarray.tofile\n.",  # an attribute of an allowed name
        b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.",
        b"cnumpy.core.multiarray\nfromstring\n.",
        b"cnumpy._core.multiarray\nscalar.__class__\n.",
        b"i__builtin__\neval\n.",
        b"(S'1'\nibuiltins\neval\n.",  # INST instead of REDUCE
        b"(cbuiltins\neval\nS'1'\no.",  # OBJ
        b"\x82\x01.",  # extension registry
        b"Pid\n.",  # persistent id
    ],
)
def test_other_ways_to_reach_code_are_closed(tmp_path: Path, pickled: bytes) -> None:
    with pytest.raises(InputError, match=r"evil\.npy.* (nothing was run|is not a landmark template)"):
        load_template(write_pickle(tmp_path / "evil.npy", pickled))


def test_a_pickle_cannot_change_the_reader(motion: Motion, tmp_path: Path) -> None:
    # BUILD sets attributes on whatever lies on the stack, here on the constructor and on a record
    names = dict(template._ALLOWED)
    build = b"cnumpy\nndarray\n(N}S'__defaults__'\n(I1\ntstb."
    with pytest.raises(InputError, match=r"evil\.npy is not a landmark template"):
        load_template(write_pickle(tmp_path / "evil.npy", build))
    assert names == template._ALLOWED
    load_template(write(tmp_path / "good.npy", frames_of(motion)))


@pytest.mark.parametrize(
    "pickled",
    [
        b"Nr\x00\x00\x00\x04.",  # memo index 2**26: 1 GiB of pointers in the interpreter written in C
        b"\x96" + (1 << 30).to_bytes(8, "little") + b".",  # BYTEARRAY8 of a gigabyte
        b"\x8e" + (1 << 30).to_bytes(8, "little") + b".",  # BINBYTES8
        b"\x8d" + (1 << 30).to_bytes(8, "little") + b".",  # BINUNICODE8
        b"\x95" + (1 << 30).to_bytes(8, "little") + b".",  # FRAME
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(L1000000000L\ntS'f8'\ntR.",
        b"(" * 100_000 + b"t" * 100_000 + b".",  # nesting
    ],
)
def test_a_few_bytes_cannot_claim_much_memory(tmp_path: Path, pickled: bytes) -> None:
    path = write_pickle(tmp_path / "bomb.npy", pickled)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"bomb\.npy is not a landmark template"):
        load_template(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # kB


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lmks": np.zeros((468, 3))}, "lmks of frame 0"),
        ({"lmks3d": [1, 2]}, "lmks3d of frame 0"),
        ({"bs": [0.0] * 52}, "bs of frame 0"),
        ({"bs": [[0.0]] * 51}, "a list takes the place of a number"),
        ({"lmks": np.zeros((478, 3), "U4")}, "something other than numbers"),
        ({"lmks": np.zeros((478, 3), object)}, "something other than numbers"),
        ({"trans_mat": np.zeros((4, 4))}, "not a rotation"),
        ({"lmks": np.full((478, 3), np.nan)}, "points is not finite"),
        ({"width": "256"}, "a str takes the place of a number"),
        ({"width": 10**6}, "source size"),
    ],
)
def test_a_template_of_wrong_content_is_refused(motion: Motion, tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_template(write(tmp_path / "wrong.npy", frames_of(motion, 1, **changes)))
    assert "wrong.npy" in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path, frame: write(path, [{key: frame[key] for key in frame if key != "lmks3d"}]), "lmks3d"),
        (lambda path, frame: np.save(path, np.zeros((2, 478, 3))), "float64"),
        (lambda path, frame: None, "no such file"),
        (lambda path, frame: write(path, [frame, frame | {"width": 320}]), "different sizes"),
        (lambda path, frame: write(path, [frame] * 18001), "18001 frames, the limit is 18000"),  # one frame, shared
        (lambda path, frame: (path.touch(), os.truncate(path, (256 << 20) + 1)), "256 MiB"),  # sparse: takes no disk
    ],
    ids=["a missing key", "a plain array", "a missing file", "different sizes", "too many frames", "too many bytes"],
)
def test_a_file_that_holds_no_template_is_an_input_error(
    motion: Motion, tmp_path: Path, make: Callable[[Path, dict[str, Any]], object], message: str
) -> None:
    make(tmp_path / "a.npy", frames_of(motion, 1)[0])
    with pytest.raises(InputError, match=message):
        load_template(tmp_path / "a.npy")


@pytest.fixture(scope="module")
def damaged_source(motion: Motion, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """One frame; the numbers are few kinds of byte, so that most flips of the first 2 kB hit structure."""
    return write(tmp_path_factory.mktemp("template") / "one.npy", frames_of(motion, 1)).read_bytes()


@settings(max_examples=150)
@given(
    cut=st.floats(0, 1),
    flips=st.lists(st.tuples(st.booleans(), st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=4),
)
def test_damaged_templates_raise_only_input_errors(
    tmp_path_factory: pytest.TempPathFactory, damaged_source: bytes, cut: float, flips: list
) -> None:
    damaged = bytearray(damaged_source[: int(cut * len(damaged_source))] if not flips else damaged_source)
    for at_start, place, mask in flips:
        damaged[int(place * (400 if at_start else len(damaged)))] ^= mask
    path = tmp_path_factory.getbasetemp() / "damaged.npy"
    path.write_bytes(damaged)
    try:
        loaded = load_template(path)
    except InputError as error:
        assert str(path) in str(error)
    else:
        assert len(loaded) == 1  # the flip hit a number


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_random_pickles_raise_only_input_errors(tmp_path_factory: pytest.TempPathFactory, pickled: bytes) -> None:
    with pytest.raises(InputError, match=r"any\.npy"):
        load_template(write_pickle(tmp_path_factory.getbasetemp() / "any.npy", pickled))
