"""MediaPipe's face landmarker, downloaded into the user's cache and compared with its hash."""

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

DOWNLOADS = ("landmarker",)  # names after `fye doctor --get`
SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
MAX_BYTES = 16_000_000  # the file has 3.8 MB
TIMEOUT = 30.0  # seconds without a byte
_PART = 1 << 16  # bytes that are read at once


def get_landmarker(
    url: str | None = None,
    path: Path | None = None,
    progress: Progress = no_progress,
) -> Path:
    """Download face_landmarker.task; nothing is downloaded if it is there already.

    Args:
        url: where from, http or https; by default Google's address, a mirror otherwise.
        path: where to; by default the user's cache, where `find_landmarker` looks.
        progress: called with ("download", done, total) bytes.

    Returns:
        The file's path. It appears whole, with the hash of Google's file, or not at all.

    Raises:
        OptionError: `url` is no http or https address.
        InputError: no network, no such file there, or another file.
        OutputError: it cannot be written.
    """
    url, path = url or LANDMARKER_URL, path or cached_landmarker()
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise OptionError(f"{url!r} is no address to download from; give one that begins with https://")
    with suppress(OSError):  # not there, or to be written anew
        if sha256(path) == SHA256:
            return path
    content = _download(url, progress)
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise InputError(f"{url} is another file than face_landmarker.task (its hash differs); nothing was kept")
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
                    raise InputError(f"{url} has more than {MAX_BYTES / 1e6:g} MB; it is another file")
                progress("download", len(content), max(announced, len(content)))
        if len(content) < announced:  # urllib says nothing when a connection ends early
            raise InputError(f"{url}: {len(content)} of {announced} bytes came; {remedy}")
    except urllib.error.HTTPError as error:
        error.close()
        raise InputError(f"{url} answers {error.code} ({error.reason}); {remedy}") from error
    except urllib.error.URLError as error:
        raise InputError(f"{url} cannot be reached ({error.reason}); {remedy}") from error
    except TimeoutError as error:
        raise InputError(f"{url}: nothing came for {TIMEOUT:g} s; {remedy}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        what = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{url} cannot be downloaded ({what}); {remedy}") from error
    return bytes(content)
