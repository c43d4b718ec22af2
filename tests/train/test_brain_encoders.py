"""The rewritten NICE is the published one, and both brain encoders have the published sizes."""

import pytest
import torch
from torch import nn

from pipelines.train.brain_encoders import BRAIN_ENCODERS, brain_encoder, prepare
from pipelines.train.brain_encoders.eegproject import EEGProject
from pipelines.train.brain_encoders.nice import NICE
from stores.errors import EmbedctlError, UnknownName
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


@pytest.mark.parametrize("name", BRAIN_ENCODERS)
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
