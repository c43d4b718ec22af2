"""CORnets and VOneNets: the arithmetic of the papers on checkpoints in the published names."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d, batch_norm, conv2d, group_norm, linear, max_pool2d, relu

from pipelines.encoders.brain_like_family import ARCHITECTURES
from pipelines.encoders.build import build, resolve_layers
from pipelines.encoders.registry import find
from stores.errors import EmbedctlError
from stores.names import EmbeddingName

IDS = list(ARCHITECTURES)
LARGE = {"cornet-s", "vonenet-alexnet", "vonenet-cornets"}


def checkpoint(id_, path, *, counts=True):
    """What the authors' training scripts save: DataParallel's prefix, under ``state_dict``."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    with torch.device("meta"):
        shapes = ARCHITECTURES[id_].construct().state_dict()
    for name, like in shapes.items():
        if name.endswith("num_batches_tracked"):
            if counts:
                tensors[f"module.{name}"] = torch.tensor(7)
            continue
        fan_in = like[0].numel() if like.ndim > 1 else 1
        drawn = torch.empty(like.shape).normal_(0, fan_in**-0.5 if like.ndim > 1 else 0.2, generator=generator)
        tensors[f"module.{name}"] = drawn if like.ndim > 1 or name.endswith("mean") else drawn.abs() + 0.5
    torch.save({"state_dict": tensors, "epoch": 43}, path)
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def small(id_):
    spec = find(id_)
    return replace(spec, preprocessing=replace(spec.preprocessing, size=64, resize_to=64))


