"""The rewritten NICE is the published one, every brain encoder has its published size, and keeps to the contract."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pipelines.train.brain_encoders import BRAIN_ENCODERS, FOR_VOXELS, brain_encoder, canonical, check_reads, prepare
from pipelines.train.brain_encoders.eegproject import EEGProject
from pipelines.train.brain_encoders.elsewhere import trust
from pipelines.train.brain_encoders.nice import NICE
from pipelines.train.brain_encoders.suite import BrainEncoderSuite
from stores.errors import EmbedctlError, NotHere, UnknownName
from tests.train.published_nice import PublishedNICE


def copy_parameters(source: PublishedNICE, target: NICE, n_chans: int) -> None:
    """Give the rewritten form the parameters of the published one."""
    spatial = source.tsconv[4].weight  # (out, in, n_chans, 1)
    pairs = [
        (target.temporal.weight, source.tsconv[0].weight.reshape(40, 25)),
        (target.temporal.bias, source.tsconv[0].bias),
        (target.spatial.weight, spatial[..., 0].transpose(1, 2).reshape(40, n_chans * 40)),
        (target.spatial.bias, source.tsconv[4].bias),
        (target.mix.weight, source.projection.weight.reshape(40, 40)),
        (target.mix.bias, source.projection.bias),
    ]
    with torch.no_grad():
        for mine, theirs in pairs:
            mine.copy_(theirs)
    target.temporal_norm.load_state_dict(source.tsconv[2].state_dict())
    target.spatial_norm.load_state_dict(source.tsconv[5].state_dict())
    target.head.project.load_state_dict(source.linear.state_dict())
    target.head.residual.load_state_dict(source.residual.state_dict())
    target.head.norm.load_state_dict(source.norm.state_dict())


def pair(n_chans, n_times, dim, dtype=torch.float32):
    torch.manual_seed(0)
    published = PublishedNICE(n_chans, n_times, dim)
    for norm in (published.tsconv[2], published.tsconv[5]):  # not the trivial statistics and affine maps
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    rewritten = NICE(n_chans, n_times, dim)
    copy_parameters(published, rewritten, n_chans)
    for module in (*published.modules(), *rewritten.modules()):
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # the two draw different masks
    return published.to(dtype), rewritten.to(dtype)


SHAPES = [(63, 250, 64), (17, 250, 32), (271, 201, 16), (5, 75, 8), (3, 133, 8)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_the_rewritten_nice_is_the_published_function(shape, training, dtype, tolerance):
    published, rewritten = pair(*shape, dtype)
    published.train(training), rewritten.train(training)
    x = torch.randn(6, *shape[:2], dtype=dtype) + 0.5
    assert (published(x) - rewritten(NICE.prepare(x))).abs().max() < tolerance


def test_the_rewritten_nice_has_the_published_gradients_and_running_statistics():
    published, rewritten = pair(17, 250, 32)
    published.train(), rewritten.train()
    x, goal = torch.randn(16, 17, 250), torch.randn(16, 32)
    ((published(x) - goal) ** 2).mean().backward()
    ((rewritten(NICE.prepare(x)) - goal) ** 2).mean().backward()
    expected = NICE(17, 250, 32)
    with torch.no_grad():  # carry the published gradients through the same change of layout as the weights
        for parameter in published.parameters():
            parameter.copy_(parameter.grad)
    copy_parameters(published, expected, 17)
    for (name, mine), theirs in zip(rewritten.named_parameters(), expected.parameters(), strict=True):
        assert (mine.grad - theirs).abs().max() < 1e-5, name
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        for mine, theirs in ((rewritten.temporal_norm, 2), (rewritten.spatial_norm, 5)):
            assert torch.allclose(getattr(mine, name), getattr(published.tsconv[theirs], name), atol=1e-5), name


@pytest.mark.parametrize("dim, n_parameters", [(768, 1_802_496), (1024, 2_630_912)])
def test_nice_has_the_published_number_of_parameters(dim, n_parameters):
    assert sum(p.numel() for p in NICE(63, 250, dim).parameters()) == n_parameters
    assert sum(p.numel() for p in PublishedNICE(63, 250, dim).parameters()) == n_parameters
    head = NICE(63, 250, dim).head
    assert n_parameters - sum(p.numel() for p in head.parameters()) == 103_680


def test_nice_on_meg_has_1040_features():
    assert NICE(271, 201, 8).head.project.in_features == 1040


def test_eegproject_has_the_published_number_of_parameters():
    assert sum(p.numel() for p in EEGProject(17, 250, 1024).parameters()) == 5_404_672


def n_parameters(name, *shape):
    with torch.device("meta"):  # sizes without numbers
        return sum(p.numel() for p in brain_encoder(name)(*shape).parameters())


@pytest.mark.parametrize(
    "name, dim, millions",
    [
        *(("nice+linear", dim, m) for dim, m in [(512, 1.37), (768, 2.39), (1024, 3.68), (1792, 9.12)]),
        *(("atm-s+linear", dim, m) for dim, m in [(512, 1.81), (768, 2.84), (1792, 9.56)]),
        ("eegnet", 768, 0.09),
    ],
)
def test_what_was_published_in_millions_of_parameters_has_as_many(name, dim, millions):
    assert round(n_parameters(name, 63, 250, dim) / 1e6, 2) == millions


@pytest.mark.parametrize("dim, millions", [(768, 2.25), (1024, 3.08)])
def test_atm_s_lacks_the_tokens_of_other_subjects_alone(dim, millions):
    other_tokens = 10 * 250  # nine more subjects, and a shared one
    assert round((n_parameters("atm-s", 63, 250, dim) + other_tokens) / 1e6, 2) == millions


def test_eegnet_has_2168_parameters_before_its_linear_map_and_112_features():
    model = brain_encoder("eegnet")(63, 250, 24)
    assert sum(p.numel() for p in model.filters.parameters()) == 2168
    assert model.project.in_features == 112


def test_eegconformer_has_the_sizes_of_the_paper():
    model = brain_encoder("eegconformer")(63, 250, 768)
    assert model.classify[0].in_features == 1760
    filters = 40 * 10 + 40 + 40 * 40 * 63 + 40 + 2 * 40 + 40 * 40 + 40
    block = 4 * (40 * 40 + 40) + 40 * 160 + 160 + 160 * 40 + 40 + 2 * 80
    head = 1760 * 256 + 256 + 256 * 32 + 32 + 32 * 1024 + 1024
    assert sum(p.numel() for p in model.parameters()) == filters + 2 * block + head + 1024 * 768 + 768


@pytest.mark.parametrize("n_voxels, dim, millions", [(15724, 768, 135), (13039, 512, 123)])
def test_the_brain_mlp_is_as_large_as_that_of_the_paper(n_voxels, dim, millions):
    assert round(n_parameters("brain-mlp", n_voxels, 1, dim) / 1e6) == millions
    assert n_parameters("residual-mlp", n_voxels, 1, dim) < 22e6


def test_the_attention_of_eegconformer_is_that_of_torch():
    block = brain_encoder("eegconformer")(7, 100, 8).blocks[0].eval()
    theirs = nn.MultiheadAttention(40, 1, batch_first=True)
    x = torch.randn(3, 11, 40)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([block.query.weight, block.key.weight, block.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([block.query.bias, block.key.bias, block.value.bias]))
        theirs.out_proj.load_state_dict(block.out.state_dict())
        y = block.norm(x)
        y = x + theirs(y, y, y)[0]
        assert torch.allclose(block(x), y + block.feed(block.feed_norm(y)), atol=1e-5)


def test_the_attention_of_atm_s_is_that_of_torch_and_its_last_channel_gives_no_token():
    model = brain_encoder("atm-s")(7, 100, 8).eval()
    theirs = nn.MultiheadAttention(100, 4, batch_first=True)  # 100 samples divide by 4 heads
    tokens = torch.randn(3, 8, 100)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([model.query.weight, model.key.weight, model.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([model.query.bias, model.key.bias, model.value.bias]))
        theirs.out_proj.load_state_dict(model.out.state_dict())
        assert torch.allclose(model._attend(tokens), theirs(tokens, tokens, tokens)[0], atol=1e-5)
        for parameter in model.out.parameters():  # without attention the last channel is not heard
            parameter.zero_()
        x = torch.randn(2, 7, 100)
        other = x.clone()
        other[:, -1] += 1
        assert torch.equal(model(x), model(other))
        other[:, -2] += 1
        assert not torch.equal(model(x), model(other))


class Suite(BrainEncoderSuite):
    n_times = 80


for _name in BRAIN_ENCODERS:
    if _name != "brain-mlp":  # as `residual-mlp`, but for 300 MB
        globals()[f"Test_{_name}"] = type(
            f"Test_{_name}", (Suite,), {"kind": brain_encoder(_name)} | ({"n_times": 1} if _name in FOR_VOXELS else {})
        )


@pytest.mark.parametrize(
    "fault, said",
    [
        ("x * torch.rand(1) + 0 * self.w.sum()", "test_evaluation_draws_nothing"),
        ("(x - x.mean(dim=0)) * self.w.sum()", "test_an_embedding_does_not_depend_on_the_other_epochs"),
        ("x", "test_every_parameter_takes_part"),
        ("torch.zeros_like(x) * self.w.sum()", "test_different_epochs_get_different_embeddings"),
    ],
)
def test_the_suite_notices_a_brain_encoder_that_breaks_the_contract(fault, said):
    class Broken(nn.Module):
        def __init__(self, n_chans, n_times, dim):
            super().__init__()
            self.w = nn.Parameter(torch.ones(dim))

        def forward(self, x):
            return eval(fault, {"x": x[:, 0, :12], "torch": torch, "self": self})

    with pytest.raises((AssertionError, RuntimeError)):
        getattr(type("TestBroken", (BrainEncoderSuite,), {"kind": Broken})(), said)()


MINE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, n_chans, n_times, dim):
        super().__init__()
        self.linear = nn.Linear(n_chans * n_times, dim)

    def forward(self, x):
        return self.linear(x.flatten(1))

def helper():
    pass
"""


