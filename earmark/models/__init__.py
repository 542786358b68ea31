"""Networks in PyTorch, their front-ends, the registry of architectures, and checkpoints.

Conventions: needs PyTorch (``pip install 'earmark[train]'``). Importing this package registers every network.
"""

# Importing these registers their networks.
from earmark.models import audio_ntt as audio_ntt
from earmark.models import cnn6 as cnn6
from earmark.models import cnn14 as cnn14
from earmark.models import convnext as convnext
from earmark.models import dymn as dymn
from earmark.models import efficientnet as efficientnet
from earmark.models import mobilenet as mobilenet
from earmark.models import resnet as resnet
from earmark.models import resnetish as resnetish
from earmark.models import small_cnn as small_cnn
from earmark.models import vggish as vggish
from earmark.models.network import Network, Output
from earmark.models.registry import architectures, create_model

__all__ = ["Network", "Output", "architectures", "create_model"]
