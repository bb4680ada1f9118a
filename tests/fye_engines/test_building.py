"""Plans are built as asked for, by the real TensorRT-RTX, which needs no GPU to parse and to build.

Its parser takes everything. A chosen set is built, the rest only with `-m full`. The chosen set took 186 s on two cores
that another test run kept busy, of 8 minutes that it may take with `fye build` of tiny.
"""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from fye_engines import quantize
from fye_engines.building import Settings, build, parse
from fye_engines.checking import random_inputs
from fye_engines.plans import default_graphs
from fye_engines.prepare import ATTENTIONS, PRECISIONS, Prepared, Shapes, prepare, typed
from fye_rt.backends.tensorrt_library import RTX, TENSORRT, messages
from fye_rt.bundle import GRAPHS, Bundle, shipped_bundles, symbols
from fye_rt.errors import BackendError, OptionError
from fye_rt.plans.matching import DENOISERS, RECIPE
from tests.fye_engines.full_size import full_size
from tests.fye_engines.imitated_tensorrt import Imitation
from tests.fye_rt.command_line import Fye

ROOT = Path(__file__).resolve().parents[2]
STATIC = Shapes((8, 8, 8), (64, 64, 64), (72, 72, 72))
FRAMES = Shapes((1, 8, 24), (64, 64, 64), (72, 72, 72))
DYNAMIC = Shapes((1, 8, 24), (64, 64, 128), (64, 72, 128))


@pytest.fixture
def rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="needs TensorRT-RTX: pip install tensorrt-rtx-cu13")


@pytest.fixture(scope="module")
def tiny(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle, verify=False)


@pytest.fixture(scope="module")
def denoiser(tiny: Bundle) -> Prepared:
    return prepare(tiny, "denoiser", STATIC, "fp16", "fused")


@pytest.fixture(scope="module", params=["tiny", "mini"])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return Bundle.load(shipped_bundles() / request.param, verify=False)


