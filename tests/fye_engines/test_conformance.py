"""What our code uses of TensorRT and cuda-core is there in every recorded version, with the arguments that it gives.

What it uses is read from its source, so that code without a test, or behind a GPU, is seen too.
"""

import pytest

from tests.fye_engines.conformance import libraries, problems, trees, users

DIRECT, NEAR = users()
RIGHT = """
import tensorrt as trt
from cuda.core import Device, LaunchConfig, launch

def build(log: Any, path: str) -> Any:
    builder = trt.Builder(log)
    config = builder.create_builder_config()
    config.set_flag(trt.BuilderFlag.REFIT)
    config.builder_optimization_level = 3
    old = getattr(trt.BuilderFlag, "FP16", None)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    said = [parser.get_error(number).desc() for number in range(parser.num_errors)]
    return said, bytes(builder.build_serialized_network(network, config)), old

def read(tensorrt: Any, parser: Any, content: bytes) -> Any:
    import cuda.core

    assert parser.load_model_proto(content)
    return tensorrt.Runtime(cuda.core.system).deserialize_cuda_engine(content).refittable

def run(context: Any, kernel: Any, *rest: Any) -> None:
    stream = Device().create_stream()
    context.execute_async_v3(stream_handle=int(stream.handle))
    launch(stream, LaunchConfig(grid=1, block=32), kernel, *rest, 0)
    stream.sync()

class Monitor(trt.IProgressMonitor):
    def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
        self.steps = num_steps
"""


def test_what_uses_the_bindings_is_found_wherever_it_imports_them() -> None:
    assert {"fye_engines.building", "fye_rt.backends.cubins"} <= DIRECT
    assert not DIRECT & NEAR and not {"fye_rt", "fye_rt.cli.main", "fye_engines.prepare"} & (DIRECT | NEAR)


def test_every_library_was_recorded_in_two_versions() -> None:
    assert [(library.module, len(library.versions)) for library in libraries()] == [("tensorrt", 2), ("cuda.core", 2)]


@pytest.mark.parametrize("module", sorted(DIRECT | NEAR))
def test_the_bindings_have_what_a_module_uses(module: str) -> None:
    assert problems(trees()[module], misspelt=module in DIRECT) == []


def test_right_code_has_no_problems() -> None:
    assert problems(RIGHT) == []


@pytest.mark.parametrize(
    ("right", "wrong", "problem"),
    [
        ("BuilderFlag.REFIT", "BuilderFlag.REFITT", "line 8: tensorrt.BuilderFlag.REFITT is not in tensorrt 10.16"),
        ("BuilderFlag.REFIT", "BuilderFlag.FP16", "tensorrt.BuilderFlag.FP16 is not in tensorrt 11.4"),
        ("trt.Builder(", "trt.IInt8Calibrator(", "tensorrt.IInt8Calibrator is not in tensorrt 11.4"),
        ("trt.Builder(log)", "trt.Builder()", "tensorrt.Builder does not take that"),
        ("trt.Builder(log)", "trt.ICudaEngine(log)", "tensorrt.ICudaEngine does not take that"),
        ("config.set_flag", "config.set_flg", "tensorrt.IBuilderConfig.set_flg is not in"),
        ("config.set_flag", "config.set_shape", "tensorrt.IBuilderConfig.set_shape is not in"),
        ("optimization_level = 3", "optimisation_level = 3", "tensorrt.IBuilderConfig.builder_optimisation_level"),
        ("builder_optimization_level", "num_optimization_profiles", "num_optimization_profiles cannot be assigned"),
        ("stream.sync()", "kernel.num_arguments = 1", "kernel.num_arguments: not in all versions of cuda.core.Kernel"),
        ("builder.create_builder_config()", "builder.create_builder_config(1)", "does not take that"),
        ('BuilderFlag, "FP16", None)', 'BuilderFlag, "FP16")', "tensorrt.BuilderFlag.FP16 is not in tensorrt 11.4"),
        ('"FP16", None)', '"FP61", None)', "tensorrt.BuilderFlag.FP61 is in no version"),
        ('"FP16", None)', "path, None)", "which name this looks up is not written there"),
        (".desc()", ".descr()", "tensorrt.ParserError.descr is not in"),
        (
            "load_model_proto(content)",
            "parse_with_weight_descriptors(content)",
            "not in all versions of tensorrt.OnnxParser",
        ),
        ("load_model_proto(content)", "load_model_proto(model=content, file=1)", "not in all versions of tensorrt."),
        ("load_model_proto(content)", "num_subgraphs()", "not in all versions of tensorrt.OnnxParser"),
        (".refittable", ".refitable", "tensorrt.ICudaEngine.refitable is not in"),
        ("cuda.core.system", "cuda.core.sistem", "cuda.core.sistem is not in cuda.core 1.0, 1.2"),
        ("context.execute_async_v3", "context.execute_async_v2", "execute_async_v2: nobody has it"),
        ("context.execute_async_v3", "context.execute_v3", "execute_v3: nobody has it"),
        ("stream_handle=", "stream=", "not in all versions of tensorrt.IExecutionContext, or not so"),
        ("stream_handle=int(stream.handle)", "1, 2", "not in all versions of tensorrt.IExecutionContext, or not so"),
        ("import Device,", "import Devise,", "cuda.core.Devise is not in cuda.core 1.0, 1.2"),
        ("import Device,", "import Device, Host,", "cuda.core.Host is not in cuda.core 1.0"),
        ("create_stream()", "create_stream(priority=1)", "cuda.core.Device.create_stream does not take that"),
        ("block=32", "blocks=32", "cuda.core.LaunchConfig does not take that"),
        ("*rest, 0)", "*rest, shmem_size=0)", "cuda.core.launch does not take that"),
        ("kernel, *rest, 0", "", "cuda.core.launch does not take that"),
        ("stream.sync()", "stream.synchronize()", "synchronize: nobody has it"),
        ("def phase_start", "def phase_begin", "is not tensorrt.IProgressMonitor.phase_begin of 11.4"),
        ("num_steps: int", "steps: int", "is not tensorrt.IProgressMonitor.phase_start of 10.16"),
    ],
)
def test_wrong_code_is_found(right: str, wrong: str, problem: str) -> None:
    assert right in RIGHT
    found = problems(RIGHT.replace(right, wrong))
    assert any(problem in each for each in found), found
