"""Harmonised networks: Keras files of Harmonization (Fel et al., NeurIPS 2022), computed in torch without TensorFlow.

``model = { name = "convnext_tiny" }`` names the torch network: of timm, torchvision's ``vgg16``, or ``resnet50v2`` of
`harmonization_resnet50v2`; the rest are its constructor's arguments. Files are loaded with their classifier, every
tensor in its place; the classifier is then dropped, except from ``vgg16``, where the tap lies before it.

Random weights are those of ``torch.manual_seed(SEED)`` followed by ``timm.create_model(name, num_classes=0, ...)``,
``torchvision.models.vgg16(weights=None)`` or ``ResNet50V2(n_classes=0, ...)``.
"""

# isort: off
from collections.abc import Mapping
from typing import Any

import pipelines.encoders.torchvision_import  # noqa: F401  (before timm, which imports torchvision)
import timm

# isort: on
from pipelines.encoders import timm_family, torchvision_family
from pipelines.encoders.harmonization_resnet50v2 import ResNet50V2
from pipelines.encoders.harmonization_weights import load
from pipelines.encoders.network import Network, construction
from pipelines.encoders.registry import EncoderSpec
from pipelines.encoders.torchvision_import import torchvision
from pipelines.encoders.weights import Weights

__all__ = ["construct", "network"]


def network(spec: EncoderSpec, weights: Weights, device: str = "cpu") -> Network:
    """Build the network of a ``harmonization`` table."""
    with construction(weights, device):
        module = construct(spec.model, classifier=weights.seed is None)
    is_vgg = spec.model["name"] == "vgg16"
    if weights.seed is None:
        load(module, spec.model["name"], weights.files[0])
        if not is_vgg:
            module.reset_classifier(0)
    return torchvision_family.describe(module) if is_vgg else timm_family.describe(module)


def construct(model: Mapping[str, Any], *, classifier: bool) -> Any:
    """Call the constructor of a network: with the 1,000 classes that its Keras file has, or without."""
    arguments = dict(model)
    name = arguments.pop("name")
    if name == "vgg16":
        return torchvision.models.get_model(name, weights=None, **arguments)
    if name == "resnet50v2":
        return ResNet50V2(1000 if classifier else 0, **arguments)
    return timm.create_model(name, pretrained=False, num_classes=1000 if classifier else 0, **arguments)
