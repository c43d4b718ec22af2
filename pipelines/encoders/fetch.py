"""Fetching weights files: from the hub through its own client, from a URL with resume, both into the usual caches."""

import hashlib
import logging
import os
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from ssl import SSLError
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from pipelines.encoders.registry import WeightsFile
from pipelines.progress import SILENT, Progress
from stores.commits import cannot_write
from stores.errors import CannotWrite, DamagedStore, NotHere
from stores.locks import lock

__all__ = ["fetch", "git_blob", "here"]

ATTEMPTS = 5
PIECE = 1 << 20
BUSY = {429, 500, 502, 503, 504}  # answers that the next attempt may not get
# What the libraries fall back to where a repository has no safetensors.
OLD_NAMES = {"open_clip_model.safetensors": "open_clip_pytorch_model.bin", "model.safetensors": "pytorch_model.bin"}


def torch_cache() -> Path:
    """Return the folder where torch keeps downloaded checkpoints: ``TORCH_HOME/hub/checkpoints``."""
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("TORCH_HOME") or cache_home / "torch") / "hub" / "checkpoints"


def here(file: WeightsFile, folder: Path | None = None) -> Path | None:
    """Return where a file is on this computer, or None.

    Parameters
    ----------
    file : WeightsFile
        The file.
    folder : Path, optional
        Where to look instead of the caches of torch and of the hub.
    """
    if folder or file.url:
        paths = [(folder or torch_cache()) / name for name in (_names(file) if file.hub else [file.name])]
        return next((path for path in paths if path.is_file()), None)
    from huggingface_hub import try_to_load_from_cache

    for name in _names(file):
        pinned = try_to_load_from_cache(file.hub, name, revision=file.revision or None)
        if isinstance(pinned, str):
            return Path(pinned)
        # Another program may have fetched the same file from a later commit: the hub's cache names it by its sha256.
        latest = try_to_load_from_cache(file.hub, name)
        if isinstance(latest, str) and Path(latest).resolve().name == file.sha256:
            return Path(latest)
    return None


