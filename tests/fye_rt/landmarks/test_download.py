"""Downloading MediaPipe's face model: from a real server on loopback, which behaves in every way that servers do."""

import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fye_rt.errors import InputError, OptionError, OutputError
from fye_rt.landmarks import download, find_landmarker
from fye_rt.landmarks.download import get_landmarker
from tests.fye_rt.command_line import Fye

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Answers every path in its own way; `asked` lists them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.closing = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path = self.path[1:]
        self.server.asked.append(path)
        if path == "moved":
            self.send_response(302)
            self.send_header("Location", "/model")
            self.end_headers()
        elif path.isdigit():
            self.send_error(int(path))
        elif path == "nonsense":
            self.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")
        else:
            self.send_response(200)
            if path in ("model", "short", "silent"):
                self.send_header("Content-Length", str(len(CONTENT)))
            if path == "announced":
                self.send_header("Content-Length", str(download.MAX_BYTES + 1))
            self.end_headers()
            if path == "silent":
                self.wfile.write(CONTENT[:100])
                self.wfile.flush()
                self.server.closing.wait()
            elif path == "endless":
                while not self.server.closing.is_set():
                    self.wfile.write(bytes(1 << 20))
            elif path == "page":
                self.wfile.write(b"<html>Sign in to this network</html>")
            else:
                self.wfile.write(CONTENT[:-1] if path == "short" else CONTENT)

    def log_message(self, *arguments: object) -> None:
        pass

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:  # the client has had enough
            pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the model belongs; nothing is there yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FYE_LANDMARKER", raising=False)
    monkeypatch.setattr(download, "SHA256", SHA256)
    return tmp_path / "cache" / "fye-rt"


@pytest.mark.parametrize("path", ["model", "unannounced", "moved"])
def test_the_model_arrives_in_the_cache(path: str, server: Server, cache: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    found = get_landmarker(server.url(path), progress=lambda *step: seen.append(step))
    assert found == find_landmarker() and found.read_bytes() == CONTENT
    assert [file.name for file in cache.iterdir()] == ["face_landmarker.task"]
    assert seen[-1] == ("download", len(CONTENT), len(CONTENT))


def test_only_a_missing_or_damaged_model_is_downloaded(server: Server, cache: Path) -> None:
    path = get_landmarker(server.url("model"))
    get_landmarker(server.url("model"))
    assert server.asked == ["model"]
    path.write_bytes(CONTENT[:-1])
    get_landmarker(server.url("model"))
    assert server.asked == ["model"] * 2 and path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("404", "answers 404"),
        ("503", "answers 503"),
        ("page", "its hash differs"),
        ("short", f"ended after {len(CONTENT) - 1} of {len(CONTENT)} bytes"),
        ("announced", "more than 16 MB"),
        ("endless", "more than 16 MB"),
        ("nonsense", "cannot be downloaded"),
        ("silent", "no data for"),
    ],
)
def test_a_failed_download_is_reported_and_leaves_nothing(
    path: str, told: str, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path == "silent":
        monkeypatch.setattr(download, "TIMEOUT", 0.2)
    with pytest.raises(InputError, match=told) as caught:
        get_landmarker(server.url(path))
    assert "\n" not in str(caught.value) and server.url(path) in str(caught.value)
    assert not list(cache.glob("**/*"))


def test_a_wrong_download_does_not_replace_the_older_model(server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "face_landmarker.task").write_bytes(b"an older one")
    with pytest.raises(InputError, match="its hash differs"):
        get_landmarker(server.url("page"))
    assert (cache / "face_landmarker.task").read_bytes() == b"an older one"


def test_an_unreachable_address_is_reported_with_a_way_out(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/model"
        with pytest.raises(InputError, match=f"{url} cannot be reached .*copy it to {cache}"):
            get_landmarker(url)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/model", "model", "http://", "//127.0.0.1/x"])
def test_only_http_and_https_are_asked(url: str, cache: Path) -> None:
    with pytest.raises(OptionError, match="not a download address"):
        get_landmarker(url)


def test_a_cache_that_cannot_be_written_is_reported(server: Server, cache: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    with pytest.raises(OutputError, match=r"cannot make the folder .*; set XDG_CACHE_HOME"):
        get_landmarker(server.url("model"))


def test_doctor_downloads_from_a_mirror_by_the_hash(server: Server, cache: Path, fye: Fye) -> None:
    assert "its hash differs" in fye.refuses("doctor", "--get", "landmarker", "--url", server.url("page"))
    assert fye("doctor", "--get", "landmarker", "--url", server.url("model")).startswith(str(cache))
    assert find_landmarker().read_bytes() == CONTENT


def test_the_hash_matches_mediapipe_s_model(landmarker: Path) -> None:
    assert hashlib.sha256(landmarker.read_bytes()).hexdigest() == download.SHA256
