"""Validation asks the loss what training asks it."""

import torch
from torch import nn

from pipelines.train.evaluation import Held, validate
from pipelines.train.losses import info_nce, unit


def test_the_loss_is_given_embeddings_as_they_come_and_the_images_shown():
    torch.manual_seed(0)
    model = nn.ModuleDict({"brain": nn.Linear(3, 5), "image": nn.Linear(4, 5)})
    held = Held(torch.randn(7, 3), torch.tensor([8, 2, 9, 4, 1, 3, 0]), [4, 3])
    images, given = torch.randn(7, 4), []

    def loss(brain, image, scale, shown):
        given.append((brain, image, shown))
        return info_nce(brain, image, scale, shown)

    seen = validate(model, loss, torch.tensor(10.0), held, images)
    assert [shown.tolist() for *_, shown in given] == [[8, 2, 9, 4], [1, 3, 0]]
    z, v = (torch.cat(parts) for parts in ([one[0] for one in given], [one[1] for one in given]))
    assert torch.equal(z, model["brain"](held.epochs)) and torch.equal(v, model["image"](images))
    right = [(unit(a) @ unit(b).T).argmax(dim=1) == torch.arange(len(a)) for a, b, _ in given]
    assert seen["val_top1"] == sum(one.double().mean().item() for one in right) / 2
