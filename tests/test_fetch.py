"""Weights are the very file they should be: fetched once and whole, hashed each time, from wherever they are."""

import hashlib
import logging
import os
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from embedctl.cli import app
from pipelines.encoders import fetch
from pipelines.encoders.registry import WeightsFile, find
from pipelines.encoders.weights import pull, resolve_weights
from stores.errors import DamagedStore, EmbedctlError, NotHere

ROOT = Path(__file__).parent.parent

CONTENT = bytes(range(256)) * 4096
SHA = hashlib.sha256(CONTENT).hexdigest()
SMALL = find("mobilenetv3-small-tv")


class Server(ThreadingHTTPServer):
    """Serves ``body``; every odd thing a real server does is a switch.

    ``hiccups`` answers stop after a third; ``busy`` answers are 503; ``status`` replaces 200; ``moved`` sends
    elsewhere; ``chunked`` does not tell the length; ``etag`` names the version, which ``If-Range`` asks about.
    """

    def __init__(self, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.etag, self.ranges = body, '"1"', []
        self.hiccups, self.busy, self.status, self.chunked, self.moved = 0, 0, 200, False, ""
        self.url = f"http://127.0.0.1:{self.server_port}/some/net.pth"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        if server.moved and self.path != server.moved:
            return self.answer(302, b"", Location=server.moved)
        server.ranges.append(wanted := self.headers.get("Range", ""))
        server.busy -= 1
        if server.busy >= 0:
            return self.answer(503, b"later")
        if server.status != 200:
            return self.answer(server.status, b"<html>no</html>")
        same = self.headers.get("If-Range", server.etag) == server.etag
        start = int(wanted.removeprefix("bytes=").rstrip("-") or 0) if same else 0
        self.answer(206 if start else 200, server.body[start:], **({"ETag": server.etag} if server.etag else {}))

    def answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        cut = status in (200, 206) and self.server.hiccups > 0
        sent = body[: len(body) // 3] if cut else body
        if self.server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            sent = b"%x\r\n%b\r\n" % (len(body), sent) + (b"" if cut else b"0\r\n\r\n")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(sent)
        if cut:
            self.server.hiccups -= 1
            self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(fetch.time, "sleep", lambda _: None)
    with Server(CONTENT) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def served(server, **known):
    return replace(SMALL, weights=(WeightsFile(url=server.url, **known),))


def test_a_file_is_fetched_once_and_named_by_its_digest(server, tmp_path):
    spec = served(server, sha256=SHA[:8])
    weights = resolve_weights(spec)
    assert weights.label == f"sha256:{SHA}" and weights.source == server.url
    assert weights.files == (tmp_path / "torch/hub/checkpoints/net.pth",)
    assert weights.files[0].read_bytes() == CONTENT
    resolve_weights(spec, offline=True)
    assert len(server.ranges) == 1


def test_a_broken_connection_continues_where_it_stopped(server):
    server.hiccups = 2
    assert resolve_weights(served(server, sha256=SHA)).files[0].read_bytes() == CONTENT
    assert server.ranges[0] == "" and all(wanted.startswith("bytes=") for wanted in server.ranges[1:])


def test_an_interrupted_run_leaves_a_part_that_the_next_one_continues(server, tmp_path):
    folder = tmp_path / "torch/hub/checkpoints"
    folder.mkdir(parents=True)
    (folder / "net.pth.part").write_bytes(CONTENT[:1000])
    assert resolve_weights(served(server, sha256=SHA)).files[0].read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-"] and not (folder / "net.pth.part").exists()


def test_a_file_is_on_the_disk_before_it_has_its_name(server, tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append(os.path.getsize(handle)), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda old, new: (done.append(Path(new).name), replace(old, new)))
    resolve_weights(served(server, sha256=SHA))
    assert done[done.index("net.pth") - 1] == len(CONTENT)


@pytest.mark.parametrize(
    ("body", "known", "what"),
    [
        (CONTENT, {"sha256": "00000000"}, "expected 00000000"),
        (CONTENT, {"bytes": 7}, "expected 7"),
        (b"\n<!DOCTYPE html><html>sign in</html>", {}, "a web page instead of weights"),
    ],
)
def test_what_is_not_the_published_file_never_gets_its_name(server, tmp_path, body, known, what):
    server.body = body
    with pytest.raises(DamagedStore, match=what):
        resolve_weights(served(server, **known))
    assert not list((tmp_path / "torch/hub/checkpoints").glob("net*"))


def test_a_cached_file_is_hashed_too(server, tmp_path):
    spec = served(server, sha256=SHA)
    path = resolve_weights(spec).files[0]
    path.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(DamagedStore, match="is not the file of 'mobilenetv3-small-tv'") as problem:
        resolve_weights(spec)
    assert problem.value.exit_code == 4 and "models pull mobilenetv3-small-tv" in problem.value.hint


def test_a_server_that_is_not_there_ends_with_the_line_that_fetches_the_weights(server):
    spec = replace(SMALL, weights=(WeightsFile(url="http://127.0.0.1:9/net.pth"),))
    with pytest.raises(NotHere, match="cannot be reached") as problem:
        resolve_weights(spec)
    assert "`embedctl models pull mobilenetv3-small-tv`" in problem.value.hint


def test_offline_never_asks_the_network(server):
    with pytest.raises(NotHere, match="are not on this computer: net.pth"):
        resolve_weights(served(server), offline=True)
    assert server.ranges == []


def test_a_hub_file_that_is_not_cached_is_not_here(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(NotHere) as problem:
        resolve_weights(find("vitb16-in1k"), offline=True)
    assert "`embedctl models pull vitb16-in1k`" in problem.value.hint


def test_each_attempt_of_the_hubs_client_is_its_own_business(monkeypatch, tmp_path, capfd):
    def refuse(*_, **__):
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    with pytest.raises(NotHere, match="hf://a/b/w.safetensors cannot be fetched: no route"):
        fetch.fetch(WeightsFile(hub="a/b", filename="w.safetensors"))
    assert "Retry" not in capfd.readouterr().err


def test_weights_without_a_fixed_address_have_to_be_given():
    with pytest.raises(NotHere, match="no address of the weights of 'synclr-vitb16' is known") as problem:
        resolve_weights(find("synclr-vitb16"))
    assert "--weights FILE" in problem.value.hint


def test_a_folder_filled_by_pull_serves_as_weights(server, tmp_path):
    spec = served(server, sha256=SHA)
    assert pull(spec, tmp_path / "carried") == (tmp_path / "carried/mobilenetv3-small-tv/net.pth",)
    assert resolve_weights(spec, str(tmp_path / "carried"), offline=True).label == f"sha256:{SHA}"
    (tmp_path / "carried/mobilenetv3-small-tv/net.pth").unlink()
    with pytest.raises(NotHere):
        resolve_weights(spec, str(tmp_path / "carried"), offline=True)
    (tmp_path / "carried/mobilenetv3-small-tv").rmdir()
    with pytest.raises(NotHere, match="no '.*carried/mobilenetv3-small-tv'") as problem:
        resolve_weights(spec, str(tmp_path / "carried"), offline=True)
    assert "models pull mobilenetv3-small-tv --to" in problem.value.hint


def test_a_pull_that_brings_nothing_leaves_no_folder_and_wants_one(server, tmp_path):
    with pytest.raises(DamagedStore):
        pull(served(server, sha256="0" * 64), tmp_path / "carried")
    assert not any((tmp_path / "carried").iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(EmbedctlError, match="is a file"):
        pull(served(server), tmp_path / "file")


def test_a_file_known_by_gits_digest_is_checked_wherever_it_comes_from(server, tmp_path, monkeypatch):
    (tmp_path / "net.pth").write_bytes(CONTENT)
    blob = subprocess.run(
        ["git", "hash-object", tmp_path / "net.pth"], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert pull(served(server, git_blob=blob), tmp_path / "carried")
    other = served(server, git_blob="0" * 40)
    with pytest.raises(DamagedStore, match="git blob"):
        resolve_weights(other, str(tmp_path / "carried"))
    with pytest.raises(DamagedStore, match="git blob"):
        resolve_weights(other)


@pytest.mark.parametrize("text", ["random:", "random:x", "random:-1", "random:²", "nowhere.pth"])
def test_weights_that_mean_nothing_are_refused(text):
    with pytest.raises(EmbedctlError):
        resolve_weights(SMALL, text)


# What servers do --------------------------------------------------------------------------------------------------


def cached(tmp_path):
    return sorted(file.name for file in (tmp_path / "torch/hub/checkpoints").glob("net*"))


def test_a_connection_that_breaks_in_the_middle_of_a_piece_continues_as_well(server):
    server.chunked, server.hiccups = True, 2
    assert resolve_weights(served(server, sha256=SHA)).files[0].read_bytes() == CONTENT
    assert len(server.ranges) == 3


def test_without_a_digest_a_part_continues_only_the_version_it_is_of(server, tmp_path):
    """Half of the old file and half of the new one would be a whole file that nothing tells from a good one."""
    server.hiccups = 9
    with pytest.raises(NotHere):
        resolve_weights(served(server))
    assert cached(tmp_path) == ["net.pth.part", "net.pth.part.version"]
    server.hiccups, server.body, server.etag = 0, CONTENT[::-1], '"2"'
    assert resolve_weights(served(server)).files[0].read_bytes() == CONTENT[::-1]
    assert cached(tmp_path) == ["net.pth"]


def test_without_a_digest_and_a_version_an_interrupted_file_begins_anew(server, tmp_path):
    folder = tmp_path / "torch/hub/checkpoints"
    folder.mkdir(parents=True)
    (folder / "net.pth.part").write_bytes(b"of long ago")
    assert resolve_weights(served(server)).files[0].read_bytes() == CONTENT and server.ranges == [""]


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_file_that_is_gone_ends_in_the_servers_words_and_the_line_that_fetches_it(server, tmp_path, status):
    server.status = status
    with pytest.raises(NotHere, match=f"net.pth answers {status}") as problem:
        resolve_weights(served(server))
    assert "`embedctl models pull mobilenetv3-small-tv`" in problem.value.hint
    assert len(server.ranges) == 1 and not cached(tmp_path)


def test_a_busy_server_is_asked_again_and_not_for_ever(server):
    server.busy = 2
    assert resolve_weights(served(server, sha256=SHA)).label == f"sha256:{SHA}"
    server.busy, spec = 99, replace(SMALL, weights=(WeightsFile(url=server.url.replace("net", "other")),))
    with pytest.raises(NotHere, match="answers 503"):
        resolve_weights(spec)
    assert len(server.ranges) == 3 + fetch.ATTEMPTS


def test_a_redirect_is_followed_with_the_range(server, tmp_path):
    server.moved, server.hiccups = "/elsewhere/blob", 1
    weights = resolve_weights(served(server, sha256=SHA))
    assert weights.files[0].read_bytes() == CONTENT and weights.files[0].name == "net.pth"
    assert server.ranges == ["", f"bytes={len(CONTENT) // 3}-"]


@pytest.mark.parametrize("name", ["net.zip", "net.npz", "net.pth"])
def test_a_zip_without_its_end_never_gets_its_name(server, tmp_path, name):
    np.savez(tmp_path / "whole.npz", np.arange(1000))
    server.body = (tmp_path / "whole.npz").read_bytes()[:-30]
    with pytest.raises(DamagedStore, match="sent a zip without its end"):
        resolve_weights(replace(SMALL, weights=(WeightsFile(url=server.url.replace("net.pth", name)),)))
    assert not cached(tmp_path)


# Places and switches ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", [True, False])
def test_hf_hub_offline_means_offline_for_every_file(server, monkeypatch, url):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    spec = served(server) if url else find("vitb16-in1k")
    for ask in (resolve_weights, pull):
        with pytest.raises(NotHere, match="HF_HUB_OFFLINE is set"):
            ask(spec)
    assert server.ranges == []


def test_what_lies_in_the_hubs_cache_is_found_hashed_and_named_by_its_commit(tmp_path):
    """In a process of its own: the hub's client reads its variables when it is imported."""
    folder = tmp_path / "hf/hub/models--timm--vit_base_patch16_224.augreg_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("c0ffee")
    (folder / "snapshots/c0ffee").mkdir(parents=True)
    (folder / "snapshots/c0ffee/pytorch_model.bin").write_bytes(b"old")
    code = (
        "from pipelines.encoders.registry import find; from pipelines.encoders.weights import resolve_weights\n"
        "found = resolve_weights(find('vitb16-in1k'), offline=True); print(found.label, found.source)"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(ROOT)}
    environment = {name: value for name, value in environment.items() if name not in ("HF_HUB_CACHE", "HF_HUB_OFFLINE")}

    def asked():
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert not done.returncode, done.stderr
        return done.stdout.split()

    source = "hf://timm/vit_base_patch16_224.augreg_in1k@c0ffee/"
    assert asked() == [f"sha256:{hashlib.sha256(b'old').hexdigest()}", f"{source}pytorch_model.bin"]
    (folder / "snapshots/c0ffee/model.safetensors").write_bytes(b"new")  # preferred
    assert asked() == [f"sha256:{hashlib.sha256(b'new').hexdigest()}", f"{source}model.safetensors"]


def test_a_pinned_file_is_taken_from_its_commit_or_from_a_later_one_that_holds_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    folder, sha256 = tmp_path / "models--a--b", "5ec1"
    for commit, blob in {"early": sha256, "late": sha256, "other": "0dd"}.items():
        (folder / "snapshots" / commit).mkdir(parents=True)
        (folder / "blobs").mkdir(exist_ok=True)
        (folder / "blobs" / blob).write_bytes(b"")
        (folder / "snapshots" / commit / "w.safetensors").symlink_to(f"../../blobs/{blob}")
    (folder / "refs").mkdir()

    def found(main, **known):
        (folder / "refs/main").write_text(main)
        path = fetch.here(WeightsFile(hub="a/b", filename="w.safetensors", **known))
        return path and path.parent.name

    assert found("late", revision="early") == "early"
    assert found("late", revision="gone", sha256=sha256) == "late"
    assert found("other", revision="gone", sha256=sha256) is None
    assert found("late", revision="gone") is None


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize("command", [("extract", "--model"), ("models", "doctor")])
def test_offline_without_weights_is_code_6_and_the_line_to_type(server, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").touch()
    result = run(*command, "resnet50-tv", "--offline")
    assert result.exit_code == 6 and not result.stdout
    assert result.stderr.splitlines()[-2:] == [  # on a busy computer a line of progress comes before them
        "error: the weights of 'resnet50-tv' are not on this computer: resnet50-0676ba61.pth",
        "hint:  run `embedctl models pull resnet50-tv` where there is internet, or try --weights random:0",
    ]


def test_pull_ends_in_code_6_where_the_file_is_gone_and_4_where_it_is_another(server, monkeypatch):
    import pipelines.encoders.registry as cards

    known = {"sha256": "00000000"}
    monkeypatch.setattr(cards, "find", lambda id_: served(server, **known))
    result = run("models", "pull", SMALL.id)
    assert result.exit_code == 4 and "expected 00000000" in result.stderr
    server.status = 404
    result = run("models", "pull", SMALL.id)
    assert result.exit_code == 6 and "answers 404" in result.stderr and "hint:" in result.stderr


def test_offline_every_encoder_that_lacks_its_weights_is_named_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").touch()
    result = run("extract", "--model", "harmonized-levit,hog,glocal-resnet18,resnet50-tv", "--offline")
    lacking = ["glocal-resnet18", "harmonized-levit", "resnet50-tv", "resnet18-tv"]
    error, hint = result.stderr.splitlines()[-2:]
    assert result.exit_code == 6
    assert error == f"error: the weights of 4 encoders are not on this computer: {', '.join(lacking)}"
    assert f"`embedctl models pull {' '.join(lacking)}`" in hint
