"""Files from an address: only the bytes that were asked for, and nothing left behind."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tavq.core.download import download, fetch_if_url, is_url
from tavq.core.errors import FileError, UsageError

CONTENT = bytes(range(256)) * 9000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/none":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:-1] if self.path == "/short" else CONTENT)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answers) as answering:
        thread = threading.Thread(target=answering.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{answering.server_port}"
        answering.shutdown()
        thread.join()


def test_a_file_is_downloaded(server: str, tmp_path: Path) -> None:
    download(f"{server}/file", DIGEST, tmp_path / "new" / "x")
    assert (tmp_path / "new" / "x").read_bytes() == CONTENT
    with fetch_if_url(f"{server}/file", DIGEST, tmp_path / "out") as path:
        assert path.read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    with fetch_if_url(str(tmp_path / "mine"), DIGEST, tmp_path / "out") as path:
        assert path == tmp_path / "mine"


@pytest.mark.parametrize(
    ("page", "digest", "message"),
    [
        ("/file", "0" * 64, r"/file sent another file: its sha256 is [0-9a-f]{12}…, expected 000000000000…"),
        ("/short", DIGEST, r"/short"),
        ("/none", DIGEST, r"Could not download .*/none: Not Found"),
    ],
)
def test_other_bytes_leave_nothing(server: str, tmp_path: Path, page: str, digest: str, message: str) -> None:
    with pytest.raises(FileError, match=message):
        download(server + page, digest, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_only_urls_are_downloaded(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a URL"):
        download("file:///etc/hostname", DIGEST, tmp_path / "x")
    assert not is_url("weights.pth")
    with pytest.raises(FileError, match=r"Could not download http://127\.0\.0\.1:9/x"):
        download("http://127.0.0.1:9/x", DIGEST, tmp_path / "x")