def with_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every input of a product that can have 8 bits is at most 4."""

    def ranges(bundle: Bundle, graph: str) -> dict[str, float]:
        model = ir.load(bundle.file(graph))
        return {str(quantize.stored(node.inputs[0]).name): 4.0 for node in quantize.places(model)}

    monkeypatch.setattr("fye_engines.prepare.kept", ranges)


def precisions(graph: str) -> tuple[str, ...]:
    return PRECISIONS if graph in DENOISERS else PRECISIONS[:3]


def parsed(prepared: Prepared, bundle: Bundle) -> list[str]:
    """Parse with the real library; gives the names of the network's layers' types."""
    module = RTX.load()
    log = messages(module)
    builder = module.Builder(log)
    content = np.memmap(bundle.path / bundle.weights, np.uint8, mode="r")
    network, parser = parse(prepared, content, RTX, builder, log)
    assert parser.num_errors == 0 and log.said == []
    return [network.get_layer(number).type.name for number in range(network.num_layers)]


def built(prepared: Prepared, bundle: Bundle, settings: Settings | None = None, **more: Any) -> bytes:
    given: dict[str, Any] = {"library": RTX, "architectures": RTX.usual} | more
    return bytes(build(prepared, bundle.path / bundle.weights, settings or Settings(), **given).plan)


def test_the_same_settings_prepare_the_same_bytes(tiny: Bundle, denoiser: Prepared) -> None:
    again = prepare(tiny, "denoiser", STATIC, "fp16", "fused")
    assert again.onnx == denoiser.onnx and again.digest == denoiser.digest
    settings = (("denoiser", "bf16", "fused"), ("denoiser", "fp16", "written-out"), ("denoiser_cond", "fp16", "fused"))
    others = [prepare(tiny, graph, STATIC, precision, attention) for graph, precision, attention in settings]
    assert len({each.digest for each in (denoiser, *others)}) == 4


def test_a_change_of_prepared_graphs_needs_a_new_recipe(tiny: Bundle) -> None:
    """Plans of an older recipe are not run any more: if this fails, count `matching.RECIPE` up."""
    seen = hashlib.sha256()
    for graph in tiny.graphs:
        for precision, attention in (("fp16", "fused"), ("fp16", "written-out"), ("fp32", "fused")):
            model = onnx.load_model_from_string(prepare(tiny, graph, STATIC, precision, attention).onnx)
            values = (*model.graph.input, *model.graph.output)
            kinds = {value.name: value.type.tensor_type.elem_type for value in values}
            nodes = [(node.op_type, *node.input, *node.output) for node in model.graph.node]
            names = [sorted(attribute.name for attribute in node.attribute) for node in model.graph.node]
            seen.update(repr((nodes, names)).encode())
            seen.update(repr(sorted(kinds.items())).encode())
    assert (RECIPE, seen.hexdigest()[:16]) == ("recipe=2", "c616b5301b888adc")


def test_fixed_shapes_are_numbers_in_the_graph(tiny: Bundle, denoiser: Prepared) -> None:
    def shapes(prepared: Prepared) -> dict[str, list[int | str]]:
        graph = onnx.load_model_from_string(prepared.onnx).graph
        return {
            value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
            for value in (*graph.input, *graph.output)
        }

    static = shapes(denoiser)
    assert denoiser.profile == {} and static["latents"] == static["v_conditional"] == [1, 4, 8, 8, 9]
    frames = prepare(tiny, "denoiser", FRAMES, "fp16", "fused")
    assert shapes(frames)["latents"] == [1, 4, "frames", 8, 9] and shapes(frames)["reference_key.0"] == [1, 72, 8]
    assert set(frames.profile) == {"latents", "landmark_features"}
    assert frames.profile["latents"] == ((1, 4, 1, 8, 9), (1, 4, 8, 8, 9), (1, 4, 24, 8, 9))
    names = {spec.name for spec in tiny.graphs["denoiser"].inputs}
    fixed = {spec.name for spec in tiny.graphs["denoiser"].inputs if all(isinstance(n, int) for n in spec.shape)}
    dynamic = prepare(tiny, "denoiser", DYNAMIC, "fp16", "fused")
    assert set(dynamic.profile) == names - fixed and "timestep" in fixed
    assert dynamic.profile["latents"] == ((1, 4, 1, 8, 8), (1, 4, 8, 8, 9), (1, 4, 24, 16, 16))
    assert dynamic.profile["reference_key.0"][0][1] == 64


@pytest.mark.slow
@pytest.mark.parametrize("shapes", [STATIC, FRAMES, DYNAMIC], ids=["static", "frames", "dynamic"])
@pytest.mark.parametrize("graph", ["denoiser", "vae_decoder", "vae_encoder"])
def test_a_graph_with_fixed_shapes_computes_the_same(graph: str, shapes: Shapes, tiny: Bundle) -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(tiny.path))
    model = onnx.load_model_from_string(prepare(tiny, graph, shapes, "fp32", "fused").onnx)
    unmark(model.graph)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    given = random_inputs(tiny, graph, symbols(8, 64, 72))
    names = [output.name for output in session.get_outputs()]
    made = dict(zip(names, session.run(names, given), strict=True))
    expected = onnxruntime.InferenceSession(tiny.file(graph)).run(names, given)
    for name, array in zip(names, expected, strict=True):
        assert np.linalg.norm(made[name] - array) <= 1e-4 * np.linalg.norm(array)  # other sums of float32


@pytest.mark.parametrize(
    ("frames", "height", "width"),
    [((2, 1, 3), (64,) * 3, (64,) * 3), ((0, 1, 1), (64,) * 3, (64,) * 3), ((1,) * 3, (64, 68, 72), (64,) * 3)],
)
def test_invalid_shapes_of_a_plan_are_refused(frames: Any, height: Any, width: Any) -> None:
    with pytest.raises(OptionError, match="is not valid"):
        Shapes(frames, height, width)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"precision": "fp4"}, "precision='fp4'"),
        ({"precision": "fp8"}, "has no ranges.json"),
        ({"attention": "flash"}, "attention='flash'"),
        ({"shapes": Shapes((33,) * 3, (64,) * 3, (64,) * 3)}, "this bundle allows 32"),
    ],
)
def test_unknown_settings_of_a_plan_are_refused(settings: dict[str, Any], text: str, tiny: Bundle) -> None:
    asked = {"shapes": STATIC, "precision": "fp16", "attention": "fused"} | settings
    with pytest.raises(OptionError, match=text):
        prepare(tiny, "denoiser", asked["shapes"], asked["precision"], asked["attention"])


@pytest.mark.parametrize(
    ("wrong", "text"), [({"level": 6}, "level=6"), ({"workspace": 0}, "workspace=0"), ({"stripped": True}, "refit")]
)
def test_contradictory_settings_of_a_plan_are_refused(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        Settings(**wrong)


@pytest.mark.slow
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("shapes", [STATIC, DYNAMIC], ids=["static", "dynamic"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_the_real_parser_takes_every_graph(
    graph: str, shapes: Shapes, attention: str, bundle: Bundle, rtx: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_ranges(monkeypatch)
    for precision in precisions(graph):
        prepared = prepare(bundle, graph, shapes, precision, attention)
        layers = parsed(prepared, bundle)
        attended = sum(name.startswith("ATTENTION_INPUT") for name in layers)
        nodes = [node.op_type for node in onnx.load_model_from_string(prepared.onnx).graph.node]
        assert attended == nodes.count("Attention") == (nodes.count("Attention") if attention == "fused" else 0)
        assert ("QUANTIZE" in layers) == (precision in ("int8", "fp8"))


SMALL = "guider"  # of the full size, what takes seconds to cut


@pytest.mark.parametrize(
    "graph", [pytest.param(graph, marks=[] if graph == SMALL else pytest.mark.full) for graph in GRAPHS]
)
def test_the_real_parser_takes_the_graphs_of_the_full_size(graph: str, tmp_path: Path, rtx: Any) -> None:
    whole = full_size(tmp_path, graph)
    for precision in ("fp16", "bf16"):
        for attention in ATTENTIONS:
            assert len(parsed(prepare(whole, graph, FRAMES, precision, attention), whole)) > 10


NINETY_SIX = Shapes((4, 4, 4), (96, 96, 96), (96, 96, 96))
UP_TO_FOUR = Shapes((1, 4, 4), (96, 96, 96), (96, 96, 96))
ANY_SIZE = Shapes((1, 4, 4), (96, 96, 128), (96, 96, 128))
# every graph, precision, attention, kind of shapes and bundle; the slow ones once
COVERING = [
    ("tiny", "image_encoder", "fp16", "fused", UP_TO_FOUR),
    ("tiny", "vae_encoder", "fp16", "fused", UP_TO_FOUR),
    ("tiny", "reference", "fp16", "written-out", UP_TO_FOUR),
    ("tiny", "guider", "fp32", "fused", UP_TO_FOUR),
    ("tiny", "denoiser", "fp16", "fused", UP_TO_FOUR),
    ("tiny", "denoiser_cond", "fp32", "fused", UP_TO_FOUR),
    ("tiny", "denoiser_cond", "bf16", "fused", NINETY_SIX),
    ("tiny", "denoiser_cond", "int8", "fused", NINETY_SIX),
    ("tiny", "denoiser_cond", "fp8", "fused", NINETY_SIX),
    ("tiny", "vae_decoder", "bf16", "fused", UP_TO_FOUR),
    ("mini", "vae_decoder", "fp16", "fused", UP_TO_FOUR),
    ("mini", "vae_encoder", "fp32", "fused", UP_TO_FOUR),
    ("mini", "reference", "fp16", "fused", NINETY_SIX),
    ("mini", "denoiser_cond", "fp16", "fused", UP_TO_FOUR),
]
REST = [
    case
    for name, graph, shapes in product(("tiny", "mini"), GRAPHS, (NINETY_SIX, ANY_SIZE))
    for precision, attention in product(precisions(graph), ATTENTIONS)
    if (case := (name, graph, precision, attention, shapes)) not in COVERING
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "graph", "precision", "attention", "shapes"),
    [*COVERING, *(pytest.param(*case, marks=pytest.mark.full) for case in REST)],
)
def test_the_real_builder_builds_a_graph(
    name: str,
    graph: str,
    precision: str,
    attention: str,
    shapes: Shapes,
    rtx: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_ranges(monkeypatch)
    bundle = Bundle.load(shipped_bundles() / name, verify=False)
    prepared, targets = prepare(bundle, graph, shapes, precision, attention), RTX.targets((), precision)
    plan = built(prepared, bundle, Settings(level=2), architectures=targets)
    assert len(plan) > 100_000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", pytest.param("mini", marks=pytest.mark.full)])
def test_fye_build_makes_every_plan_by_default(
    name: str, rtx: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FYE_PLANS", str(tmp_path / "plans"))
    fye, bundle = Fye(capsys), shipped_bundles() / name
    asked = ("build", bundle, "--backend", "tensorrt-rtx")
    graphs = default_graphs(Bundle.load(bundle, verify=False))
    planned = dict(line.split(": ", 1) for line in fye(*asked, "--dry-run").splitlines()[1:])
    built = dict(line.split(": ", 1) for line in fye(*asked).splitlines())
    assert set(planned) == set(built) == set(graphs)
    for graph in graphs:
        assert planned[graph].startswith("is built (") and built[graph].startswith("built in ")
        decomposed = "attention without a kernel is decomposed (layers: "
        assert (decomposed in planned[graph]) == (decomposed in built[graph])
        assert decomposed in planned[graph] or graph != "denoiser"
    *listed, total = fye("build", "--list").splitlines()
    assert f": {len(graphs)} plans, " in total and len(listed) == len(graphs)
    for graph in graphs:
        (line,) = (line for line in listed if f"  {graph} fp16, " in line)
        assert f"sm_80+sm_86+sm_89+sm_120, TensorRT rtx-{rtx.__version__}, driver any" in line
    assert all(": is there, " in line for line in fye(*asked).splitlines())


def test_a_plan_is_built_for_architectures_that_have_its_precision() -> None:
    assert RTX.targets(()) == RTX.usual and RTX.targets((), "fp8") == ("sm_89", "sm_120")
    for name, precision in (("sm_86", "fp8"), ("sm_75", "bf16")):
        with pytest.raises(OptionError, match=f"arch={name} is not valid: it has no {precision}"):
            RTX.targets((name,), precision)


def test_the_same_build_gives_the_same_plan_and_another_architecture_another(tiny: Bundle, rtx: Any) -> None:
    guider = prepare(tiny, "guider", FRAMES, "fp16", "fused")
    assert built(guider, tiny) == built(guider, tiny) != built(guider, tiny, architectures=("sm_120",))
    for names in (("sm_75",), ("sm_86", "sm_89"), ("sm_121",)):
        assert len(built(guider, tiny, architectures=RTX.targets(names))) > 100_000


def retype(graph: Any) -> None:
    """The first convolution's input is float32."""
    node = first(graph, "Conv")
    cast = onnx.helper.make_node("Cast", [node.input[0]], ["cast"], to=onnx.TensorProto.FLOAT)
    node.input[0] = "cast"
    graph.node.insert(list(graph.node).index(node), cast)


