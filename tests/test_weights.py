"""Weights are the very file they should be, and fill every tensor of the network or none."""

import hashlib
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors.torch import save_file

from pipelines.encoders import fetch
from pipelines.encoders.build import build
from pipelines.encoders.registry import WeightsFile, find
from pipelines.encoders.torchvision_import import torchvision
from pipelines.encoders.weights import pull, read_tensors, resolve_weights
from stores.errors import DamagedStore, EmbedctlError, NotHere
from stores.names import EmbeddingName

CONTENT = bytes(range(256)) * 4096
SHA = hashlib.sha256(CONTENT).hexdigest()
SMALL = find("mobilenetv3-small-tv")


class Server(ThreadingHTTPServer):
    """Serves ``body`` with ranges; the first ``hiccups`` answers stop after a third of it."""

    def __init__(self, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.hiccups, self.ranges = body, 0, []
        self.url = f"http://127.0.0.1:{self.server_port}/some/net.pth"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        wanted = self.headers.get("Range", "")
        self.server.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-") or 0)
        body = self.server.body[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.server.hiccups -= 1
        self.wfile.write(body[: len(body) // 3] if self.server.hiccups >= 0 else body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(fetch.time, "sleep", lambda _: None)
    with Server(CONTENT) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
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


def test_weights_without_a_fixed_address_have_to_be_given():
    with pytest.raises(NotHere, match="nobody publishes the weights of 'synclr-vitb16'") as problem:
        resolve_weights(find("synclr-vitb16"))
    assert "--weights FILE" in problem.value.hint


def test_a_folder_filled_by_pull_serves_as_weights(server, tmp_path):
    spec = served(server, sha256=SHA)
    assert pull(spec, tmp_path / "carried") == (tmp_path / "carried/mobilenetv3-small-tv/net.pth",)
    assert resolve_weights(spec, str(tmp_path / "carried"), offline=True).label == f"sha256:{SHA}"
    (tmp_path / "carried/mobilenetv3-small-tv/net.pth").unlink()
    with pytest.raises(NotHere):
        resolve_weights(spec, str(tmp_path / "carried"), offline=True)


@pytest.mark.parametrize("text", ["random:", "random:x", "random:-1", "random:²", "nowhere.pth"])
def test_weights_that_mean_nothing_are_refused(text):
    with pytest.raises(EmbedctlError):
        resolve_weights(SMALL, text)


# ---- loading


@pytest.fixture(scope="module")
def trained() -> dict[str, torch.Tensor]:
    """The tensors of a network nobody could have drawn: running statistics are not those of a fresh one."""
    torch.manual_seed(11)
    tensors = torchvision.models.mobilenet_v3_small(weights=None).state_dict()
    return {name: t + 0.01 * torch.rand_like(t) if t.is_floating_point() else t for name, t in tensors.items()}


def features(**kwargs) -> torch.Tensor:
    encoder = build(SMALL, **kwargs)
    return encoder(torch.rand(2, 3, 224, 224, generator=torch.manual_seed(0)))[EmbeddingName(SMALL.id)]


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".wrapped.pth"])
def test_a_file_of_the_users_gives_the_network_it_was_saved_from(trained, tmp_path, suffix):
    path = tmp_path / f"mine{suffix}"
    if suffix == ".safetensors":
        save_file({name: t.contiguous() for name, t in trained.items()}, path)
    else:
        torch.save({"state_dict": trained, "epoch": 3} if "wrapped" in suffix else trained, path)
    model = torchvision.models.mobilenet_v3_small(weights=None).eval()
    model.load_state_dict(trained)
    with torch.no_grad():
        expected = model.avgpool(model.features(torch.rand(2, 3, 224, 224, generator=torch.manual_seed(0)))).flatten(1)
    assert torch.equal(features(weights=str(path)), expected)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda t: t.pop("features.1.block.0.0.weight"), r"1 missing \(features.1.block.0.0.weight\)"),
        (lambda t: t.update(more=torch.zeros(1)), r"1 left over \(more\)"),
        (lambda t: t.update({"classifier.3.bias": torch.zeros(5)}), r"1 misshapen \(classifier.3.bias \(5,\), not"),
    ],
)
def test_a_partial_load_is_an_error_that_names_the_tensors(trained, tmp_path, spoil, what):
    tensors = dict(trained)
    spoil(tensors)
    torch.save(tensors, tmp_path / "odd.pth")
    with pytest.raises(EmbedctlError, match=what):
        build(SMALL, weights=str(tmp_path / "odd.pth"))


