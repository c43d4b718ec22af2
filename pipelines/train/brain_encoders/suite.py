"""What every brain encoder has to keep to, as a suite of tests that any of them can inherit.

A lab's own, in ``mine.py``, is tested with pytest by a file of four lines::

    from mine import Net
    from pipelines.train.brain_encoders.suite import BrainEncoderSuite

    class TestNet(BrainEncoderSuite):
        kind = Net
"""

import torch
from torch import nn

from pipelines.train.brain_encoders import prepare

__all__ = ["BrainEncoderSuite"]


class BrainEncoderSuite:
    """Inherit, and name the class; other shapes where these are too small or too large for it.

    Attributes
    ----------
    kind : type of Module
        The brain encoder, built as ``kind(n_chans, n_times, dim)``.
    n_chans, n_times, dim : int
        Shape of an epoch, and width of the embedding space.
    """

    kind: type[nn.Module]
    n_chans, n_times, dim = 7, 100, 12

    def _built(self) -> nn.Module:
        torch.manual_seed(0)
        return self.kind(self.n_chans, self.n_times, self.dim)

    def _epochs(self, n: int = 4) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        return prepare(self.kind, torch.randn(n, self.n_chans, self.n_times, generator=generator))

    def test_epochs_become_embeddings(self) -> None:
        """``(n_epochs, n_chans, n_times)`` becomes ``(n_epochs, dim)``, all of it finite."""
        z = self._built()(self._epochs())
        assert z.shape == (4, self.dim)
        assert torch.isfinite(z).all()

    def test_the_first_step_keeps_epochs_apart(self) -> None:
        """``prepare`` has no batch statistics: an epoch alone becomes what it becomes among others."""
        epochs = torch.randn(4, self.n_chans, self.n_times)
        alone = torch.cat([prepare(self.kind, epoch[None]) for epoch in epochs])
        assert torch.allclose(alone, prepare(self.kind, epochs), atol=1e-5)

    def test_an_embedding_does_not_depend_on_the_other_epochs(self) -> None:
        """In evaluation an epoch alone gets the embedding it gets among others."""
        model, epochs = self._built().eval(), self._epochs()
        with torch.no_grad():
            assert torch.allclose(torch.cat([model(epoch[None]) for epoch in epochs]), model(epochs), atol=1e-5)

    def test_evaluation_draws_nothing(self) -> None:
        """In evaluation the same epochs get the same embeddings."""
        model, epochs = self._built().eval(), self._epochs()
        with torch.no_grad():
            assert torch.equal(model(epochs), model(epochs))

    def test_different_epochs_get_different_embeddings(self) -> None:
        """The network listens."""
        with torch.no_grad():
            z = self._built().eval()(self._epochs())
        assert not torch.allclose(z[0], z[1])

    def test_every_parameter_takes_part(self) -> None:
        """One step back reaches every parameter."""
        model = self._built()
        model(self._epochs()).square().sum().backward()
        idle = [name for name, parameter in model.named_parameters() if parameter.grad is None]
        assert not idle, f"no gradient reaches {idle}"

    def test_the_seed_decides_the_weights(self) -> None:
        """Two networks from one seed are the same to the last bit."""
        first, second = self._built().state_dict(), self._built().state_dict()
        assert all(torch.equal(first[name], second[name]) for name in first)

    def test_a_checkpoint_gives_the_network_back(self) -> None:
        """What training changes is all in the state: loaded into a new network it gives the same embeddings."""
        model = self._built()
        model(self._epochs(8))  # moves running statistics
        fresh = self.kind(self.n_chans, self.n_times, self.dim)
        fresh.load_state_dict(model.state_dict())
        with torch.no_grad():
            assert torch.equal(fresh.eval()(self._epochs()), model.eval()(self._epochs()))
