"""Several encoders, layers and views share what they can: one decode, one forward pass, every core."""

from threading import Event, current_thread
from time import sleep
from types import SimpleNamespace

import pytest
import torch

from pipelines.encoders.build import Encoder
from tests.extract.extracting import CONTROLS, opened, run


def test_several_layers_come_out_of_one_forward_pass(few, forwards):
    run(few, "resnet18-tv:layer1", "resnet18-tv:layer2", "resnet18-tv", weights="random:7", batch_size=6)
    assert forwards == ["resnet18-tv"]
    assert opened(few).names == ["resnet18-tv", "resnet18-tv:layer1", "resnet18-tv:layer2"]


def test_an_image_is_read_and_decoded_once_and_a_view_made_once_whatever_the_number_of_encoders(few, monkeypatch):
    from pipelines.extract import loading

    n_decoded, made = [], []
    decode, see = loading.decode, loading.see
    monkeypatch.setattr(loading, "decode", lambda data: n_decoded.append(1) or decode(data))
    monkeypatch.setattr(loading, "see", lambda image, view: made.append(view) or see(image, view))
    run(few, *CONTROLS, "resnet18-tv@grey", views=("blur-9", "noise-10"), weights="random:7", batch_size=6)
    assert len(n_decoded) == 6
    assert {view: made.count(view) for view in made} == {"blur-9": 6, "noise-10": 6, "grey": 6}


def test_a_view_costs_one_forward_pass_whatever_the_number_of_layers(few, forwards):
    run(few, "resnet18-tv", layers=("layer1", "layer2"), views=("grey", "blur-9"), weights="random:7", batch_size=6)
    assert forwards == ["resnet18-tv"] * 2 and len(opened(few).names) == 4


def test_threads_use_one_core_each_and_the_networks_have_several_of_them(images, monkeypatch):
    from pipelines.extract import forward

    seen = {"preparing": set(), "forward": set()}
    plain, normalise = forward.fast_transform, forward.normalise

    def fast_transform(p):
        transform = plain(p)
        return lambda rgb: (transform(rgb), seen["preparing"].add(torch.get_num_threads()))[0]

    monkeypatch.setattr(forward, "fast_transform", fast_transform)
    monkeypatch.setattr(
        forward,
        "normalise",
        lambda x, p: (seen["forward"].add((torch.get_num_threads(), current_thread().name[:5])), normalise(x, p))[1],
    )
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        run(images)
        after = torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
    assert seen == {"preparing": {1}, "forward": {(1, "cores")}} and after == 3


def test_a_command_that_is_stopped_waits_for_one_encoder_and_not_for_all_of_the_batch(few, monkeypatch):
    begun, stopped, passes, plain = Event(), Event(), [], Encoder.__call__

    def counted(self, batch):
        if len(batch) > 2:
            passes.append(self.spec.id)
            if len(passes) == 3:  # the second batch is at its first encoder
                begun.set()
                stopped.wait(10)
                sleep(0.3)  # until the end of the command has reached its threads
        return plain(self, batch)

    def stop(n, **figures):
        begun.wait(10)
        stopped.set()
        raise KeyboardInterrupt

    monkeypatch.setattr(Encoder, "__call__", counted)
    monkeypatch.setattr("pipelines.extract.engine.n_cores", lambda: 1)
    listener = SimpleNamespace(start=lambda *work: None, advance=stop, say=lambda text: None)
    with pytest.raises(KeyboardInterrupt):
        run(few, "pixels", "hog", batch_size=3, progress=listener)
    assert passes == ["pixels", "hog", "pixels"] or passes == ["hog", "pixels", "hog"]
