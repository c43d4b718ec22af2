"""What is said of an object store that does not answer: two lines, and nothing of the library's own."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stores.errors import EmbedctlError
from stores.remote import _open_bucket, locate

obstore = pytest.importorskip("obstore")


@pytest.fixture
def keys(monkeypatch):
    """Keys of nobody, and no endpoint."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_ALLOW_HTTP"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.setenv(name, "x")
    _open_bucket.cache_clear()
    yield monkeypatch
    _open_bucket.cache_clear()


class Answers(BaseHTTPRequestHandler):
    """Answers whatever is asked."""

    def do_GET(self):
        body = b"here"
        self.send_response(200)
        for name, value in (("Content-Length", len(body)), ("Last-Modified", "Sat, 01 Jan 2000 00:00:00 GMT")):
            self.send_header(name, str(value))
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *said):
        pass


def test_an_endpoint_by_http_is_asked_unless_that_is_forbidden_which_is_told_in_one_line(keys):
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        keys.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        assert locate("s3://lab/e.zarr").read_bytes() == b"here"
        _open_bucket.cache_clear()
        keys.setenv("AWS_ALLOW_HTTP", "false")
        with pytest.raises(EmbedctlError) as problem:
            locate("s3://lab/e.zarr").read_bytes()
        server.shutdown()
    said = problem.value.what
    assert said.startswith("'s3://lab/e.zarr': Generic S3 error: Error performing GET http://127.0.0.1")
    assert "\n" not in said and "{" not in said and "Debug" not in said


def test_an_endpoint_that_is_no_address_is_two_lines(keys):
    keys.setenv("AWS_ENDPOINT_URL", "127.0.0.1:9000")
    with pytest.raises(EmbedctlError, match="the endpoint '127.0.0.1:9000' is no address"):
        locate("s3://lab/e.zarr").exists()
