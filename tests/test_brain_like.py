"""CORnet-S and VOneResNet-50: the arithmetic of the papers on checkpoints in the published names."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import batch_norm, conv2d, max_pool2d, relu

from pipelines.encoders.brain_like_family import ARCHITECTURES
from pipelines.encoders.build import build, resolve_layers
from pipelines.encoders.registry import find
from stores.errors import EmbedctlError
from stores.names import EmbeddingName

IDS = list(ARCHITECTURES)


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
        return conv2d(x, self.w[f"{name}.weight"], **how)

    def norm(self, x, name):
        w = [self.w[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return batch_norm(x, *w, training=False, eps=1e-5)


def by_the_paper(id_, tensors, x):
    net = Arithmetic(tensors)
    if id_ == "cornet-s":
        x = relu(net.norm(net.conv(x, "V1.conv1", stride=2, padding=3), "V1.norm1"))
        x = relu(net.norm(net.conv(max_pool2d(x, 3, 2, 1), "V1.conv2", padding=1), "V1.norm2"))
        for area, times in (("V2", 2), ("V4", 4), ("IT", 2)):
            x = net.conv(x, f"{area}.conv_input")
            for t in range(times):
                stride = 1 + (t == 0)
                around = x if t else net.norm(net.conv(x, f"{area}.skip", stride=2), f"{area}.norm_skip")
                y = relu(net.norm(net.conv(x, f"{area}.conv1"), f"{area}.norm1_{t}"))
                y = relu(net.norm(net.conv(y, f"{area}.conv2", stride=stride, padding=1), f"{area}.norm2_{t}"))
                x = relu(net.norm(net.conv(y, f"{area}.conv3"), f"{area}.norm3_{t}") + around)
        return x.mean((2, 3))
    even, odd = (net.conv(x, f"vone_block.simple_conv_q{q}", stride=4, padding=12) for q in (0, 1))
    x = 25 * torch.cat([even[:, :256].clamp(min=0), ((even**2 + odd**2) / 2).sqrt()[:, 256:]], 1)
    x = net.conv(x, "bottleneck")
    for stage, depth in enumerate((3, 4, 6, 3), 1):
        for i in range(depth):
            at, stride = f"model.layer{stage}.{i}", 2 if i == 0 and stage > 1 else 1
            y = relu(net.norm(net.conv(x, f"{at}.conv1"), f"{at}.bn1"))
            y = relu(net.norm(net.conv(y, f"{at}.conv2", stride=stride, padding=1), f"{at}.bn2"))
            if i == 0:
                x = net.norm(net.conv(x, f"{at}.downsample.0", stride=stride), f"{at}.downsample.1")
            x = relu(net.norm(net.conv(y, f"{at}.conv3"), f"{at}.bn3") + x)
    return x.mean((2, 3))


@pytest.mark.parametrize("id_", IDS)
def test_the_embedding_is_what_the_paper_describes(id_, tmp_path):
    # CORnet-S was trained when batch norms did not count their batches yet
    tensors = checkpoint(id_, tmp_path / "weights.pth", counts=id_ != "cornet-s")
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    encoder = build(small(id_), weights=str(tmp_path / "weights.pth"))
    rows = encoder(x)[EmbeddingName(id_)]
    expected = by_the_paper(id_, tensors, x)
    torch.testing.assert_close(rows, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert torch.equal(encoder(x)[EmbeddingName(id_)], rows)


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
