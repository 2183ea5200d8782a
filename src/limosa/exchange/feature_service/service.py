"""A cloud that runs many tasks on the features that front ends send."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from limosa.codec.constants import FLOAT_DTYPES
from limosa.codec.feature.decode import FeatureDecoder
from limosa.codec.feature.wire import FeatureHeader, read_feature
from limosa.errors import BaseMismatchError, ConfigError, LimitError, NotFoundError
from limosa.exchange.feature_service.batching import Answers, Batcher, Job
from limosa.exchange.feature_service.bounds import Budget
from limosa.exchange.feature_service.cuts import Cut, Profiles, TaskLike, make_cuts
from limosa.exchange.feature_service.metrics import Metrics
from limosa.exchange.feature_service.settings import Settings
from limosa.hub.problems import UnavailableError, UnfitError
from limosa.hub.rates import Rates
from limosa.tensors import TensorMap
from limosa.torch.dtypes import from_tensor

T = TypeVar("T")
# Longer messages are not looked at on the event loop, not even their checksum.
_SHORT = 64 * 1024


class FeatureService:
    """Decodes features and computes what is behind their cut, for many clients at once.

    :class:`~limosa.exchange.feature_service.server.Server` puts it on a network.

    Args:
        model: of which features come; is set to eval mode.
        at: names of the cuts at which it may come apart; ``"a,b"`` is one with two tensors.
        tasks: name -> ``"tail"`` (the rest of the model), or what takes the tensors that cross,
            batch first, and returns a tensor or a dict of tensors, batch first; or a dict of these
            by cut. It may be called from another thread, with features of several clients.
        profile: what calibration found of the cuts, or by cut.
        settings: bounds.
        example: of the model's arguments, where it cannot be cut without.

    Raises:
        ConfigError: a cut or a task is impossible.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> service = FeatureService(model, ["0", "1"], {"class": "tail"})
    >>> service.need(["1"])
    >>> service.needed(["class"])
    ['1']
    """

    def __init__(
        self,
        model: nn.Module,
        at: str | Sequence[str],
        tasks: Mapping[str, TaskLike],
        *,
        profile: Profiles = None,
        settings: Settings | None = None,
        example: Any = None,
    ) -> None:
        self.settings = settings or Settings()
        self.cuts = make_cuts(model, at, tasks, profile, example)
        self.tasks = tuple(tasks)
        self.metrics = Metrics()
        self.rates = Rates(self.settings.rate, self.settings.burst, what="features")
        self.stopping = False
        self._wanted = tuple(self.cuts)
        self._listeners: set[Callable[[], None]] = set()
        self._by_id = {cut.source.id: cut for cut in self.cuts.values()}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._workers: list[asyncio.Task[None]] = []
        self._batchers: dict[str, Batcher] = {}

    async def start(self) -> None:
        """Begin to compute, in the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(self.settings.decode_threads, "limosa-decode")
        # One at a time: a tail uses all processors by itself.
        self._tails = ThreadPoolExecutor(1, "limosa-tail")
        self.budget = Budget(self.settings.max_pending_bytes)
        self.metrics.pending.set_function(lambda: self.budget.used)
        for name, cut in self.cuts.items():
            batcher = Batcher(cut, self.settings, self.metrics, self._tails)
            self._batchers[name] = batcher
            self.metrics.waiting.labels(name).set_function(partial(len, batcher))
            self._workers.append(self._loop.create_task(batcher.run()))

    async def stop(self) -> None:
        """End; what still waits is refused."""
        self.stopping = True
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        for batcher in self._batchers.values():
            batcher.refuse_all()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._tails.shutdown(wait=False, cancel_futures=True)
        self._loop = None

    @property
    def ready(self) -> bool:
        """Whether it takes features."""
        return self._loop is not None and not self.stopping

    # Which cuts are needed

    def need(self, cuts: Iterable[str]) -> None:
        """Ask for features of these cuts, where a task may begin at several.

        Front ends with a stream are told at once, others when they ask. Features of other cuts are
        still answered. May be called from any thread.

        Raises:
            NotFoundError: there is no such cut.
        """
        wanted = tuple(cuts)
        for name in wanted:
            if name not in self.cuts:
                raise NotFoundError("no such cut", found=name, allowed=", ".join(self.cuts))
        self._wanted = (*wanted, *(name for name in self.cuts if name not in wanted))
        if self._loop is not None:
            for listener in tuple(self._listeners):
                self._loop.call_soon_threadsafe(listener)

    def needed(self, tasks: Iterable[str]) -> list[str]:
        """The cuts whose features these tasks need: few, and the wanted ones first."""
        left = list(tasks)
        found = []
        for name in self._wanted:
            here = self.cuts[name].tasks
            if any(task in here for task in left):
                found.append(name)
                left = [task for task in left if task not in here]
        return found

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Have *listener* called, in the event loop, when other cuts are wanted.

        Returns:
            What ends that.
        """
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    def check_tasks(self, tasks: Iterable[str]) -> tuple[str, ...]:
        """Those names, or all there are for none.

        Raises:
            NotFoundError: there is no such task.
        """
        names = tuple(dict.fromkeys(tasks)) or self.tasks
        for name in names:
            if name not in self.tasks:
                allowed = ", ".join(self.tasks)
                raise NotFoundError("no such task", found=repr(name)[:80], allowed=allowed)
        return names

    def describe(self) -> dict[str, Any]:
        """What a front end has to know."""
        bounds, cuts = self.settings, self.cuts.values()
        digest = next(iter(cuts)).source.model.hex()
        return {
            "model": digest,
            "need": self.needed(self.tasks),
            "tasks": {task: [c.at for c in cuts if task in c.tasks] for task in self.tasks},
            "cuts": {
                cut.at: {
                    "source": cut.source.id.hex(),
                    "tensors": list(cut.names),
                    "profile": cut.source.profile is not None,
                }
                for cut in cuts
            },
            "limits": {
                "max_message_bytes": bounds.max_message_bytes,
                "max_total_bytes": bounds.limits.max_total_bytes,
                "rate": bounds.rate,
                "window": bounds.window,
                "batch": bounds.batch,
            },
        }

    # Features

    def cut_of(self, header: FeatureHeader) -> Cut:
        """The cut that a feature is of.

        Raises:
            BaseMismatchError: it is of another model, cut or profile.
        """
        found = self._by_id.get(header.source)
        if found is None:
            raise BaseMismatchError(
                "a feature of another model, cut or profile", where="feature",
                found=header.source.hex(),
                allowed=", ".join(f"{c.source.id.hex()} ({c.at})" for c in self.cuts.values()),
                remedy="use the model and a cut that GET /v1/cuts names",
            )  # fmt: skip
        return found

    def decoder(self, cut: Cut) -> FeatureDecoder:
        """A new decoder for the features of one client."""
        return FeatureDecoder(cut.source, limits=self.settings.limits)

    async def header_of(self, data: bytes) -> FeatureHeader:
        """What a feature says of itself.

        Raises:
            FormatError: it is damaged, or too large.
        """
        if len(data) > self.settings.max_message_bytes:
            raise LimitError(
                "the feature is too long", where="feature", found=f"{len(data)} bytes",
                allowed=f"{self.settings.max_message_bytes}", remedy="code it coarser",
            )  # fmt: skip
        read = partial(read_feature, data, self.settings.limits)
        return (read() if len(data) < _SHORT else await self.in_pool(read))[0]

    async def submit(
        self,
        data: bytes,
        header: FeatureHeader,
        decoder: FeatureDecoder,
        tasks: Iterable[str],
        *,
        patient: bool,
    ) -> asyncio.Future[Answers]:
        """Decode a feature and let it wait for the tails.

        Args:
            data: the feature.
            header: of it.
            decoder: of its client and cut.
            tasks: those that begin elsewhere are left out.
            patient: wait for room, in place of an error.

        Raises:
            BusyError: there is no room.
            FormatError, BaseMismatchError: the feature is damaged, or of another source.
            ConfigError: it holds NaN, or other tensors than those that cross the cut.
        """
        if not self.ready:
            raise UnavailableError("the service stops")
        cut = self.cut_of(header)
        size = sum(spec.nbytes for spec in header.specs)
        if patient:
            await self.budget.wait(size)
        else:
            self.budget.take(size)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answers] = loop.create_future()
        answer.add_done_callback(lambda _: self.budget.give(size))
        try:
            start = time.perf_counter()
            tensors = await self.in_pool(partial(_decode, decoder, data, cut))
            self.metrics.seconds.labels("decode").observe(time.perf_counter() - start)
            job = Job(tensors, tuple(task for task in tasks if task in cut.tasks), answer)
            batcher = self._batchers[cut.at]
            if patient:
                await batcher.put(job)
            else:
                batcher.offer(job)
        except BaseException:
            answer.cancel()
            raise
        return answer

    async def ask(self, data: bytes, tasks: Sequence[str] = ()) -> Answers:
        """The answers to one feature that decodes alone.

        Args:
            data: the feature.
            tasks: names; none for all that begin at its cut.

        Raises:
            LimosaError: as :meth:`submit`; a task begins at another cut; or it fails.
        """
        names = self.check_tasks(tasks)
        header = await self.header_of(data)
        cut = self.cut_of(header)
        names = names if tasks else tuple(cut.tasks)
        elsewhere = [name for name in names if name not in cut.tasks]
        if elsewhere:
            raise BaseMismatchError(
                "this task begins at another cut", where=f"task {elsewhere[0]!r}", found=cut.at,
                allowed=", ".join(c.at for c in self.cuts.values() if elsewhere[0] in c.tasks),
                remedy="send the feature of that cut",
            )  # fmt: skip
        answer = await self.submit(data, header, self.decoder(cut), names, patient=False)
        return await self.wait_for(answer)

    async def wait_for(self, answer: asyncio.Future[Answers]) -> Answers:
        """The answers, if they come in time.

        Raises:
            UnavailableError: they do not.
        """
        try:
            found = await asyncio.wait_for(answer, self.settings.request_s)
        except asyncio.TimeoutError:
            raise UnavailableError("the answer took too long") from None
        for task in found:
            self.metrics.tasks.labels(task).inc()
        return found

    async def in_pool(self, work: Callable[[], T]) -> T:
        """Do what takes long beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _decode(decoder: FeatureDecoder, data: bytes, cut: Cut) -> tuple[torch.Tensor, ...]:
    tensors = decoder.decode(data)
    if set(tensors) != set(cut.names):
        raise ConfigError(
            "other tensors cross this cut", where=f"cut {cut.at!r}",
            found=", ".join(tensors)[:200], allowed=", ".join(cut.names),
        )  # fmt: skip
    _check_finite(tensors)
    return tuple(from_tensor(tensors[name]) for name in cut.names)


def _check_finite(tensors: TensorMap) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype in FLOAT_DTYPES and not np.isfinite(tensor.numpy()).all():
            raise UnfitError(
                "a tensor with NaN or infinity", where=f"tensor {name!r}",
                allowed="finite numbers", remedy="look at the front end",
            )  # fmt: skip
