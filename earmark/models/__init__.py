"""The networks, their front-end in PyTorch, and how they are named, built, saved and loaded.

Conventions: this is the make half, which needs PyTorch (``pip install 'earmark[train]'``). Importing this
room enters every network in the registry.
"""

from earmark.models import dymn as dymn  # enters its networks in the registry, as those below do
from earmark.models import mobilenet as mobilenet
from earmark.models.network import Network, Output
from earmark.models.registry import architectures, create_model

__all__ = ["Network", "Output", "architectures", "create_model"]
