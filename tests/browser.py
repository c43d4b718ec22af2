"""A headless Chromium, spoken to over two pipes: it opens a page, and tells what that complains of and asks for."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["Seen", "browser", "find_chromium"]

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip


# The browser reads file 3 and writes file 4, whatever the pipes are called here.
HAND_OVER = "import os, sys; [os.dup2(int(sys.argv[n]), n + 2) for n in (1, 2)]; os.execv(sys.argv[3], sys.argv[3:])"


CUT = """[...document.querySelectorAll("svg text")].filter(text => {
    const [inner, outer] = [text, text.ownerSVGElement].map(one => one.getBoundingClientRect());
    return inner.left < outer.left - 1 || inner.right > outer.right + 1;
}).map(text => text.firstChild.data)"""
PATIENCE = 60.0  # seconds without a word from the browser


@dataclass
class Seen:
    """What a page did: complaints on the console, addresses asked for, dialogs opened, and what it looks like;
    ``cut`` is the text of pictures that reaches beyond their edges."""

    complaints: list = field(default_factory=list)
    asked_for: list = field(default_factory=list)
    dialogs: list = field(default_factory=list)
    width: int = 0
    cut: list = field(default_factory=list)
    picture: bytes = b""


def find_chromium():
    """Return the program, or an empty text."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome") or ""


@contextmanager
def browser():
    """Start a browser and yield what opens a page in it."""
    down, to_browser = os.pipe()
    from_browser, up = os.pipe()
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (down, up)]
    os.close(down)
    os.close(up)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [find_chromium(), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(
            [sys.executable, "-c", HAND_OVER, *map(str, ends), *command],
            pass_fds=ends,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in ends:
            os.close(end)
        try:
            yield _Pages(to_browser, from_browser)
        finally:
            os.close(to_browser)
            process.kill()
            process.wait()
            os.close(from_browser)


class _Pages:
    def __init__(self, writer, reader):
        self._writer, self._reader = writer, reader
        self._number, self._rest = 0, b""

    def __call__(self, address, width, *, height=900, whole=True, scale=1):
        """Open a page ``width`` pixels wide and return what was seen."""
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._events = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._ask(f"{domain}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
        self._ask("Emulation.setDeviceMetricsOverride", **size)
        self._ask("Page.navigate", url=address)
        self._until("Page.loadEventFired")
        measured = self._ask("Runtime.evaluate", expression="document.documentElement.scrollWidth")
        cut = self._ask("Runtime.evaluate", expression=CUT, returnByValue=True)
        picture = self._ask("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        self._session = None
        self._ask("Target.closeTarget", targetId=target)
        seen = Seen(width=measured["result"]["value"], cut=cut["result"]["value"], picture=base64.b64decode(picture))
        for event in self._events:
            method, told = event["method"], event["params"]
            if method == "Log.entryAdded" and told["entry"]["level"] in ("warning", "error"):
                seen.complaints.append(told["entry"]["text"])
            if method == "Runtime.consoleAPICalled" or method == "Runtime.exceptionThrown":
                seen.complaints.append(json.dumps(told))
            if method == "Page.javascriptDialogOpening":
                seen.dialogs.append(told["message"])
            if method == "Network.requestWillBeSent" and not told["request"]["url"].startswith("data:"):
                seen.asked_for.append(told["request"]["url"])
        return seen

    _session = None

    def _ask(self, method, **params):
        self._number += 1
        said = {"id": self._number, "method": method, "params": params}
        said |= {"sessionId": self._session} if self._session else {}
        os.write(self._writer, json.dumps(said).encode() + b"\0")
        while True:
            heard = self._hear()
            if heard.get("id") == self._number:
                if "error" in heard:
                    raise RuntimeError(f"{method}: {heard['error']}")
                return heard["result"]

    def _until(self, method):
        while not any(event["method"] == method for event in self._events):
            self._hear()

    def _hear(self):
        while b"\0" not in self._rest:
            if not select.select([self._reader], [], [], PATIENCE)[0]:
                raise TimeoutError(f"the browser has said nothing for {PATIENCE:.0f} s")
            if not (piece := os.read(self._reader, 1 << 20)):
                raise RuntimeError("the browser has ended")
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        heard = json.loads(message)
        if "method" in heard and hasattr(self, "_events"):
            self._events.append(heard)
            if heard["method"] == "Page.javascriptDialogOpening":  # or nothing goes on
                self._number += 1
                said = {"id": self._number, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}}
                os.write(self._writer, json.dumps(said | {"sessionId": heard.get("sessionId")}).encode() + b"\0")
        return heard