def test_a_class_in_a_file_of_ones_own_is_a_brain_encoder(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    trust(f"{tmp_path}/mine.py:Net")
    kind = brain_encoder(f"{tmp_path}/mine.py:Net")
    assert kind(5, 20, 3)(torch.randn(2, 5, 20)).shape == (2, 3)
    check_reads(f"{tmp_path}/mine.py:Net", "fmri")
    assert canonical("Mine.py:Net") == "Mine.py:Net"


@pytest.mark.parametrize(
    "name, text, said",
    [
        ("mine.py:Net", None, "no file"),
        ("mine.py:Nett", MINE, "has no 'Nett'"),
        ("mine.py:helper", MINE, "is no torch.nn.Module"),
        ("mine.py:Net", "import nothing_of_that_name", "cannot be run: ModuleNotFoundError"),
        ("mine.py:Net", "def (", "cannot be run: SyntaxError"),
    ],
)
def test_a_file_of_ones_own_that_does_not_serve_is_two_lines(tmp_path, name, text, said):
    if text is not None:
        (tmp_path / "mine.py").write_text(text)
    trust(f"{tmp_path}/mine.py")
    with pytest.raises(EmbedctlError, match=said) as problem:
        check_reads(f"{tmp_path}/{name}", "eeg")
    assert problem.value.hint and "\n" not in f"{problem.value}{problem.value.hint}"


def test_without_braindecode_its_models_end_in_exit_code_6(monkeypatch):
    monkeypatch.setitem(sys.modules, "braindecode.models", None)
    with pytest.raises(NotHere, match="braindecode is not installed") as problem:
        check_reads("braindecode:EEGNet", "eeg")
    assert problem.value.exit_code == 6
    assert "braindecode" in problem.value.hint


def test_a_model_of_braindecode_is_built_by_its_own_argument_names(monkeypatch):
    class Model(nn.Module):
        def __init__(self, n_chans, n_outputs, n_times):
            super().__init__()
            if n_times < 10:
                raise ValueError("too short\nby far")
            self.linear = nn.Linear(n_chans * n_times, n_outputs)

        def forward(self, x):
            return self.linear(x.flatten(1))

    monkeypatch.setitem(sys.modules, "braindecode", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "braindecode.models", SimpleNamespace(Model=Model, version="1"))
    kind = brain_encoder("braindecode:Model")
    assert kind(5, 20, 3)(torch.randn(2, 5, 20)).shape == (2, 3)
    with pytest.raises(EmbedctlError, match="5 channels and 4 samples: ValueError: too short by far"):
        kind(5, 4, 3)
    with pytest.raises(UnknownName) as problem:
        brain_encoder("braindecode:Modle")
    assert problem.value.hint == "did you mean 'Model'?"


@pytest.mark.parametrize("name, shortest", [("eegnet", 32), ("eegconformer", 34), ("atm-s", 75)])
def test_epochs_too_short_for_a_brain_encoder_are_an_error(name, shortest):
    brain_encoder(name)(3, shortest, 8)
    with pytest.raises(EmbedctlError, match=f"{shortest} samples"):
        brain_encoder(name)(3, shortest - 1, 8)


@pytest.mark.parametrize("name", sorted(set(BRAIN_ENCODERS) - {"brain-mlp"}))
@pytest.mark.parametrize("n_chans, n_times, dim", [(63, 250, 24), (7, 100, 5), (271, 201, 16)])
def test_every_brain_encoder_handles_other_shapes(name, n_chans, n_times, dim):
    kind = brain_encoder(name)
    epochs = torch.randn(4, n_chans, n_times)
    z = kind(n_chans, n_times, dim)(prepare(kind, epochs))
    assert z.shape == (4, dim)
    assert torch.isfinite(z).all()


def test_epochs_too_short_for_nice_are_an_error():
    with pytest.raises(EmbedctlError, match="75 samples"):
        NICE(63, 74, 8)


def test_an_unknown_brain_encoder_is_an_error_with_a_suggestion():
    with pytest.raises(UnknownName) as problem:
        brain_encoder("niece")
    assert problem.value.hint == "did you mean 'nice'?"
