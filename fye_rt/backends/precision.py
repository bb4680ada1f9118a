"""The precision that a backend computes in."""

from collections.abc import Sequence

from fye_rt.errors import BackendError


def resolve_precision(name: str, precisions: Sequence[str], compute: str) -> str:
    """Resolve a compute precision, which may be "auto", for a backend.

    Args:
        name: the backend.
        precisions: those that it computes in on this machine; "auto" is the last one.
        compute: the wanted precision.

    Raises:
        BackendError: the backend does not compute in this precision on this machine.
    """
    if compute == "auto":
        return precisions[-1]
    if compute not in precisions:
        remedy = ", or use backend='openvino' for bf16" if compute == "bf16" and name != "openvino" else ""
        if compute == "fp16" and name == "onnxruntime-cuda":
            remedy = ", or run: pip install onnx-ir"  # an extra would reinstall the CPU's onnxruntime
        raise BackendError(
            f"{name} computes in {' or '.join(precisions)} here, not in {compute}; drop compute={compute!r}{remedy}"
        )
    return compute
