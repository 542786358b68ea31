"""Invalid values of every network's config raise an error that names the field."""

import pytest

from earmark.errors import ModelError
from earmark.models.cnn6 import Cnn6Config
from earmark.models.convnext import ConvNeXtConfig
from earmark.models.dymn import DyMNConfig
from earmark.models.efficientnet import EfficientNetConfig
from earmark.models.mobilenet import MobileNetConfig
from earmark.models.resnet import ResNetConfig
from earmark.models.resnetish import ResNetishConfig
from earmark.models.vggish import AlexNetConfig, VGGishConfig


@pytest.mark.parametrize(
    ("config_class", "arguments"),
    [
        (MobileNetConfig, {"width": 0}),
        (MobileNetConfig, {"width": float("nan")}),
        (MobileNetConfig, {"width": "1.0"}),
        (MobileNetConfig, {"head": "mpl"}),
        (MobileNetConfig, {"head": ["mlp"]}),
        (MobileNetConfig, {"heads": 0}),
        (MobileNetConfig, {"strides": (2, 2, 2)}),
        (MobileNetConfig, {"strides": (2, 2, 2, 3)}),
        (MobileNetConfig, {"strides": (2, 2, 2, [2])}),
        (MobileNetConfig, {"strides": 2}),
        (MobileNetConfig, {"dilated": 1}),
        (MobileNetConfig, {"se_dims": "cx"}),
        (MobileNetConfig, {"se_dims": "cc"}),
        (MobileNetConfig, {"se_dims": ""}),
        (MobileNetConfig, {"se_agg": "sum"}),
        (MobileNetConfig, {"se_ratio": 0}),
        (MobileNetConfig, {"n_mels": 64.0}),
        (MobileNetConfig, {"num_frames": -1}),
        (MobileNetConfig, {"num_classes": 0}),
        (MobileNetConfig, {"num_classes": True}),
        (MobileNetConfig, {"dropout": 1.0}),
        (MobileNetConfig, {"norm_momentum": 0}),
        (DyMNConfig, {"width": 0}),
        (DyMNConfig, {"strides": (2, 2, 2)}),
        (DyMNConfig, {"temperature": 0}),
        (DyMNConfig, {"temperature": float("inf")}),
        (DyMNConfig, {"dynamic_blocks": " replace_se"}),
        (DyMNConfig, {"context_ratio": 0}),
        (DyMNConfig, {"min_context": 129}),
        (DyMNConfig, {"kernels": 0}),
        (DyMNConfig, {"relu_lines": 1.5}),
        (DyMNConfig, {"dynamic_conv": 1}),
        (DyMNConfig, {"dropout": 1.0}),
        (DyMNConfig, {"norm_momentum": 0}),
        (ResNetConfig, {"depths": (2, 2, 2)}),
        (ResNetConfig, {"depths": (2, 2, 2, 0)}),
        (ResNetConfig, {"depths": 2}),
        (ResNetConfig, {"bottleneck": 1}),
        (ResNetConfig, {"dropout": 1.0}),
        (ResNetConfig, {"norm_momentum": 0}),
        (ResNetConfig, {"num_classes": 0}),
        (ResNetishConfig, {"stem_stride": 0}),
        (ResNetishConfig, {"pool_stride": 1.5}),
        (ResNetishConfig, {"cells": (4, 0)}),
        (ResNetishConfig, {"cells": 4}),
        (EfficientNetConfig, {"width": 0}),
        (EfficientNetConfig, {"depth": -1.0}),
        (EfficientNetConfig, {"depth": "1"}),
        (EfficientNetConfig, {"drop_path": 1}),
        (EfficientNetConfig, {"dropout": -0.1}),
        (EfficientNetConfig, {"norm_momentum": 2.0}),
        (ConvNeXtConfig, {"depths": [1, 2, 3]}),
        (ConvNeXtConfig, {"depths": (1, 1, 1, True)}),
        (ConvNeXtConfig, {"width": 0}),
        (ConvNeXtConfig, {"layer_scale": float("inf")}),
        (ConvNeXtConfig, {"drop_path": 1.5}),
        (ConvNeXtConfig, {"dropout": "0.4"}),
        (VGGishConfig, {"hidden": 0}),
        (VGGishConfig, {"embedding_size": 1.0}),
        (AlexNetConfig, {"hidden": True}),
        (AlexNetConfig, {"dropout": 1.0}),
        (Cnn6Config, {"n_mels": 15}),
        (Cnn6Config, {"dropout": -0.1}),
        (Cnn6Config, {"spec_augment": (128, 2, 32)}),
        (Cnn6Config, {"spec_augment": (128, 2, -1, 2)}),
        (Cnn6Config, {"spec_augment": (128, 2.0, 32, 2)}),
        (Cnn6Config, {"spec_augment": 128}),
        (ResNetishConfig, {"num_classes": -1}),
    ],
)
def test_invalid_values_raise(config_class, arguments):
    with pytest.raises(ModelError, match=f"^{next(iter(arguments))} must be "):
        config_class(**arguments)
