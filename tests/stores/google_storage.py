"""A bucket of Google Cloud Storage on this computer: as much of its XML interface as a store asks for."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

TIME = "2026-01-01T00:00:00.000Z"


class Bucket(BaseHTTPRequestHandler):
    """Objects by ``/bucket/key``, in the server's ``objects``."""

    protocol_version = "HTTP/1.1"
    wbufsize, disable_nagle_algorithm = 1 << 16, True  # an answer that comes in two pieces takes 40 ms

    def log_message(self, *what: object) -> None:
        """Say nothing."""

    def do_PUT(self) -> None:
        data, path = self.rfile.read(int(self.headers["Content-Length"])), self._path()
        with self.server.turn:
            if self.headers.get("x-goog-if-generation-match") == "0" and path in self.server.objects:
                return self._answer(412)
            self.server.objects[path] = data
        self._answer(200)

    def do_GET(self) -> None:
        if self._path().count("/") == 1:
            return self._answer(200, self._listing().encode())
        if (data := self.server.objects.get(self._path())) is None:
            return self._answer(404)
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            start, last = map(int, wanted.groups())
            return self._answer(206, data[start : last + 1], f"bytes {start}-{min(last, len(data) - 1)}/{len(data)}")
        self._answer(200, data)

    do_HEAD = do_GET

    def do_DELETE(self) -> None:
        self._answer(404 if self.server.objects.pop(self._path(), None) is None else 204)

    def _path(self) -> str:
        return unquote(urlsplit(self.path).path)

    def _listing(self) -> str:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        bucket, prefix = self._path().split("/")[1], asked.get("prefix", "")
        found, folders = [], set()
        for path, data in sorted(self.server.objects.items()):
            key = path.removeprefix(f"/{bucket}/")
            if not path.startswith(f"/{bucket}/{prefix}"):
                continue
            if (rest := key.removeprefix(prefix)).count("/") and "delimiter" in asked:
                folders.add(prefix + rest.partition("/")[0] + "/")
                continue
            facts = f"<Size>{len(data)}</Size><LastModified>{TIME}</LastModified><ETag>0</ETag>"
            found.append(f"<Contents><Key>{escape(key)}</Key>{facts}</Contents>")
        found += [f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>" for folder in sorted(folders)]
        return f"<ListBucketResult>{''.join(found)}</ListBucketResult>"

    def _answer(self, status: int, data: bytes = b"", span: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Last-Modified", formatdate(usegmt=True))
        self.send_header("ETag", '"0"')
        if span:
            self.send_header("Content-Range", span)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def google_storage() -> Iterator[tuple[ThreadingHTTPServer, dict[str, str]]]:
    """Yield a server and the environment that leads to it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    server.daemon_threads, server.objects, server.turn = True, {}, threading.Lock()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    address = "http://{}:{}".format(*server.server_address)
    account = {"gcs_base_url": address, "disable_oauth": True}
    account |= dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
    try:
        yield server, {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account), "GOOGLE_ALLOW_HTTP": "true"}
    finally:
        server.shutdown()
        server.server_close()
