"""Tensors of weights as stacks of matrices."""

from __future__ import annotations

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
        groups: of the convolution.
        parts: that the columns are cut into.
    """

    shape: tuple[int, ...]
    groups: int = 1
    parts: int = 1

    @property
    def size(self) -> tuple[int, int, int]:
        """Groups (parts counted), rows and columns."""
        rows = self.shape[0] // self.groups
        columns = _product(self.shape[1:]) // self.parts
        return self.groups * self.parts, rows, columns

    def cut(self, tensor: torch.Tensor) -> torch.Tensor:
        """The matrices of a tensor of this shape.

        >>> MatrixView((4, 1, 3, 3), groups=4).cut(torch.zeros(4, 1, 3, 3)).shape
        torch.Size([4, 1, 9])
        >>> MatrixView((2, 6), parts=3).cut(torch.arange(12).reshape(2, 6))[0].tolist()
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
    groups = {
        id(module.weight): module.groups
        for module in model.modules()
        if isinstance(module, nn.modules.conv._ConvNd) and not module.transposed
    }
    return {
        name: _view(tuple(parameter.shape), groups.get(id(parameter), 1))
        for name, parameter in model.named_parameters()
        if parameter.dim() > 1
        and parameter.numel() > 0
        and parameter.is_floating_point()
        and not any(fnmatchcase(name, pattern) for pattern in keep)
    }


def _view(shape: tuple[int, ...], groups: int) -> MatrixView:
    columns = _product(shape[1:])
    parts = -(-columns // MAX_COLUMNS)
    while columns % parts:
        parts += 1
    return MatrixView(shape, groups, parts)


def _product(sizes: tuple[int, ...]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product
