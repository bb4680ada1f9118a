"""OpenCV, which needs system libraries that a bare server lacks."""

from types import ModuleType

from fye_rt.errors import BackendError


def load_cv2() -> ModuleType:
    """Import OpenCV.

    Raises:
        BackendError: OpenCV cannot be imported; the message names the packages.
    """
    try:
        import cv2
    except ImportError as error:
        raise BackendError(
            f"OpenCV cannot be imported ({error}); on Debian or Ubuntu run: apt install libgl1 libglib2.0-0"
        ) from error
    return cv2
