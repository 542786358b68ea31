"""The networks, their front-end in PyTorch, and how they are named, built, saved and loaded.

Conventions: this is the make half, which needs PyTorch (``pip install 'earmark[train]'``). Importing this
room enters every network in the registry.
"""

from earmark.models import convnext as convnext
from earmark.models import efficientnet as efficientnet
from earmark.models import mobilenet as mobilenet  # enters its networks in the registry
from earmark.models import resnet as resnet
from earmark.models.network import Network, Output
from earmark.models.registry import architectures, create_model

__all__ = ["Network", "Output", "architectures", "create_model"]