def unmark(graph: Any) -> None:
    """Attention without a kernel may not be decomposed."""
    for node in graph.node:
        kept = [attribute for attribute in node.attribute if attribute.name != "TRT_decomposable"]
        del node.attribute[:]
        node.attribute.extend(kept)


def rename(graph: Any) -> None:
    """An operator has a name that no parser knows."""
    first(graph, "Resize").op_type = "Enlarge"


def lose(graph: Any) -> dict[str, tuple[int, int]]:
    """The weights are not passed."""
    return {"not a tensor": (0, 4)}


def lengthen_bias(graph: Any) -> None:
    """A convolution's bias has another length than its weights."""
    read_instead(graph, first(graph, "Conv"), 2, np.zeros(7, np.float16))


def lengthen_scale(graph: Any) -> None:
    """A norm's scale has another length than its channels."""
    read_instead(graph, first(graph, "GroupNormalization"), 1, np.ones(5, np.float32))


def group_convolution(graph: Any) -> None:
    """A convolution has more groups than its weights."""
    change(first(graph, "Conv"), group=2)


def group_norm(graph: Any) -> None:
    """A norm's groups do not divide its channels."""
    change(first(graph, "GroupNormalization"), num_groups=3)


def first(graph: Any, kind: str) -> Any:
    return next(node for node in graph.node if node.op_type == kind)


