"""A network and its front-end: apart where the front-end is a log-mel, one module where it learns.

Conventions: a front-end in PyTorch maps waveforms (batch, time) to (batch, mel, frame), whatever its kind.
"""

from __future__ import annotations

from torch import Tensor, nn

from earmark.features.front_end import FrontEnd
from earmark.features.learned import AnyFrontEnd, LearnedFrontEnd
from earmark.models.leaf import Leaf
from earmark.models.log_mel import TorchLogMel
from earmark.models.network import Network, Output
from earmark.models.sincnet import SincNet


class WaveformNetwork(Network):
    """A front-end that learns and the network behind it, which train, are saved and exported as one.

    Args:
        network: Takes what the front-end gives; its choices are kept as ``config``.
        front_end: What is fixed of the front-end.
    """

    def __init__(self, network: Network, front_end: LearnedFrontEnd) -> None:
        super().__init__(network.config)
        self.features: Leaf | SincNet = Leaf(front_end) if front_end.kind == "leaf" else SincNet(front_end)
        self.network = network

    def forward(self, waveform: Tensor) -> Output:
        """Computes logits and embedding.

        Args:
            waveform: float32 in [-1, 1], shape (batch, time), at the front-end's sample rate.

        Returns:
            Logits (batch, class) and embedding (batch, channel).

        Raises:
            AudioError: If the waveform is not float32 of two dimensions.
        """
        output: Output = self.network(self.features(waveform))
        return output


def with_front_end(network: Network, front_end: AnyFrontEnd) -> Network:
    """Puts a fresh front-end before a network where it is one that learns; else gives the network back."""
    return WaveformNetwork(network, front_end) if isinstance(front_end, LearnedFrontEnd) else network


def front_end_of(network: Network) -> LearnedFrontEnd | None:
    """What is fixed of the front-end that a network holds, or None where it takes log-mels."""
    return network.features.front_end if isinstance(network, WaveformNetwork) else None


def apart(network: Network, front_end: AnyFrontEnd) -> tuple[nn.Module, Network]:
    """The two halves of what hears: waveform -> features, and features -> logits and embedding.

    Args:
        network: As made by with_front_end.
        front_end: The one it was made with.

    Returns:
        The front-end, whose weights where it has any are the network's own, and the network behind it.
    """
    if isinstance(network, WaveformNetwork):
        return network.features, network.network
    assert isinstance(front_end, FrontEnd)
    return TorchLogMel(front_end), network
