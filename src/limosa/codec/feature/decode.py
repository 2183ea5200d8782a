"""Features back to tensors, each alone or from the one before."""

from __future__ import annotations

from limosa.codec.config import thread_count
from limosa.codec.feature.chunks import Held, copies_of, decode_chunks, feature_digest, restored
from limosa.codec.feature.source import FeatureSource
from limosa.codec.feature.wire import FeatureHeader, read_feature
from limosa.errors import BaseMismatchError, ChecksumError
from limosa.limits import Limits
from limosa.tensors import TensorMap


class FeatureDecoder:
    """Decodes the features of one source, in the order in which they were encoded.

    Args:
        source: which model and cut this side expects.
        limits: what a feature may ask for.
        threads: how many to use; None for all processors.

    >>> import numpy as np
    >>> from limosa import FeatureEncoder, FeatureSource, Tensor
    >>> source = FeatureSource(bytes(32), "relu")
    >>> sent = FeatureEncoder(source).encode({"x": Tensor.from_numpy(np.eye(3, dtype="f4"))})
    >>> FeatureDecoder(source).decode(sent)["x"].numpy()[0].tolist()
    [1.0, 0.0, 0.0]
    """

    def __init__(
        self,
        source: FeatureSource,
        *,
        limits: Limits | None = None,
        threads: int | None = 1,
    ) -> None:
        self.source = source
        self._limits = limits or Limits()
        self._threads = thread_count(threads)
        self._held: Held | None = None

    def decode(self, data: bytes) -> TensorMap:
        """The tensors of a feature.

        Whatever it raises, the decoder stays as it was, and the next feature that decodes alone
        does.

        Raises:
            BaseMismatchError: it is of another model, cut or profile, or predicted from a feature
                that did not come.
            FormatError: it is damaged, or asks for more than the limits allow.
        """
        header, chunks = read_feature(bytes(data), self._limits)
        if header.source != self.source.id:
            raise BaseMismatchError(
                "a feature of another model, cut or profile", where="feature",
                found=header.source.hex(), allowed=f"{self.source.id.hex()} ({self.source.cut})",
                remedy="use the same model, cut and profile on both sides",
            )  # fmt: skip
        coded = decode_chunks(header, chunks, self._base(header), self._threads)
        tensors = restored(header, coded, self.source)
        if feature_digest(tensors) != header.digest:
            raise ChecksumError("the digest differs", where="feature", remedy="send it again")
        # Whoever gets the tensors may change them.
        kept = copies_of(coded) if tensors is coded else coded
        self._held = Held(header.digest, kept, header.base is not None)
        return tensors

    def _base(self, header: FeatureHeader) -> TensorMap | None:
        if header.base is None:
            return None
        if self._held is None or self._held.digest != header.base:
            raise BaseMismatchError(
                "the feature that this one is predicted from did not come",
                where=f"feature {header.number}", found=header.base.hex(),
                allowed="none" if self._held is None else self._held.digest.hex(),
                remedy="ask the sender for a key feature",
            )  # fmt: skip
        return self._held.coded