def fetch(file: WeightsFile, folder: Path | None = None, *, progress: Progress = SILENT) -> Path:
    """Fetch a file, whole or not at all; a second process waits for the first.

    Raises
    ------
    NotHere
        If the network, the server or the file is not there, or ``HF_HUB_OFFLINE`` says not to ask.
    DamagedStore
        If what came does not have the digest or size the table states, or is a web page.
    CannotWrite
        If the disk is full or read-only.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):  # as the hub's client reads it
        raise NotHere(f"{file.source} is not fetched: HF_HUB_OFFLINE is set", "unset it where there is internet")
    try:
        if not file.url:
            return _from_hub(file, folder)
        target = (folder or torch_cache()) / file.name
        with lock(target.parent, target.name, wait=3600):
            if not target.is_file():
                _download(file, target, progress)
        return target
    finally:
        if folder and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()  # nothing came


def _names(file: WeightsFile) -> list[str]:
    old = OLD_NAMES.get(file.filename)
    return [file.filename, old] if old and not file.sha256 else [file.filename]  # a digest is that of one file


def _from_hub(file: WeightsFile, folder: Path | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for name in _names(file):
        try:
            with cannot_write(folder or Path(name)), _quiet("huggingface_hub"):
                return Path(hf_hub_download(file.hub, name, revision=file.revision or None, local_dir=folder))
        except CannotWrite:
            raise
        except LocalEntryNotFoundError as offline:
            raise NotHere(f"{file.source} cannot be fetched: no network", "") from offline
        except EntryNotFoundError:
            continue
        except Exception as problem:  # its client raises a dozen kinds: gated, renamed, proxy, time-out
            raise NotHere(f"{file.source} cannot be fetched: {' '.join(str(problem).split())[:160]}", "") from problem
    raise NotHere(f"{file.source} is not in its repository any more", "")


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Mute the warnings of a library that tells of each attempt: what comes of it is told once."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _download(file: WeightsFile, target: Path, progress: Progress) -> None:
    """Append to ``target.part`` until it is whole, then rename it."""
    part, mark = (target.with_name(target.name + ending) for ending in (".part", ".part.version"))
    with cannot_write(target):
        for attempt in range(ATTEMPTS):
            try:
                _append(file, part, mark, progress)
                break
            except HTTPError as refused:
                refused.close()
                if refused.code == 416 and part.is_file():  # nothing left to send
                    break
                if refused.code not in BUSY or attempt == ATTEMPTS - 1:
                    raise NotHere(f"{file.url} answers {refused.code} {refused.reason}", "") from refused
                time.sleep(0.2 * 2**attempt)
            except (URLError, TimeoutError, ConnectionError, SSLError, HTTPException) as problem:
                if attempt == ATTEMPTS - 1:
                    raise NotHere(
                        f"{file.url} cannot be reached: {getattr(problem, 'reason', problem)}", ""
                    ) from problem
                time.sleep(0.2 * 2**attempt)
        problem_found = _wrong(file, part)
        mark.unlink(missing_ok=True)
        if problem_found:
            part.unlink()
            raise DamagedStore(
                f"{file.url} {problem_found}", "try again; if it stays so, the file has moved or changed"
            )
        with open(part, "ab") as whole:  # else a power cut could leave the name and not the content
            os.fsync(whole.fileno())
        os.replace(part, target)


def _append(file: WeightsFile, part: Path, mark: Path, progress: Progress) -> None:
    """Fetch what ``part`` lacks; ``mark`` keeps which version of the file it is of, in the server's words."""
    version = mark.read_text(encoding="utf-8") if mark.is_file() else ""
    # Without either, what is added may be the end of another file, and nothing would tell.
    start = part.stat().st_size if part.is_file() and (version or file.sha256) else 0
    headers = {"User-Agent": "embedctl"}
    if start:
        headers |= {"Range": f"bytes={start}-", **({"If-Range": version} if version else {})}
    request = Request(file.url, headers=headers)
    with urlopen(request, timeout=60) as answer:
        resumed = answer.status == 206
        left = int(answer.headers.get("Content-Length") or 0)
        progress.start(f"fetch {file.name}", start * resumed + left, "bytes")
        progress.advance(start * resumed)
        received = 0
        with open(part, "ab" if resumed else "wb") as out:
            if not resumed:  # after the old part is gone: a kill in between must not give it the new version
                etag = answer.headers.get("ETag") or ""
                mark.write_text("" if etag.startswith("W/") else etag, encoding="utf-8")
            while piece := answer.read(PIECE):
                out.write(piece)
                received += len(piece)
                progress.advance(len(piece))
    if received < left:
        raise ConnectionError(f"connection closed after {received} of {left} bytes")


def git_blob(path: Path) -> str:
    """Return the id git gives the content of a file: its sha1 behind a header of its length."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _wrong(file: WeightsFile, part: Path) -> str:
    """Say what is wrong with a fetched file, or nothing."""
    with open(part, "rb") as data:
        if data.read(512).lstrip()[:1] == b"<":
            return "sent a web page instead of weights"
        data.seek(0)
        if data.read(4) == b"PK\3\4" and not zipfile.is_zipfile(part):
            return "sent a zip without its end"
        data.seek(0)
        found = hashlib.file_digest(data, "sha256").hexdigest()
    if not found.startswith(file.sha256):
        return f"sent a file with sha256 {found[:12]}..., expected {file.sha256[:12]}..."
    if file.git_blob and git_blob(part) != file.git_blob:
        return f"sent a file with git blob {git_blob(part)[:12]}..., expected {file.git_blob[:12]}..."
    if file.bytes and part.stat().st_size != file.bytes:
        return f"sent {part.stat().st_size} bytes, expected {file.bytes}"
    return ""
