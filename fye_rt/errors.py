"""The one family of errors. Every message names the thing at fault and says what to do about it.

Everything a user can cause derives from `FyeError`; the command line prints its message on one line and
exits with code 2. Anything else that escapes is a bug of ours and keeps its traceback.
"""


class FyeError(Exception):
    """Base of every error that fye-rt raises on purpose."""


class OptionError(FyeError, ValueError):
    """An option outside its valid range, or two options that contradict each other."""


class InputError(FyeError, ValueError):
    """An image, video, motion file or template that is missing, damaged, empty or over a stated limit."""


class FaceNotFoundError(InputError):
    """No face where one is needed; the message lists the frames."""


class BundleError(FyeError):
    """A bundle that is incomplete, altered, of an unknown format version, or unsafe to open."""


class CheckpointError(FyeError):
    """A checkpoint with missing, surplus, misshapen or non-finite tensors, or in an unknown layout."""


class ExportError(FyeError):
    """An exported graph that disagrees with PyTorch by more than its tolerance; nothing was published."""


class BackendError(FyeError):
    """A backend that is not installed here or cannot run this bundle; the message names the remedy."""


class BusyError(FyeError, RuntimeError):
    """A second call on an `Animator` that is already serving one, or a call on a closed one."""


class NumericalError(FyeError, ArithmeticError):
    """A network returned NaN or infinity."""


class OutputError(FyeError, OSError):
    """A result could not be written (full disk, no permission); no partial file was left under its name."""