class Arithmetic:
    """Layers by name from plain tensors."""

    def __init__(self, tensors):
        self.w = tensors

    def conv(self, x, name, **how):
        return conv2d(x, self.w[f"{name}.weight"], self.w.get(f"{name}.bias"), **how)

    def group(self, x, name):
        return group_norm(x, 32, self.w[f"{name}.weight"], self.w[f"{name}.bias"], eps=1e-5)

    def norm(self, x, name):
        w = [self.w[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return batch_norm(x, *w, training=False, eps=1e-5)


def cornet_s(net, x, prefix=""):
    for area, times in (("V2", 2), ("V4", 4), ("IT", 2)):
        area = prefix + area
        x = net.conv(x, f"{area}.conv_input")
        for t in range(times):
            stride = 1 + (t == 0)
            around = x if t else net.norm(net.conv(x, f"{area}.skip", stride=2), f"{area}.norm_skip")
            y = relu(net.norm(net.conv(x, f"{area}.conv1"), f"{area}.norm1_{t}"))
            y = relu(net.norm(net.conv(y, f"{area}.conv2", stride=stride, padding=1), f"{area}.norm2_{t}"))
            x = relu(net.norm(net.conv(y, f"{area}.conv3"), f"{area}.norm3_{t}") + around)
    return x.mean((2, 3))


def cornet_z(net, x):
    for area in ("V1", "V2", "V4", "IT"):
        how = {"stride": 2, "padding": 3} if area == "V1" else {"padding": 1}
        x = max_pool2d(relu(net.conv(x, f"{area}.conv", **how)), 3, 2, 1)
    return x.mean((2, 3))


def cornet_r(net, x, delayed):
    """The state of each area at each of five steps, in a table."""
    areas, sides = ("V1", "V2", "V4", "IT"), (16, 8, 4, 2)
    state = {}
    for t in range(5):
        for i, area in enumerate(areas):
            if i == 0:
                source = x
            elif t == 0:
                source = None
            else:
                source = state[areas[i - 1], t - 1 if delayed else t]
            if source is None:
                entered = torch.zeros(len(x), 64 * 2**i, sides[i], sides[i])
            else:
                how = {"stride": 4, "padding": 3} if i == 0 else {"stride": 2, "padding": 1}
                entered = relu(net.group(net.conv(source, f"{area}.conv_input", **how), f"{area}.norm_input"))
            entered = entered + state.get((area, t - 1), 0)
            state[area, t] = relu(net.group(net.conv(entered, f"{area}.conv1", padding=1), f"{area}.norm1"))
    return state["IT", 4].mean((2, 3))


def resnet50(net, x):
    for stage, depth in enumerate((3, 4, 6, 3), 1):
        for i in range(depth):
            at, stride = f"model.layer{stage}.{i}", 2 if i == 0 and stage > 1 else 1
            y = relu(net.norm(net.conv(x, f"{at}.conv1"), f"{at}.bn1"))
            y = relu(net.norm(net.conv(y, f"{at}.conv2", stride=stride, padding=1), f"{at}.bn2"))
            if i == 0:
                x = net.norm(net.conv(x, f"{at}.downsample.0", stride=stride), f"{at}.downsample.1")
            x = relu(net.norm(net.conv(y, f"{at}.conv3"), f"{at}.bn3") + x)
    return x.mean((2, 3))


def alexnet(net, x):
    x = max_pool2d(relu(net.conv(x, "model.features.0", stride=2, padding=2)), 3, 2, 1)
    for index in (3, 5, 7):
        x = relu(net.conv(x, f"model.features.{index}", padding=1))
    x = adaptive_avg_pool2d(max_pool2d(x, 3, 2, 1), 7).flatten(1)
    fc6, fc7 = ((net.w[f"model.classifier.{i}.weight"], net.w[f"model.classifier.{i}.bias"]) for i in (1, 4))
    return linear(relu(linear(x, *fc6)), *fc7)


def by_the_paper(id_, tensors, x):
    net = Arithmetic(tensors)
    if id_ == "cornet-s":
        x = relu(net.norm(net.conv(x, "V1.conv1", stride=2, padding=3), "V1.norm1"))
        x = relu(net.norm(net.conv(max_pool2d(x, 3, 2, 1), "V1.conv2", padding=1), "V1.norm2"))
        return cornet_s(net, x)
    if id_ == "cornet-z":
        return cornet_z(net, x)
    if id_ in ("cornet-r", "cornet-rt"):
        return cornet_r(net, x, delayed=id_ == "cornet-rt")
    even, odd = (net.conv(x, f"vone_block.simple_conv_q{q}", stride=4, padding=12) for q in (0, 1))
    x = 25 * torch.cat([even[:, :256].clamp(min=0), ((even**2 + odd**2) / 2).sqrt()[:, 256:]], 1)
    x = net.conv(x, "bottleneck")
    if id_ == "vonenet-cornets":
        return cornet_s(net, x, "model.")
    return alexnet(net, x) if id_ == "vonenet-alexnet" else resnet50(net, x)


@pytest.mark.parametrize("id_", [pytest.param(id_, marks=pytest.mark.slow if id_ in LARGE else ()) for id_ in IDS])
def test_the_embedding_is_what_the_paper_describes(id_, tmp_path):
    # CORnet-S was trained when batch norms did not count their batches yet
    tensors = checkpoint(id_, tmp_path / "weights.pth", counts=id_ != "cornet-s")
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    encoder = build(small(id_), weights=str(tmp_path / "weights.pth"))
    rows = encoder(x)[EmbeddingName(id_)]
    expected = by_the_paper(id_, tensors, x)
    torch.testing.assert_close(rows, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert torch.equal(encoder(x)[EmbeddingName(id_)], rows)


def test_the_two_ways_of_time_are_two_networks(tmp_path):
    tensors = checkpoint("cornet-r", tmp_path / "weights.pth")
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    r, rt = (by_the_paper(id_, tensors, x) for id_ in ("cornet-r", "cornet-rt"))
    assert float((r - rt).abs().max()) > 1e-2 * float(r.abs().max())


def test_the_file_of_the_adversarially_trained_vonenet_is_read_as_it_was_saved(tmp_path):
    """Without DataParallel's prefix, and with two buffers of the attack."""
    tensors = checkpoint("vonenet-resnet50", tmp_path / "plain.pth")
    attack = {f"vone_block.div_{kind}.weight": torch.zeros(1, 1, 3, 3) for kind in "ut"}
    torch.save({"state_dict": tensors | attack, "flags": {"stride": 4}}, tmp_path / "at.pth")
    x = torch.rand(1, 3, 64, 64)
    names = {"vonenet-resnet50": "plain.pth", "vonenet-resnet50-at": "at.pth"}
    plain, at = (build(small(i), weights=str(tmp_path / f))(x)[EmbeddingName(i)] for i, f in names.items())
    assert torch.equal(plain, at)


@pytest.mark.slow
def test_a_realnet_is_a_cornet_s_under_its_authors_names(tmp_path):
    tensors = checkpoint("cornet-s", tmp_path / "weights.pth")
    torch.save({f"module.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "realnet.pt")
    x = torch.rand(1, 3, 64, 64)
    names = {"cornet-s": "weights.pth", "realnet": "realnet.pt"}
    ours, theirs = (build(small(i), weights=str(tmp_path / f))(x)[EmbeddingName(i)] for i, f in names.items())
    assert torch.equal(ours, theirs)


def test_a_checkpoint_of_the_other_network_is_a_named_error(tmp_path):
    checkpoint("vonenet-resnet50", tmp_path / "weights.pth")
    with pytest.raises(EmbedctlError, match=r"weights.pth does not fit: \d+ missing"):
        build(find("cornet-s"), weights=str(tmp_path / "weights.pth"))


def test_cornet_has_the_53_million_weights_of_the_paper():
    with torch.device("meta"):
        network = ARCHITECTURES["cornet-s"].construct()
    assert sum(tensor.numel() for tensor in network.parameters()) == 53_416_616


def test_areas_can_be_asked_for_by_depth():
    layers = [tap.layer for tap in resolve_layers(find("cornet-s"), ["depth:0.25,0.5,1"])]
    assert layers == ["V1", "V2", "IT"]
    assert [tap.layer for tap in resolve_layers(find("vonenet-resnet50"), ["layer3.gap"])] == ["layer3"]
    assert [tap.layer for tap in resolve_layers(find("vonenet-cornets"), ["depth:0.5,1"])] == ["V2", "IT"]
