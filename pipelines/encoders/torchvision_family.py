"""Networks of torchvision: ``model = { name = "resnet50" }``.

Random weights are those of ``torch.manual_seed(SEED)`` followed by ``torchvision.models.get_model(name)``, which is
what ``torchvision.models.resnet50(weights=None)`` does. The network is left as the library builds it, classifier
included, so ``output`` means class scores; the embeddings are taps before it (``avgpool``, ``classifier.3``).
``tensors_under = "module.model."`` takes only the tensors under that prefix of a checkpoint.
"""

from typing import Any

from pipelines.encoders.network import Network, construction, load_strictly, state_dict
from pipelines.encoders.registry import EncoderSpec
from pipelines.encoders.torchvision_import import torchvision
from pipelines.encoders.weights import Weights, read_tensors

__all__ = ["describe", "network"]


def network(spec: EncoderSpec, weights: Weights, device: str = "cpu") -> Network:
    """Build the network of a ``torchvision`` table."""
    arguments = dict(spec.model)
    name, prefix = arguments.pop("name"), arguments.pop("tensors_under", "")
    with construction(weights, device):
        module: Any = torchvision.models.get_model(name, weights=None, **arguments)
    if weights.seed is None:
        file = weights.files[0]
        load_strictly(module, state_dict(read_tensors(file), prefix), file.name)
    return describe(module)


def describe(module: Any) -> Network:
    """Name the layers of a torchvision network."""
    children = dict(module.named_children())
    if "features" in children:  # AlexNet, VGG, MobileNet: two sequences, convolutions and classifier
        blocks = tuple(f"features.{index}" for index in range(len(module.features)))
        classifier = tuple(f"classifier.{index}" for index in range(len(module.classifier)))
        return Network(module, (*blocks, "avgpool", *classifier, "output"), blocks)
    blocks = tuple(name for name in children if name.startswith(("layer", "Mixed")))  # ResNets, Inception
    return Network(module, (*blocks, "avgpool", "output"), blocks)
