"""What TensorRT says, kept for our own messages."""

import logging
from typing import Any

_SAID = 5  # messages of TensorRT's that an error quotes at most

logger = logging.getLogger("fye_rt")


def messages(tensorrt: Any) -> Any:
    """A logger for TensorRT, which keeps its errors in `said`."""
    severity = tensorrt.ILogger.Severity
    grave = (severity.INTERNAL_ERROR, severity.ERROR)

    class Messages(tensorrt.ILogger):
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)
            self.said: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in grave:
                self.said.append(msg)
            logger.debug("TensorRT: %s", msg)

    return Messages()


def quoted(said: list[str]) -> str:
    """What TensorRT said, in one line."""
    lines = [" ".join(each.split()) for each in dict.fromkeys(said)]
    more = f"; and {len(lines) - _SAID} more" if len(lines) > _SAID else ""
    return "; ".join(lines[:_SAID]) + more if lines else "it does not say why"
