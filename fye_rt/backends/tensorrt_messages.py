"""Keeps TensorRT's errors, so that fye-rt's own messages can quote them."""

import logging
from typing import Any

_QUOTED = 5  # largest number of TensorRT's messages that an error quotes

logger = logging.getLogger("fye_rt")


def messages(tensorrt: Any) -> Any:
    """Create a TensorRT logger that keeps errors in its list `said`."""
    severity = tensorrt.ILogger.Severity
    errors = (severity.INTERNAL_ERROR, severity.ERROR)

    class Messages(tensorrt.ILogger):
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)
            self.said: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in errors:
                self.said.append(msg)
            logger.debug("TensorRT: %s", msg)

    return Messages()


def quoted(said: list[str]) -> str:
    """Join TensorRT's messages to one line, each once, and at most five of them."""
    lines = [" ".join(message.split()) for message in dict.fromkeys(said)]
    more = f"; and {len(lines) - _QUOTED} more" if len(lines) > _QUOTED else ""
    return "; ".join(lines[:_QUOTED]) + more if lines else "no reason given"
