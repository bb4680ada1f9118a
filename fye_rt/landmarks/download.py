"""Download MediaPipe's face landmarker into the user's cache and check its hash."""

import hashlib
import http.client
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from fye_rt.errors import InputError, OptionError, OutputError
from fye_rt.files import atomic_file, sha256
from fye_rt.landmarks.detect import LANDMARKER_URL, cached_landmarker
from fye_rt.timings import Progress, no_progress

DOWNLOADS = ("landmarker",)  # choices of `fye doctor --get`
SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
MAX_BYTES = 16_000_000  # the file has 3.8 MB
TIMEOUT = 30.0  # seconds without a byte
_PART = 1 << 16  # bytes per read


def get_landmarker(url: str | None = None, path: Path | None = None, progress: Progress = no_progress) -> Path:
    """Download face_landmarker.task, unless it is already there.

    Args:
        url: http or https address of the file or a mirror; by default Google's.
        path: destination; by default the user's cache, where `find_landmarker` looks.
        progress: called with ("download", done, total) bytes.

    Returns:
        The file's path. The file appears whole, with the hash of Google's file, or not at all.

    Raises:
        OptionError: `url` is not an http or https address.
        InputError: the network or the file is unavailable, or the file is a different one.
        OutputError: the file cannot be written.
    """
    url, path = url or LANDMARKER_URL, path or cached_landmarker()
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise OptionError(f"{url!r} is not a download address; give one that begins with https://")
    with suppress(OSError):  # absent, or unreadable: download it
        if sha256(path) == SHA256:
            return path
    content = _download(url, progress)
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise InputError(
            f"{url} is not face_landmarker.task (its hash differs), so nothing was saved; use another address"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {path.parent} ({error.strerror}); set XDG_CACHE_HOME") from error
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)
    return path


def _download(url: str, progress: Progress) -> bytes:
    remedy = f"try again, or download it elsewhere and copy it to {cached_landmarker()}"
    content = bytearray()
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            announced = int(response.headers.get("Content-Length") or 0)
            while part := response.read(_PART):
                content += part
                if max(announced, len(content)) > MAX_BYTES:
                    raise InputError(
                        f"{url} has more than {MAX_BYTES / 1e6:g} MB, so it is another file; correct the address"
                    )
                progress("download", len(content), max(announced, len(content)))
        if len(content) < announced:  # urllib says nothing when a connection ends early
            raise InputError(f"{url}: the connection ended after {len(content)} of {announced} bytes; {remedy}")
    except urllib.error.HTTPError as error:
        error.close()
        raise InputError(f"{url} answers {error.code} ({error.reason}); {remedy}") from error
    except urllib.error.URLError as error:
        raise InputError(f"{url} cannot be reached ({error.reason}); {remedy}") from error
    except TimeoutError as error:
        raise InputError(f"{url}: no data for {TIMEOUT:g} s; {remedy}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{url} cannot be downloaded ({reason}); {remedy}") from error
    return bytes(content)
