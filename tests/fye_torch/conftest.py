"""A GPU for the tests of the torch backend, and an imitation of one."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton", reason="kernels need Triton: pip install fye-rt[kernels]")

from fye_torch import engine, modules
from tests.fye_rt.backends.imitated_cuda import Cuda, install


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks are opened anew, with PyTorch's own operations in the kernels' place."""
    monkeypatch.setattr(engine, "_shared", {})
    monkeypatch.setattr(engine, "_operations", lambda *given: modules.PLAIN)


@pytest.fixture
def imitated(plain: None, monkeypatch: pytest.MonkeyPatch) -> Cuda:
    """An imitated GPU, which the torch backend takes for one."""
    monkeypatch.setattr(engine, "on_gpu", lambda device: True)
    return install(monkeypatch)


@pytest.fixture(params=["imitated", pytest.param("gpu", marks=pytest.mark.gpu(architecture="sm_80 or newer"))])
def cuda(request: pytest.FixtureRequest) -> Cuda:
    """An imitated GPU, and the one that is there."""
    if request.param == "gpu":
        return Cuda("cuda")
    cuda: Cuda = request.getfixturevalue("imitated")
    return cuda
