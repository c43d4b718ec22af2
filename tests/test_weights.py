"""Weights fill every tensor of the network or none, and reading them runs no code."""

import ast
import pickle
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipelines.encoders import open_clip_family
from pipelines.encoders.build import build
from pipelines.encoders.checkpoint import Checkpoint
from pipelines.encoders.registry import find, registry
from pipelines.encoders.torchvision_import import torchvision
from pipelines.encoders.weights import read_tensors
from stores.errors import EmbedctlError
from stores.names import EmbeddingName

SMALL = find("mobilenetv3-small-tv")


@pytest.fixture(scope="module")
def trained() -> dict[str, torch.Tensor]:
    """The tensors of a network nobody could have drawn: running statistics are not those of a fresh one."""
    torch.manual_seed(11)
    tensors = torchvision.models.mobilenet_v3_small(weights=None).state_dict()
    return {name: t + 0.01 * torch.rand_like(t) if t.is_floating_point() else t for name, t in tensors.items()}


def features(**kwargs) -> torch.Tensor:
    encoder = build(SMALL, **kwargs)
    return encoder(torch.rand(2, 3, 224, 224, generator=torch.manual_seed(0)))[EmbeddingName(SMALL.id)]


def nest(n: int) -> bytes:
    """Return a pickle of a dictionary whose one key is made of tuples, each the one before twice."""
    tuples = b"".join(b"h" + bytes([i, 104, i]) + b"\x86q" + bytes([i + 1]) for i in range(n))
    return b"\x80\x02X\x01\x00\x00\x00xq\x00" + tuples + b"}h" + bytes([n]) + b"K\x01s."


