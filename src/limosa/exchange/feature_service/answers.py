"""Answers as JSON and as limosa bitstreams."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from limosa.codec.arrays import open_file
from limosa.errors import CorruptError
from limosa.exchange.feature_service.batching import Answers
from limosa.limits import Limits
from limosa.torch import load, save
from limosa.torch.dtypes import to_tensor

BITSTREAM = "application/vnd.limosa"


def is_short(answers: Answers) -> bool:
    """Whether answers are written in no time."""
    return sum(one.numel() for outputs in answers.values() for one in outputs.values()) < 1024


def to_plain(answers: Answers) -> dict[str, Any]:
    """Outputs as JSON can hold them; NaN and infinities as strings.

    >>> import torch
    >>> to_plain({"class": {"output": torch.tensor([[1.5, torch.nan]])}})
    {'class': {'output': {'dtype': 'F32', 'shape': [1, 2], 'data': [[1.5, 'NaN']]}}}
    """
    plain: dict[str, Any] = {}
    for task, outputs in answers.items():
        plain[task] = {}
        for name, one in outputs.items():
            tensor = to_tensor(name, one)
            data = one.detach().cpu().tolist()
            if one.is_complex():
                data = one.detach().cpu().resolve_conj().view(one.real.dtype).tolist()
            if one.is_floating_point() and not bool(one.isfinite().all()):
                data = _spelled(data)
            plain[task][name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data": data}
    return plain


def _spelled(value: Any) -> Any:
    if isinstance(value, list):
        return [_spelled(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def to_json(answers: Answers, more: Mapping[str, Any] | None = None) -> str:
    """The JSON of answers; *more* stands beside them."""
    return json.dumps({**(more or {}), "answers": to_plain(answers)}, separators=(",", ":"))


def to_bitstream(answers: Answers, metadata: Mapping[str, Any] | None = None) -> bytes:
    """The tensors, named ``task/output``, as a .limosa file; *metadata* travel as text."""
    tensors = {
        f"{task}/{name}": one.detach()
        for task, outputs in answers.items()
        for name, one in outputs.items()
    }
    text = {name: str(value) for name, value in (metadata or {}).items()}
    return save(tensors, text or None, threads=1)


def from_bitstream(data: bytes, limits: Limits | None = None) -> tuple[Answers, dict[str, str]]:
    """The reverse, with the metadata.

    Raises:
        FormatError: it is damaged, or a file of something else.

    >>> import torch
    >>> sent = to_bitstream({"class": {"output": torch.ones(2)}}, {"message": 3})
    >>> from_bitstream(sent)
    ({'class': {'output': tensor([1., 1.])}}, {'message': '3'})
    """
    answers: Answers = {}
    for name, one in load(data, limits=limits, threads=1).items():
        task, slash, output = name.partition("/")
        if not slash:
            raise CorruptError("no answer of a task", where=f"tensor {name!r}")
        answers.setdefault(task, {})[output] = one
    with open_file(data, limits=limits, threads=1) as file:
        return answers, file.metadata() or {}
