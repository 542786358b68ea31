"""Networks with learned front-ends: waveform in, logits and embedding out.

Conventions: a front-end in PyTorch, learned or not, maps waveforms (batch, time) to (batch, mel, frame).
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
    """A learned front-end and a network, which are trained, saved and exported as one.

    Args:
        network: Takes the features of the front-end; ``config`` is the config of this network.
        front_end: Fixed constants of the front-end.
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


def attach_front_end(network: Network, front_end: AnyFrontEnd) -> Network:
    """Wraps a network with a learned front-end of random weights; returns it unchanged for a log-mel.

    Args:
        network: Takes log-mels.
        front_end: Of any kind.

    Returns:
        A :class:`WaveformNetwork`, or ``network`` itself.
    """
    return WaveformNetwork(network, front_end) if isinstance(front_end, LearnedFrontEnd) else network


def learned_front_end(network: Network) -> LearnedFrontEnd | None:
    """Returns the constants of a network's learned front-end, or None if it takes log-mels."""
    return network.features.front_end if isinstance(network, WaveformNetwork) else None


def split_front_end(network: Network, front_end: AnyFrontEnd) -> tuple[nn.Module, Network]:
    """Splits a model into waveform -> features, and features -> logits and embedding.

    Args:
        network: As returned by :func:`attach_front_end`.
        front_end: The front-end of the model, learned or a log-mel.

    Returns:
        The front-end, which shares its weights with ``network``, and the network behind it.
    """
    if isinstance(network, WaveformNetwork):
        return network.features, network.network
    assert isinstance(front_end, FrontEnd)
    return TorchLogMel(front_end), network