@pytest.mark.parametrize("kind", ["zip", "zip of TorchScript", "legacy", "inside"])
def test_a_key_that_would_take_for_ever_to_hash_is_refused(tmp_path, kind):
    """The file weighs a kilobyte; its key, written out, has 2^200 letters."""
    file = tmp_path / ("mine.zip" if kind == "inside" else "mine.pt")
    torch.save({"x": torch.zeros(2)}, tmp_path / "plain.pt", _use_new_zipfile_serialization=kind != "legacy")
    if kind == "legacy":
        saved = (tmp_path / "plain.pt").read_bytes()
        before = pickle.dumps({"protocol_version": 1001}, protocol=2)
        magic = saved[: saved.index(b".") + 1]
        file.write_bytes(magic + pickle.dumps(1001, protocol=2) + before + nest(200))
    else:
        with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(tmp_path / "nest.pt", "w") as out:
            for member in plain.infolist():
                out.writestr(member, nest(200) if member.filename.endswith("data.pkl") else plain.read(member))
            if kind == "zip of TorchScript":
                out.writestr("plain/constants.pkl", b"")
        if kind == "inside":
            with zipfile.ZipFile(file, "w") as outer:
                outer.write(tmp_path / "nest.pt", "nest.pt")
        else:
            (tmp_path / "nest.pt").rename(file)
    with pytest.raises(EmbedctlError, match="cannot be read as tensors"):
        Checkpoint([file]).tensors("nest.pt" if kind == "inside" else file.name)


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
        (lambda t: t.update({"classifier.3.bias": 3}), r"1 misshapen \(classifier.3.bias is a int, not"),
        (lambda t: t.update({"student": dict(t)}), r"1 left over \(student\)"),
        (lambda t: t.update({"classifier.3.bias": t["classifier.3.bias"].long()}), "is torch.int64, not torch.float32"),
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

    torch.save({"a": Malice()}, tmp_path / "net.pth", pickle_protocol=4)  # of which torch would warn
    with warnings.catch_warnings(), pytest.raises(EmbedctlError, match="as tensors: it needs code to be read"):
        warnings.simplefilter("error")
        read_tensors(tmp_path / "net.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Malice()))
    with pytest.raises(EmbedctlError, match="it is cut short, or torch.save did not write it"):
        read_tensors(tmp_path / "raw.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(EmbedctlError, match="holds a list, not tensors by name"):
        read_tensors(tmp_path / "list.pth")


def test_tensors_under_a_prefix_are_taken_and_the_rest_is_left(trained, tmp_path):
    wrapped = {f"module.model.{name}": t for name, t in trained.items()} | {"module.attacker.step": torch.zeros(1)}
    torch.save({"model": wrapped, "epoch": 3}, tmp_path / "robust.ckpt")
    spec = replace(SMALL, model={**SMALL.model, "tensors_under": "module.model."})
    torch.save(trained, tmp_path / "plain.pth")
    x = torch.rand(1, 3, 224, 224)
    ours, plain = (build(s, weights=str(tmp_path / f))(x) for s, f in ((spec, "robust.ckpt"), (SMALL, "plain.pth")))
    assert torch.equal(ours[EmbeddingName(SMALL.id)], plain[EmbeddingName(SMALL.id)])


SHALLOW_VIT = replace(find("vitb16-in1k"), model={**find("vitb16-in1k").model, "depth": 1})


def test_a_network_with_a_classifier_of_ones_own_is_loaded_whole_or_not_at_all(tmp_path):
    """timm itself drops strictness where the number of classes is not the published one."""
    import timm

    model = {"name": "resnet10t.c3_in1k", "num_classes": 10}
    spec = replace(find("resnet50-a1"), id="mine", model=model, dim=512)
    tensors = timm.create_model("resnet10t", num_classes=10).state_dict()
    save_file(tensors, tmp_path / "whole.safetensors")
    save_file({name: t for name, t in tensors.items() if "layer" not in name}, tmp_path / "part.safetensors")
    assert build(spec, weights=str(tmp_path / "whole.safetensors")).dims == {EmbeddingName("mine"): 512}
    with pytest.raises(EmbedctlError, match="part.safetensors does not fit resnet10t.*Missing key"):
        build(spec, weights=str(tmp_path / "part.safetensors"))
    assert build(spec, weights="random:0", device="meta").dims == {EmbeddingName("mine"): 512}


@pytest.mark.parametrize(
    ("id_", "model"),
    [
        ("resnet18-tv", {}),
        ("resnet18-tv", {"name": "resnet19"}),
        ("vitb16-in1k", {"name": "vit_basis"}),
        ("siglip-vitb16", {"name": "ViT-B-33"}),
        ("cornet-s", {"name": "cornet-x"}),
        ("vitb16-in1k", {"name": "vit_base_patch16_224", "depht": 3}),
    ],
)
def test_a_table_that_the_library_cannot_build_is_a_named_error(id_, model):
    with pytest.raises(EmbedctlError, match=f"'{id_}' cannot be built as its table says") as problem:
        build(replace(find(id_), model=model), weights="random:0", device="meta")
    assert "\n" not in str(problem.value) and f"models show {id_}" in problem.value.hint


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


def test_weights_of_the_image_tower_alone_fill_it_and_nothing_else_does(tiny_clip, tmp_path):
    spec = tiny_spec(weights=())
    spec = replace(spec, model={**spec.model, "image_tower_alone": True})
    torch.save(tiny_clip.visual.state_dict(), tmp_path / "tower.pt")
    x = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        rows = build(spec, weights=str(tmp_path / "tower.pt"))(x)[EmbeddingName("clip-vitb32")]
        assert torch.equal(rows, tiny_clip.encode_image(x))
    torch.save(tiny_clip.state_dict(), tmp_path / "both.pt")
    with pytest.raises(EmbedctlError, match=r"both.pt does not fit: \d+ missing .*left over"):
        build(spec, weights=str(tmp_path / "both.pt"))


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


def test_nothing_here_reads_a_file_in_a_way_that_runs_its_code():
    """Pickles, compiled programs and torch.hub's repositories are never executed, whoever published them."""
    forbidden = {"hub", "jit"}  # torch.hub.load, torch.jit.load
    for path in (Path(__file__).parent.parent / "pipelines").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            switches = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert not (called.startswith("torch.") and forbidden & set(called.split("."))), path.name
            assert called not in ("pickle.load", "pickle.loads", "eval"), path.name
            # Code of the user's own, and only what the command line names: see test_code_of_ones_own.py.
            assert called != "exec" or path.name == "elsewhere.py", path.name
            assert called.endswith("save") or switches.get("allow_pickle", "False") == "False", path.name
            assert switches.get("trust_remote_code", "False") == "False", path.name
            if called == "torch.load":
                assert switches.get("weights_only") == "True", path.name


@pytest.mark.slow
def test_every_timm_row_is_loaded_strictly(monkeypatch):
    """timm takes a partial load where an architecture says so: none of ours may be one of these."""
    import timm

    class Seen(Exception):
        pass

    def seen(*_, strict=True, **__):
        raise Seen(strict)

    monkeypatch.setattr("timm.models._builder.load_pretrained", seen)
    for spec in registry().values():
        if spec.family == "timm":
            arguments = {key: value for key, value in spec.model.items() if key not in ("name", "tensors_under")}
            with torch.device("meta"), pytest.raises(Seen) as found:
                timm.create_model(spec.model["name"], pretrained=True, **arguments)
            assert found.value.args == (True,), spec.id


def test_openais_file_given_by_hand_is_refused_under_a_name_with_another_activation():
    """Its digest stands in the address under which open_clip knows it."""
    (file,) = find("clip-vitb32").weights
    mine = replace(find("clip-vitb32"), id="mine", model={"name": "ViT-B-32"}, weights=())
    with pytest.raises(EmbedctlError, match="the weights of 'mine' were trained with QuickGELU"):
        open_clip_family._refuse_another_activation(mine, file.sha256)
    open_clip_family._refuse_another_activation(mine, 64 * "0")


@pytest.mark.parametrize(
    ("id_", "name"), [("clip-vitb32", "ViT-B-32"), ("openclip-vitb32-laion2b", "ViT-B-32-quickgelu")]
)
def test_a_table_whose_weights_were_trained_with_another_activation_is_refused(id_, name):
    """A third party's card, for example: open_clip itself would compute it, wrongly and in silence."""
    with pytest.raises(EmbedctlError, match="computes another activation"):
        build(replace(find(id_), model={"name": name}), weights="random:0", device="meta")
