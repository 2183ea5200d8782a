"""EfficientNet-Lite0 (tensorflow/tpu, efficientnet/lite), under the names of its published weights.

For images whose sides are multiples of 32: TensorFlow pads a stride of 2 at one side only.
"""

from __future__ import annotations

import torch
from torch import nn

# kernel, stride, expansion, channels, repeats
STAGES = (
    (3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3), (5, 2, 6, 192, 4), (3, 1, 6, 320, 1),
)  # fmt: skip


class SameConv(nn.Conv2d):
    """A convolution that pads as TensorFlow does."""

    def __init__(self, inputs, outputs, kernel, stride=1, groups=1):
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)
        total = kernel - stride
        self.pad = nn.ZeroPad2d((total // 2, total - total // 2) * 2)

    def forward(self, x):
        return super().forward(self.pad(x))


def norm(channels):
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """Wide, depthwise, narrow; with a skip connection where the shape stays."""

    def __init__(self, inputs, outputs, kernel, stride, expansion):
        super().__init__()
        width = inputs * expansion
        self.is_wide = expansion > 1
        if self.is_wide:
            self._expand_conv = SameConv(inputs, width, 1)
            self._bn0 = norm(width)
        self._depthwise_conv = SameConv(width, width, kernel, stride, groups=width)
        self._bn1 = norm(width)
        self._project_conv = SameConv(width, outputs, 1)
        self._bn2 = norm(outputs)
        self._relu = nn.ReLU6(inplace=True)
        self.skips = stride == 1 and inputs == outputs

    def forward(self, inputs):
        x = inputs
        if self.is_wide:
            x = self._relu(self._bn0(self._expand_conv(x)))
        x = self._relu(self._bn1(self._depthwise_conv(x)))
        x = self._bn2(self._project_conv(x))
        if self.skips:
            x += inputs
        return x


class Lite0(nn.Module):
    def __init__(self, classes=1000):
        super().__init__()
        self._conv_stem = SameConv(3, 32, 3, 2)
        self._bn0 = norm(32)
        self._blocks = nn.ModuleList()
        channels = 32
        for kernel, stride, expansion, width, repeats in STAGES:
            for index in range(repeats):
                step = stride if index == 0 else 1
                self._blocks.append(Block(channels, width, kernel, step, expansion))
                channels = width
        self._conv_head = SameConv(channels, 1280, 1)
        self._bn1 = norm(1280)
        self._relu = nn.ReLU6(inplace=True)
        self._avg_pooling = nn.AdaptiveAvgPool2d(1)
        self._dropout = nn.Dropout(0.2)
        self._fc = nn.Linear(1280, classes)

    def forward(self, x):
        batch = x.size(0)
        x = self._relu(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = self._avg_pooling(self._relu(self._bn1(self._conv_head(x))))
        return self._fc(self._dropout(x.view(batch, -1)))


def lite0():
    """With random weights, and statistics that keep the activations alive."""
    torch.manual_seed(0)
    model = Lite0().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.05)
            nn.init.uniform_(module.running_var, 0.02, 0.1)
    return model
