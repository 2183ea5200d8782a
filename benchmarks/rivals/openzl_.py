"""OpenZL's float graph: exponents to an entropy coder, sign and fraction by byte planes.

Its two entropy coders make two rivals: Huffman is its quick choice, FSE its small one. The graphs
are those that gave the smallest files of all tried on these data.
"""

from __future__ import annotations

import numpy as np
import openzl.ext as openzl

from benchmarks.rivals.interface import WORDS, Buffer, Rival

_SPLITS = {
    "F32": openzl.nodes.Float32Deconstruct,
    "BF16": openzl.nodes.BFloat16Deconstruct,
    "F16": openzl.nodes.Float16Deconstruct,
}


class _OpenZL(Rival):
    def _exponent_graph(self, compressor: openzl.Compressor) -> openzl.GraphID:
        raise NotImplementedError

    def _compressor(self, dtype: str) -> openzl.Compressor:
        compressor = openzl.Compressor()
        compressor.set_parameter(openzl.CParam.FormatVersion, openzl.MAX_FORMAT_VERSION)
        if dtype == "BF16":
            # One byte of sign and fraction, and no structure in it: tried, and stored.
            rest = openzl.graphs.Store()(compressor)
        else:
            entropy = openzl.graphs.Entropy()(compressor)
            rest = openzl.nodes.TransposeSplit()(compressor, entropy)
        exponents = self._exponent_graph(compressor)
        compressor.select_starting_graph(_SPLITS[dtype]()(compressor, rest, exponents))
        return compressor

    def encode(self, raw: Buffer, dtype: str, base: bytes | None = None) -> bytes:
        context = openzl.CCtx()
        context.ref_compressor(self._compressor(dtype))
        context.set_parameter(openzl.CParam.FormatVersion, openzl.MAX_FORMAT_VERSION)
        numbers = np.frombuffer(raw, WORDS[dtype])
        return context.compress([openzl.Input(openzl.Type.Numeric, numbers)])

    def decode(self, blob: bytes, dtype: str, base: bytes | None = None) -> np.ndarray:
        return openzl.DCtx().decompress(blob)[0].content.as_nparray().view(np.uint8)


class OpenZLHuffman(_OpenZL):
    """Exponents in Huffman codes: its quick choice."""

    name = "OpenZL huffman"

    def _exponent_graph(self, compressor: openzl.Compressor) -> openzl.GraphID:
        return openzl.graphs.Huffman()(compressor)


class OpenZLFse(_OpenZL):
    """Exponents in tANS codes: its small choice."""

    name = "OpenZL FSE"

    def _exponent_graph(self, compressor: openzl.Compressor) -> openzl.GraphID:
        return openzl.graphs.Fse()(compressor)
