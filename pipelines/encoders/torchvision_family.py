"""Networks of torchvision: ``model = { name = "resnet50" }``.

Random weights are those of ``torch.manual_seed(SEED)`` followed by ``torchvision.models.get_model(name)``, which is
what ``torchvision.models.resnet50(weights=None)`` does. The network is left as the library builds it, classifier
included, so ``output`` means class scores; the embeddings are taps before it (``avgpool``, ``classifier.3``).
"""

from torch import nn

from pipelines.encoders.network import Network, construction, load_strictly
from pipelines.encoders.registry import EncoderSpec
from pipelines.encoders.torchvision_import import torchvision
from pipelines.encoders.weights import Weights, read_tensors

__all__ = ["describe", "network"]


def network(spec: EncoderSpec, weights: Weights, device: str = "cpu") -> Network:
    """Build the network of a ``torchvision`` table."""
    arguments = {key: value for key, value in spec.model.items() if key != "name"}
    with construction(weights, device):
        module = torchvision.models.get_model(spec.model["name"], weights=None, **arguments)
    if weights.seed is None:
        load_strictly(module, read_tensors(weights.files[0]), weights.files[0].name)
    return describe(module)


def describe(module: nn.Module) -> Network:
    """Name the layers of a torchvision network."""
    children = dict(module.named_children())
    if "features" not in children:  # ResNets
        blocks = tuple(name for name in children if name.startswith("layer"))
        return Network(module, (*blocks, "avgpool", "output"), blocks)
    # AlexNet, VGG, MobileNet: two sequences, convolutions and classifier
    features, classifier = (
        tuple(f"{name}.{index}" for index, _ in enumerate(children[name].children())) for name in ("features", "classifier")
    )
    return Network(module, (*features, "avgpool", *classifier, "output"), features)
