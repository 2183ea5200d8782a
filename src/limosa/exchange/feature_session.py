"""One stream of a client of a service of features: what is under way, and what is sent again."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from limosa.codec.feature.encode import FeatureEncoder
from limosa.codec.feature.wire import read_feature
from limosa.errors import (
    BaseMismatchError,
    ChecksumError,
    CorruptError,
    LimitError,
    LimosaError,
    TransportError,
)
from limosa.exchange.feature_service.answers import from_bitstream
from limosa.exchange.feature_service.batching import Answers
from limosa.hub.problems import (
    CROWDED,
    IDLE,
    STOPPING,
    TOO_LARGE,
    UnavailableError,
    from_problem,
)
from limosa.limits import Limits
from limosa.tensors import TensorMap

if TYPE_CHECKING:
    from limosa.exchange.feature_client import FeatureClient

# How often a feature is sent again, alone, before its error is raised.
_AGAIN = 3


@dataclass(eq=False)
class _Input:
    """An input under way.

    Attributes:
        features: cut -> what crosses there.
        left: messages that are not answered yet -> their cut.
    """

    features: dict[str, TensorMap]
    tasks: tuple[str, ...]
    left: dict[int, str] = field(default_factory=dict)
    answers: Answers = field(default_factory=dict)
    error: LimosaError | None = None
    again: int = 0


class Session:
    """One stream: its encoders, and the inputs under way."""

    def __init__(
        self, client: FeatureClient, socket: ClientConnection, tasks: tuple[str, ...]
    ) -> None:
        self.socket = socket
        self._client, self._tasks = client, tasks
        self._encoders: dict[str, FeatureEncoder] = {}
        self._last_key: dict[str, int] = {}
        self._need: list[str] = []
        self._sent = 0
        self._waiting: deque[_Input] = deque()
        self._by_message: dict[int, _Input] = {}

    def run(self, inputs: Iterable[Any]) -> Iterator[Answers | LimosaError]:
        """The answers, or the error, of each input."""
        self.socket.send(json.dumps({"tasks": list(self._tasks), "answers": "limosa"}))
        while self._tell() != list(self._tasks):
            pass  # the greeting comes first, with all tasks
        for given in inputs:
            features = self._client.features(given, self._need)
            one = _Input(features, self._tasks)
            self._waiting.append(one)
            for cut in features:
                self._send(one, cut)
            while len(self._waiting) >= self._client.window:
                yield from self._finished()
        while self._waiting:
            yield from self._finished()

    def _tell(self) -> list[str]:
        """Take what the service says first; the tasks that it says."""
        told = self._receive()
        if isinstance(told, bytes) or "need" not in told:
            raise TransportError("the service does not say what it needs", where=self._client.url)
        self._need = told["need"]
        tasks: list[str] = told.get("tasks", [])
        return tasks

    def _receive(self) -> Any:
        try:
            received = self.socket.recv(self._client.timeout)
        except TimeoutError:
            raise TransportError("no answer in time", where=self._client.url) from None
        if isinstance(received, bytes):
            self._client.traffic.received += len(received)
            return received
        told = json.loads(received)
        self._client.traffic.received += len(received) if "message" in told else 0
        if "error" in told and "message" not in told:
            raise from_problem(told["error"])
        return told

    def _send(self, one: _Input, cut: str) -> None:
        encoder = self._encoders.get(cut)
        if encoder is None:
            encoder = self._encoders[cut] = self._client.encoder(cut, self._client.key_every)
        tensors = one.features[cut]
        data = encoder.encode(tensors)
        key = read_feature(data, Limits())[0].base is None
        try:
            self._client.count(data, tensors, key)
        except LimitError as error:
            # It was not sent, so the next one cannot be predicted from it.
            encoder.request_key()
            one.error = error
            return
        if key:
            self._last_key[cut] = self._sent
        one.left[self._sent] = cut
        self._by_message[self._sent] = one
        self._sent += 1
        self.socket.send(data)

    def _finished(self) -> Iterator[Answers | LimosaError]:
        """Receive once, then give what is complete at the front."""
        if self._waiting and self._waiting[0].left:
            self._take(self._receive())
        while self._waiting and not self._waiting[0].left:
            one = self._waiting.popleft()
            missing = [task for task in one.tasks if task not in one.answers]
            if one.error is None and missing:
                one.error = CorruptError("an answer lacks a task", found=", ".join(missing))
            yield one.error or {task: one.answers[task] for task in one.tasks}

    def _take(self, told: Any) -> None:
        if isinstance(told, bytes):
            answers, metadata = from_bitstream(told, self._client.limits)
            self._message(int(metadata.get("message", -1)))[0].answers |= answers
        elif "message" in told:
            self._refused(told)
        elif "need" in told:
            self._need = told["need"]
        if not isinstance(told, bytes) and told.get("key") and "message" not in told:
            for encoder in self._encoders.values():
                encoder.request_key()

    def _message(self, number: int) -> tuple[_Input, str]:
        one = self._by_message.pop(number, None)
        if one is None:
            raise CorruptError("an answer to nothing that was sent", found=str(number))
        return one, one.left.pop(number)

    def _refused(self, told: Any) -> None:
        """Send a feature again, alone, if that may help."""
        one, cut = self._message(told["message"])
        error = from_problem(told["error"])
        lost = isinstance(error, (BaseMismatchError, ChecksumError, CorruptError))
        if not (lost and told.get("key")) or one.again >= _AGAIN:
            one.error = error
            return
        one.again += 1
        if told["message"] >= self._last_key.get(cut, 0):
            self._encoders[cut].request_key()
        self._send(one, cut)


def closed(error: ConnectionClosed, url: str) -> LimosaError:
    """A connection that ended, as an error."""
    code = error.rcvd.code if error.rcvd is not None else None
    reason = error.rcvd.reason if error.rcvd is not None else "the connection broke"
    if code == TOO_LARGE:
        return LimitError("the feature is too long", where=url, found=reason)
    if code in (CROWDED, STOPPING, 1012):
        return UnavailableError(reason or "the service stops", where=url)
    if code == IDLE:
        return TransportError(reason, where=url, remedy="send sooner")
    return TransportError(reason or "the service ended the stream", where=url, found=f"code {code}")