def change(node: Any, **attributes: int) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name not in attributes]
    del node.attribute[:]
    node.attribute.extend([*kept, *(onnx.helper.make_attribute(name, n) for name, n in attributes.items())])


def read_instead(graph: Any, node: Any, number: int, array: np.ndarray) -> None:
    graph.initializer.append(onnx.numpy_helper.from_array(array, "other"))
    node.input[number] = "other"


@pytest.mark.parametrize(
    "mutate", [retype, unmark, rename, lose, lengthen_bias, lengthen_scale, group_convolution, group_norm]
)
def test_what_the_real_library_refuses_is_reported_in_its_words(mutate: Any, tiny: Bundle, rtx: Any) -> None:
    prepared = prepare(tiny, "vae_decoder", UP_TO_FOUR, "fp16", "fused")
    model = onnx.load_model_from_string(prepared.onnx)
    weights = mutate(model.graph) or prepared.weights
    wrong = replace(prepared, onnx=model.SerializeToString(), weights=weights)
    said = rf"^TensorRT-RTX {rtx.__version__} (refuses|cannot build) vae_decoder: \S"
    with pytest.raises(BackendError, match=said) as told:
        built(wrong, tiny)
    assert "\n" not in str(told.value) and "no reason given" not in str(told.value)
    with pytest.raises(BackendError):
        Imitation(RTX).build(wrong, tiny.path / tiny.weights, Settings(), RTX)


