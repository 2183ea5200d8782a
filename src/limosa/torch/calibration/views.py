"""Tensors of weights as stacks of matrices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import nn

MAX_COLUMNS = 4096
"""Wider matrices are cut: the memory for a Hessian grows with the square of its columns."""


@dataclass(frozen=True)
class MatrixView:
    """A tensor as matrices (groups, rows, columns), one Hessian (columns, columns) to each group.

    A row holds the weights of one output, so errors of its columns add up in that output. The
    groups are those of a convolution, or else parts of too many columns.

    Attributes:
        shape: the shape of the tensor.
        width: weights of a row; the rows follow each other in the tensor.
        groups: of the convolution.
        parts: that the columns are cut into.
    """

    shape: tuple[int, ...]
    width: int
    groups: int = 1
    parts: int = 1

    @property
    def size(self) -> tuple[int, int, int]:
        """Groups (parts counted), rows and columns."""
        rows = math.prod(self.shape) // (self.groups * self.width)
        return self.groups * self.parts, rows, self.width // self.parts

    def cut(self, tensor: torch.Tensor) -> torch.Tensor:
        """The matrices of a tensor of this shape.

        >>> MatrixView((4, 1, 3, 3), 9, groups=4).cut(torch.zeros(4, 1, 3, 3)).shape
        torch.Size([4, 1, 9])
        >>> MatrixView((2, 6), 6, parts=3).cut(torch.arange(12).reshape(2, 6))[0].tolist()
        [[0, 1], [6, 7]]
        """
        groups, rows, columns = self.size
        cut = tensor.reshape(self.groups, rows, self.parts, columns)
        return cut.transpose(1, 2).reshape(groups, rows, columns)

    def join(self, matrices: torch.Tensor) -> torch.Tensor:
        """The tensor of such matrices: the inverse of :meth:`cut`."""
        _, rows, columns = self.size
        parts = matrices.reshape(self.groups, self.parts, rows, columns)
        return parts.transpose(1, 2).reshape(self.shape)


def views_of(model: nn.Module, keep: tuple[str, ...] = ()) -> dict[str, MatrixView]:
    """The parameters to round: floats of two dimensions or more that no pattern of *keep* names.

    Tied parameters appear once, under their first name.
    """
    kernels = {
        id(module.weight): 1 if module.transposed else module.groups
        for module in model.modules()
        if isinstance(module, nn.modules.conv._ConvNd)
    }
    return {
        name: _view(tuple(parameter.shape), kernels.get(id(parameter)))
        for name, parameter in model.named_parameters()
        if parameter.dim() > 1
        and parameter.numel() > 0
        and parameter.is_floating_point()
        and not any(fnmatchcase(name, pattern) for pattern in keep)
    }


def _view(shape: tuple[int, ...], groups: int | None) -> MatrixView:
    """The view of a kernel of so many groups, or of another tensor (None): its last axis."""
    width = shape[-1] if groups is None else math.prod(shape[1:])
    parts = -(-width // MAX_COLUMNS)
    while width % parts:
        parts += 1
    return MatrixView(shape, width, groups or 1, parts)