@pytest.mark.parametrize(
    ("content", "what"), [(b"<html>please sign in</html>", "it is a web page"), (b"PK\x03\x04 cut", "cannot be read")]
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_holds_no_tensors_is_named(tmp_path, content, what, suffix):
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    with pytest.raises(EmbedctlError, match=what):
        build(SMALL, weights=str(path))


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    class Malice:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"a": Malice()}, tmp_path / "net.pth")
    with pytest.raises(EmbedctlError, match="cannot be read as tensors"):
        read_tensors(tmp_path / "net.pth")


def test_tensors_under_a_prefix_are_taken_and_the_rest_is_left(trained, tmp_path):
    wrapped = {f"module.model.{name}": t for name, t in trained.items()} | {"module.attacker.step": torch.zeros(1)}
    torch.save({"model": wrapped, "epoch": 3}, tmp_path / "robust.ckpt")
    spec = replace(SMALL, model={**SMALL.model, "tensors_under": "module.model."})
    torch.save(trained, tmp_path / "plain.pth")
    x = torch.rand(1, 3, 224, 224)
    ours, plain = (build(s, weights=str(tmp_path / f))(x) for s, f in ((spec, "robust.ckpt"), (SMALL, "plain.pth")))
    assert torch.equal(ours[EmbeddingName(SMALL.id)], plain[EmbeddingName(SMALL.id)])


SHALLOW_VIT = replace(find("vitb16-in1k"), model={**find("vitb16-in1k").model, "depth": 1})


def test_timm_weights_are_loaded_with_their_classifier_and_used_without(tmp_path):
    import timm

    torch.manual_seed(5)
    model = timm.create_model(SHALLOW_VIT.model["name"], depth=1).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    x = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(x), pre_logits=True)
    rows = build(SHALLOW_VIT, weights=str(tmp_path / "model.safetensors"))(x)
    assert torch.equal(rows[EmbeddingName("vitb16-in1k")], expected)
    tensors = model.state_dict()
    del tensors["blocks.0.attn.qkv.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(EmbedctlError, match="does not fit .*blocks.0.attn.qkv.weight"):
        build(SHALLOW_VIT, weights=str(tmp_path / "model.safetensors"))


TOWERS = {
    "vision_cfg": {"image_size": 224, "width": 64, "head_width": 32, "patch_size": 32, "layers": 1},
    "text_cfg": {"context_length": 77, "vocab_size": 100, "width": 32, "heads": 1, "layers": 1},
}


@pytest.fixture(scope="module")
def tiny_clip():
    import open_clip

    torch.manual_seed(5)
    return open_clip.create_model("ViT-B-32-quickgelu", **TOWERS).eval()


def tiny_spec(**changes):
    spec = find("clip-vitb32")
    return replace(spec, model={**spec.model, **TOWERS}, **changes)


def test_open_clip_weights_fill_both_towers_strictly_and_the_image_tower_is_used(tiny_clip, tmp_path):
    torch.save({"state_dict": {f"module.{n}": t for n, t in tiny_clip.state_dict().items()}}, tmp_path / "clip.pt")
    x = torch.rand(2, 3, 224, 224)
    rows = build(tiny_spec(weights=()), weights=str(tmp_path / "clip.pt"))(x)
    with torch.no_grad():
        assert torch.equal(rows[EmbeddingName("clip-vitb32")], tiny_clip.encode_image(x))


@pytest.mark.filterwarnings("ignore")  # of the tracer
def test_torchscript_gives_its_tensors_without_being_run(tiny_clip, tmp_path):
    """OpenAI's files: half precision, and three numbers among the tensors."""

    class Published(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name, child in tiny_clip.named_children():
                self.add_module(name, child)
            for name, parameter in tiny_clip.named_parameters(recurse=False):
                self.register_parameter(name, parameter)
            self.register_buffer("input_resolution", torch.tensor(224))

        def forward(self, x):
            return self.visual(x)

    path = tmp_path / "ViT-B-32.pt"
    torch.jit.trace(Published().eval(), torch.rand(1, 3, 224, 224), check_trace=False).save(str(path))
    x = torch.rand(1, 3, 224, 224)
    rows = build(tiny_spec(weights=()), weights=str(path))(x)
    with torch.no_grad():
        assert torch.equal(rows[EmbeddingName("clip-vitb32")], tiny_clip.encode_image(x))
    expected = torch.jit.load(str(path)).state_dict()
    read = read_tensors(path)
    assert read.keys() == expected.keys() and all(torch.equal(read[name], expected[name]) for name in read)


@pytest.mark.filterwarnings("ignore")
def test_torchscript_that_mentions_anything_else_is_refused(tmp_path):
    path = tmp_path / "net.pt"
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    root = next(name for name in files if name.endswith("data.pkl")).removesuffix("data.pkl")
    files[f"{root}data.pkl"] = b"cos\nsystem\n(S'true'\ntR."
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with pytest.raises(EmbedctlError, match="no business with os.system"):
        read_tensors(path)
