"""The front end of a service of features: run a head, send what crosses, get answers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

from limosa.codec.config import Lossless
from limosa.codec.feature.encode import FeatureEncoder, FeatureQuality
from limosa.codec.feature.source import FeatureProfile, FeatureSource
from limosa.errors import (
    BaseMismatchError,
    ConfigError,
    LimitError,
    LimosaError,
    MissingExtraError,
    TransportError,
)
from limosa.limits import Limits
from limosa.tensors import TensorMap

try:
    import torch
    from torch import nn
except ModuleNotFoundError:
    raise MissingExtraError.for_extra("torch", "a client of a service of features") from None
try:
    import httpx
    from websockets.exceptions import ConnectionClosed, WebSocketException
    from websockets.sync.client import ClientConnection, connect

    from limosa.exchange.feature_service.answers import BITSTREAM, from_bitstream
    from limosa.exchange.feature_service.batching import Answers
    from limosa.exchange.feature_session import Session, closed
    from limosa.hub.problems import BusyError, from_problem
    from limosa.torch.digest import model_digest
    from limosa.torch.dtypes import to_tensor
    from limosa.torch.features import tap
    from limosa.torch.split import Head, split
except ModuleNotFoundError:
    raise MissingExtraError.for_extra("hub", "a client of a service of features") from None


@dataclass
class Traffic:
    """What a client has sent and received.

    Attributes:
        inputs: that were answered.
        features: messages with a feature, those that were sent again included.
        keys: of these, how many decode alone.
        sent: bytes of features.
        received: bytes of answers.
        elements: of the tensors that crossed.
    """

    inputs: int = 0
    features: int = 0
    keys: int = 0
    sent: int = 0
    received: int = 0
    elements: int = 0


class FeatureClient:
    """Asks a service of features; runs the part of the model before the cuts that it needs.

    One thread at a time may use it.

    Args:
        url: of the service, such as ``"http://cloud:8000"``.
        model: the same as the service's, with the same weights; is set to eval mode.
        quality: of the features, as for :class:`limosa.FeatureEncoder`.
        profile: of the service's cuts, or by cut, if it has any.
        key_every: in a stream, a feature that decodes alone comes at least so often.
        window: inputs of a stream under way.
        retries: of a request that the service is too busy for.
        timeout: seconds for the service to answer.
        example: of the model's arguments, where it cannot be cut without.
        limits: what an answer may ask for.

    Raises:
        TransportError: there is no service.
        BaseMismatchError: the service has another model or profile.

    >>> from limosa.exchange.feature_service.server import Server
    >>> from limosa.exchange.feature_service.service import FeatureService
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    >>> x = torch.ones(1, 4)
    >>> with Server(FeatureService(model, "1", {"class": "tail"})) as server:
    ...     with FeatureClient(server.url, model) as client:
    ...         answers = client.ask(x, ["class"])
    ...         later = [one["class"]["output"] for one in client.stream([x, x + 1])]
    >>> torch.allclose(answers["class"]["output"], model(x)), len(later)
    (True, 2)
    """

    def __init__(
        self,
        url: str,
        model: nn.Module,
        *,
        quality: FeatureQuality | None = None,
        profile: FeatureProfile | Mapping[str, FeatureProfile] | None = None,
        key_every: int = 30,
        window: int = 4,
        retries: int = 5,
        timeout: float = 60.0,
        example: Any = None,
        limits: Limits | None = None,
    ) -> None:
        self.url, self._model, self._example = url.rstrip("/"), model.eval(), example
        self._quality, self._profile = quality or Lossless(), profile
        self.key_every, self.window = key_every, max(1, window)
        self._retries, self.timeout = retries, timeout
        self.limits = limits or Limits()
        self._heads: dict[str, Head] = {}
        self._sources: dict[str, FeatureSource] = {}
        self.traffic = Traffic()
        self._http = httpx.Client(timeout=timeout)
        self._digest = model_digest(model)
        self.service: dict[str, Any] = {}
        try:
            self.refresh()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> FeatureClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connections."""
        self._http.close()

    def refresh(self) -> None:
        """Ask the service anew for its cuts and tasks.

        Raises:
            BaseMismatchError: it has another model or profile.
        """
        self.service = self._request("GET", "/v1/cuts").json()
        if self.service["model"] != self._digest.hex():
            raise BaseMismatchError(
                "the service has another model", where=self.url, found=self.service["model"],
                allowed=self._digest.hex(), remedy="use the same weights on both sides",
            )  # fmt: skip
        self._sources = {name: self._source(name) for name in self.service["cuts"]}

    def _source(self, cut: str) -> FeatureSource:
        known = self._profile
        known = known.get(cut) if isinstance(known, Mapping) else known
        source = FeatureSource(self._digest, cut, known)
        told = self.service["cuts"][cut]
        if source.id.hex() != told["source"]:
            raise BaseMismatchError(
                "the service has another profile", where=f"cut {cut!r}", found=told["source"],
                allowed=source.id.hex(), remedy="pass the profile that the service has",
            )  # fmt: skip
        return source

    # Heads

    def features(self, inputs: Any, cuts: Sequence[str]) -> dict[str, TensorMap]:
        """What crosses these cuts for one input, by cut; the model runs once.

        Args:
            inputs: a tensor, a tuple of arguments, or a dict of them by name.
            cuts: names of cuts of the service.
        """
        heads = {cut: self._head(cut) for cut in cuts}
        with torch.inference_mode():
            if len(heads) == 1:
                (head,) = heads.values()
                crossing = _call(head, inputs)
                values = crossing if isinstance(crossing, tuple) else (crossing,)
                by_name = dict(zip(head.names, values, strict=True))
            else:
                names = list(dict.fromkeys(name for head in heads.values() for name in head.names))
                by_name = _call(tap(self._model, names, self._example), inputs)
        return {
            cut: {name: to_tensor(name, by_name[name]) for name in head.names}
            for cut, head in heads.items()
        }

    def _head(self, cut: str) -> Head:
        if cut not in self._heads:
            self._heads[cut], _ = split(self._model, cut.split(","), self._example)
        return self._heads[cut]

    def encoder(self, cut: str, key_every: int) -> FeatureEncoder:
        """A new encoder for one cut."""
        source = self._sources[cut]
        return FeatureEncoder(source, quality=self._quality, key_every=key_every)

    def count(self, data: bytes, tensors: TensorMap, key: bool) -> None:
        """Note a feature that is about to be sent.

        Raises:
            LimitError: the service would not take it.
        """
        most = self.service["limits"]["max_message_bytes"]
        if len(data) > most:
            raise LimitError(
                "the feature is too long", found=f"{len(data)} bytes", allowed=f"{most}",
                remedy="code it coarser, or send fewer inputs at once",
            )  # fmt: skip
        self.traffic.features += 1
        self.traffic.keys += key
        self.traffic.sent += len(data)
        self.traffic.elements += sum(one.spec("").elements for one in tensors.values())

    # One input

    def ask(self, inputs: Any, tasks: Sequence[str] = ()) -> Answers:
        """The answers to one input: task -> output -> tensor.

        Args:
            inputs: a batch of images, or whatever the model takes, as for :meth:`features`.
            tasks: names; none for all.

        Raises:
            LimosaError: the service refuses the feature, or has no such task.
            TransportError: it is not there, or too busy even when asked again.
        """
        names = self._tasks(tasks)
        cuts = self._needed(names)
        features = self.features(inputs, list(cuts))
        answers: Answers = {}
        for cut, here in cuts.items():
            answers |= self._post(features[cut], cut, here)
        self.traffic.inputs += 1
        return {name: answers[name] for name in names}

    def _tasks(self, tasks: Sequence[str]) -> tuple[str, ...]:
        names = tuple(dict.fromkeys([tasks] if isinstance(tasks, str) else tasks))
        for name in names:
            if name not in self.service["tasks"]:
                raise ConfigError(
                    "no such task", found=repr(name), allowed=", ".join(self.service["tasks"])
                )
        return names or tuple(self.service["tasks"])

    def _needed(self, tasks: Sequence[str]) -> dict[str, list[str]]:
        """The cuts to send, those that the service asks for first, with what begins at each."""
        found: dict[str, list[str]] = {}
        for task in tasks:
            at = self.service["tasks"][task]
            wanted = [cut for cut in (*found, *self.service["need"]) if cut in at]
            found.setdefault((wanted or at)[0], []).append(task)
        return found

    def _post(self, tensors: TensorMap, cut: str, tasks: Sequence[str]) -> Answers:
        data = self.encoder(cut, 1).encode(tensors)
        self.count(data, tensors, True)
        reply = self._request(
            "POST", "/v1/features", params={"task": list(tasks)}, content=data,
            headers={"Accept": BITSTREAM, "Content-Type": BITSTREAM},
        )  # fmt: skip
        self.traffic.received += len(reply.content)
        return from_bitstream(reply.content, self.limits)[0]

    def _request(self, method: str, path: str, **more: Any) -> httpx.Response:
        for attempt in range(self._retries + 1):
            try:
                reply = self._http.request(method, self.url + path, **more)
                if reply.is_success:
                    return reply
                raise _error_of(reply)
            except BusyError as error:
                if attempt == self._retries:
                    raise
                time.sleep(min(error.retry_after * (1 + attempt), 5.0))
            except httpx.HTTPError as error:
                # Asking twice does no harm; a connection may have idled too long.
                if attempt == self._retries or not isinstance(error, httpx.RemoteProtocolError):
                    text = str(error) or type(error).__name__
                    raise TransportError("no answer", where=self.url, found=text) from None
        raise AssertionError("unreachable")

    # Streams

    def stream(
        self,
        inputs: Iterable[Any],
        tasks: Sequence[str] = (),
        *,
        errors: Literal["raise", "return"] = "raise",
    ) -> Iterator[Answers | LimosaError | Any]:
        """The answers to inputs, in their order, each feature predicted from the one before.

        Goes along when the service asks for other cuts, and sends alone what it says is lost.

        Args:
            inputs: as for :meth:`ask`, each.
            tasks: names; none for all.
            errors: what to do when one input is refused: raise that, which ends the stream, or
                give the error in the place of its answers.

        Raises:
            LimosaError: the service refuses a feature.
            TransportError: the connection fails; inputs that were not answered are lost.
        """
        names = self._tasks(tasks)
        with ExitStack() as stack:
            session = Session(self, self._connect(stack), names)
            try:
                for result in session.run(inputs):
                    if isinstance(result, LimosaError) and errors == "raise":
                        raise result
                    if not isinstance(result, LimosaError):
                        self.traffic.inputs += 1
                    yield result
            except ConnectionClosed as error:
                raise closed(error, self.url) from None

    def _connect(self, stack: ExitStack) -> ClientConnection:
        # http… becomes ws…, https… becomes wss….
        address = f"ws{self.url.removeprefix('http')}/v1/stream"
        most = self.limits.max_header_bytes
        try:
            return stack.enter_context(
                connect(address, compression=None, max_size=most, open_timeout=self.timeout)
            )
        except (OSError, WebSocketException) as error:
            raise TransportError("no connection", where=self.url, found=str(error)) from None


def _call(part: Any, inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return part(**inputs)
    return part(*inputs) if isinstance(inputs, (tuple, list)) else part(inputs)


def _error_of(reply: httpx.Response) -> LimosaError:
    try:
        return from_problem(reply.json())
    except (ValueError, TypeError, AttributeError):
        return TransportError("the service fails", found=f"status {reply.status_code}")
