"""The libraries have what our code uses of them, code without a test and behind a GPU included."""

import pytest

pytest.importorskip("cuda.core", reason="cuda-core is not installed: pip install 'fye-rt[cuda]'")

from tests.fye_engines.bindings import RECORDS, RTX_ALONE, libraries, names, read
from tests.fye_engines.conformance import problems, trees, users

RIGHT = """
from cuda.core import Device, LaunchConfig, launch

def build(module: Any, log: Any, path: str) -> Any:
    class Monitor(module.IProgressMonitor):
        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None: ...
    builder = module.Builder(log)
    config = builder.create_builder_config()
    config.set_flag(module.BuilderFlag.REFIT)
    config.builder_optimization_level = 3
    old = getattr(module.BuilderFlag, "FP16", None)
    network = builder.create_network(1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = module.OnnxParser(network, log)
    said = [parser.get_error(number).desc() for number in range(parser.num_errors)]
    return said, bytes(builder.build_serialized_network(network, config)), old

def run(parser: Any, content: bytes, context: Any, kernel: Any, *rest: Any) -> None:
    import cuda.core
    assert parser.load_model_proto(content)
    module = library.load()
    module.Runtime(cuda.core.system).deserialize_cuda_engine(content).refittable
    stream = Device().create_stream()
    context.execute_async_v3(stream_handle=int(stream.handle))
    launch(stream, LaunchConfig(grid=1, block=32), kernel, *rest, 0)
    stream.sync()
"""
WRONG = [
    ("BuilderFlag.REFIT", "BuilderFlag.REFITT", "line 9: tensorrt.BuilderFlag.REFITT is not in 10.16, 11.4, RTX 1.7"),
    ("BuilderFlag.REFIT", "BuilderFlag.FP16", "tensorrt.BuilderFlag.FP16 is not in 11.4"),
    ("BuilderFlag.REFIT", "BuilderFlag.REQUIRE_USER_ALLOCATION", "REQUIRE_USER_ALLOCATION is not in 10.16, 11.4"),
    ("build_serialized_network", "build_engine_with_config", "build_engine_with_config is not in RTX 1.7"),
    ("module.Builder(log)", "module.Builder()", "tensorrt.Builder does not take that"),
    ("module.Builder(log)", "module.ICudaEngine(log)", "tensorrt.ICudaEngine does not take that"),
    ("config.set_flag", "config.set_flg", "tensorrt.IBuilderConfig.set_flg is not in"),
    ("config.set_flag", "config.set_shape", "tensorrt.IBuilderConfig.set_shape is not in"),
    ("optimization_level = 3", "optimisation_level = 3", "tensorrt.IBuilderConfig.builder_optimisation_level"),
    ("builder_optimization_level", "num_optimization_profiles", "num_optimization_profiles cannot be assigned"),
    ("stream.sync()", "kernel.num_arguments = 1", "kernel.num_arguments: not in all versions of cuda.core.Kernel"),
    ("builder.create_builder_config()", "builder.create_builder_config(1)", "does not take that"),
    ('BuilderFlag, "FP16", None)', 'BuilderFlag, "FP16")', "tensorrt.BuilderFlag.FP16 is not in 11.4"),
    ('"FP16", None)', '"FP61", None)', "tensorrt.BuilderFlag.FP61 is in no version"),
    ('module.BuilderFlag, "FP16", None)', "module, path, None)", "which name this looks up is not written there"),
    (".desc()", ".descr()", "tensorrt.ParserError.descr is not in"),
    ("model_proto(content)", "model_proto(model=content, file=1)", "not in all versions of tensorrt."),
    ("load_model_proto(content)", "num_subgraphs()", "not in all versions of tensorrt.OnnxParser"),
    (".refittable", ".refitable", "tensorrt.ICudaEngine.refitable is not in"),
    ("cuda.core.system", "cuda.core.sistem", "cuda.core.sistem is not in"),
    ("context.execute_async_v3", "context.execute_async_v2", "execute_async_v2: nobody has it"),
    ("stream_handle=", "stream=", "not in all versions of tensorrt.IExecutionContext, or not so"),
    ("import Device,", "import Devise,", "cuda.core.Devise is not in"),
    ("create_stream()", "create_stream(priority=1)", "cuda.core.Device.create_stream does not take that"),
    ("block=32", "blocks=32", "cuda.core.LaunchConfig does not take that"),
    ("kernel, *rest, 0", "", "cuda.core.launch does not take that"),
    ("stream.sync()", "stream.synchronize()", "cuda.core.Stream.synchronize is not in"),
    ("def phase_start", "def phase_begin", "is not tensorrt.IProgressMonitor.phase_begin of 11.4"),
    ("num_steps: int", "steps: int", "is not tensorrt.IProgressMonitor.phase_start of 10.16"),
]


@pytest.mark.parametrize("file", users())
def test_the_libraries_have_what_a_file_uses(file: str) -> None:
    assert problems(trees()[file]) == []


@pytest.mark.parametrize(("right", "wrong", "problem"), WRONG)
def test_wrong_code_is_found(right: str, wrong: str, problem: str) -> None:
    assert {"engines/fye_engines/building.py", "fye_rt/backends/cubins.py", "fye_rt/backends/tensorrt.py"} <= {*users()}
    assert right in RIGHT and problems(RIGHT) == []
    found = problems(RIGHT.replace(right, wrong))
    assert any(problem in each for each in found), found


def test_what_tensorrt_rtx_alone_has_is_recorded_from_the_installed_module() -> None:
    versions = libraries()[0].versions
    having = {v: {name for name in RTX_ALONE if any(name in path.split(".") for path in versions[v])} for v in versions}
    assert having == {"10.16": set(), "11.4": set(), "RTX 1.7": set(RTX_ALONE)}
    module = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    version, recorded = read(RECORDS / "tensorrt_rtx-1.7.txt")
    if module.__version__ != version:
        pytest.skip(f"TensorRT-RTX {module.__version__} is installed, and {version} was recorded")
    assert names(module) == recorded


def test_tensorrt_rtx_names_every_architecture_that_we_build_for() -> None:
    from fye_rt.backends.tensorrt_library import RTX

    named = libraries()[0].versions["RTX 1.7"]
    assert all(f"ComputeCapability.{sm.upper().replace('_', '')}" in named for sm in RTX.architectures)