def config_of(monkeypatch: pytest.MonkeyPatch, rtx: Any) -> list[Any]:
    """The configurations that the real builder is given; it builds nothing."""
    seen: list[Any] = []

    def record(self: Any, network: Any, config: Any) -> bytes:
        seen.append((network.get_flag(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED), config))
        return b"a plan"

    monkeypatch.setattr(rtx.Builder, "build_serialized_network", record)
    return seen


def test_a_plan_is_strongly_typed_and_has_the_requested_settings(
    tiny: Bundle, denoiser: Prepared, rtx: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = config_of(monkeypatch, rtx)
    frames = prepare(tiny, "guider", FRAMES, "fp16", "fused")
    built(frames, tiny)
    built(denoiser, tiny, Settings(level=5, workspace=2**30, refit=True, stripped=True), architectures=("sm_89",))
    (typed, plain), (_, asked) = seen
    flags = rtx.BuilderFlag
    assert typed and not any(plain.get_flag(flag) for flag in (flags.TF32, flags.REFIT, flags.STRIP_PLAN))
    assert asked.get_flag(flags.REFIT) and asked.get_flag(flags.STRIP_PLAN) and not asked.get_flag(flags.TF32)
    assert (plain.builder_optimization_level, asked.builder_optimization_level) == (3, 5)
    assert asked.get_memory_pool_limit(rtx.MemoryPoolType.WORKSPACE) == 2**30
    assert (plain.num_optimization_profiles, asked.num_optimization_profiles) == (1, 0)
    assert [plain.get_compute_capability(number).name for number in range(4)] == ["SM80", "SM86", "SM89", "SM120"]
    assert (asked.num_compute_capabilities, asked.get_compute_capability(0).name) == (1, "SM89")


@pytest.mark.filterwarnings("ignore:Use Deprecated")  # TensorRT-RTX keeps no timings
def test_tensorrt_is_given_the_timing_cache_of_an_earlier_build(
    tiny: Bundle, rtx: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT's own way through a build, on the library that is here."""
    other = replace(TENSORRT, module="tensorrt_rtx")
    seen = config_of(monkeypatch, rtx)
    guider = prepare(tiny, "guider", STATIC, "fp16", "fused")
    for timing in (None, b"not what TensorRT has written"):
        assert build(guider, tiny.path / tiny.weights, Settings(), other, ("sm_90",), timing).plan == b"a plan"
    assert all(config.get_timing_cache() is not None for _, config in seen)
    assert all(config.num_compute_capabilities == 0 for _, config in seen)


def test_a_plan_without_a_reason_is_reported(tiny: Bundle, rtx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtx.Builder, "build_serialized_network", lambda self, network, config: None)
    guider = prepare(tiny, "guider", STATIC, "fp16", "fused")
    with pytest.raises(BackendError, match="cannot build guider: no reason given; if memory is short"):
        built(guider, tiny)


def test_build_progress_rises_to_the_end_of_the_outermost_phase(tiny: Bundle, rtx: Any) -> None:
    told: list[tuple[str, int, int]] = []
    built(prepare(tiny, "guider", FRAMES, "fp16", "fused"), tiny, progress=lambda *report: told.append(report))
    assert all(isinstance(done, int) and total == 100 for _, done, total in told)
    assert len({stage for stage, _, _ in told}) == 1 and told[0][0].startswith("build guider: ")
    shares = [done / total for _, done, total in told]
    assert shares == sorted(shares) and shares[-1] == 1 and len(set(shares)) > 1


INTERRUPTED = """
import os, signal, sys, threading, time, traceback
import pytest
from pathlib import Path
from fye_engines.building import Settings, build
from fye_engines.prepare import Shapes, prepare
from fye_rt.backends.tensorrt_library import RTX
from fye_rt.bundle import Bundle

tiny = Bundle.load(Path(sys.argv[1]), verify=False)
decoder = prepare(tiny, "vae_decoder", Shapes((8, 8, 8), (64, 64, 64), (72, 72, 72)), "fp16", "fused")
arguments = decoder, tiny.path / tiny.weights, Settings(), RTX, RTX.usual

heard = threading.Event()

def where(thread):
    frame = sys._current_frames()[thread.ident]
    return [function.name for function in traceback.extract_stack(frame)][:-4:-1]

def interrupt(number, frame):
    heard.set()
    raise KeyboardInterrupt

def progress(stage, done, total):
    if not told:
        while where(threading.main_thread()) != ["wait", "wait", "_interruptible"]:  # for the build
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        heard.wait(60)
        time.sleep(0.2)  # what it heard is noted by then
    told.append(done)

everything, told = [], []
build(*arguments, progress=lambda stage, done, total: everything.append(done))
signal.signal(signal.SIGINT, interrupt)  # a shell's background job starts without one
with pytest.raises(KeyboardInterrupt):
    build(*arguments, progress=progress)
assert 1 <= len(told) <= len(everything), (told, everything)
print("ended")
"""


def test_ctrl_c_ends_a_build(tiny: Bundle, rtx: Any) -> None:
    """In a process of its own: whatever runs the tests has a use of its own for that signal."""
    command = [sys.executable, "-c", INTERRUPTED, str(tiny.path)]
    paths = [ROOT, *(ROOT / folder for folder in ("export", "engines", "kernels"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "ended\n"), run.stderr


def test_an_error_of_the_progress_callback_ends_a_build_and_is_raised(tiny: Bundle, rtx: Any) -> None:
    def progress(stage: str, done: float, total: float) -> None:
        raise OSError("the terminal is gone")

    with pytest.raises(OSError, match="the terminal is gone"):
        built(prepare(tiny, "guider", STATIC, "fp16", "fused"), tiny, progress=progress)


def test_attention_without_a_kernel_is_named(tiny: Bundle, denoiser: Prepared) -> None:
    assert set(denoiser.decomposed) == {1, 2, 4}  # head sizes below 16
    mini = Bundle.load(shipped_bundles() / "mini", verify=False)
    assert set(prepare(mini, "denoiser", STATIC, "fp16", "fused").decomposed) == {4, 8}
    decoder = prepare(mini, "vae_decoder", STATIC, "fp16", "fused")
    assert decoder.decomposed == () and prepare(mini, "vae_decoder", STATIC, "fp32", "fused").decomposed == (64,)
    assert prepare(tiny, "denoiser", STATIC, "fp16", "written-out").decomposed == ()
    # ONNX Runtime refuses the mark
    assert b"TRT_decomposable" in denoiser.onnx and b"TRT_decomposable" not in typed(tiny, "denoiser", "fp16")
