"""Features of many clients through the tails at once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Hashable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial

import torch

from limosa.errors import LimosaError
from limosa.exchange.feature_service.cuts import Cut, Outputs, outputs_of
from limosa.exchange.feature_service.metrics import Metrics
from limosa.exchange.feature_service.settings import Settings
from limosa.hub.problems import BusyError, UnavailableError, UnfitError

log = logging.getLogger("limosa.features")
Answers = dict[str, Outputs]


@dataclass(eq=False)
class Job:
    """One feature that waits for its answers.

    Attributes:
        tensors: what crossed, in the tail's order.
        tasks: what to compute.
        answer: gets the outputs by task.
    """

    tensors: tuple[torch.Tensor, ...]
    tasks: tuple[str, ...]
    answer: asyncio.Future[Answers]
    rows: int | None = field(init=False)
    key: Hashable = field(init=False)

    def __post_init__(self) -> None:
        sizes = {tensor.shape[0] if tensor.dim() else 0 for tensor in self.tensors}
        self.rows = sizes.pop() if len(sizes) == 1 else None
        self.key = object()
        if self.rows:
            self.key = tuple((one.dtype, one.shape[1:]) for one in self.tensors)


class Batcher:
    """The features of one cut, in the order in which they come; belongs to one event loop."""

    def __init__(
        self, cut: Cut, settings: Settings, metrics: Metrics, executor: Executor | None
    ) -> None:
        self._cut, self._settings, self._metrics = cut, settings, metrics
        self._executor = executor
        self._waiting: deque[Job] = deque()
        self._more, self._space = asyncio.Event(), asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def offer(self, job: Job) -> None:
        """Let a feature wait.

        Raises:
            BusyError: as many as may do so already.
        """
        if len(self._waiting) >= self._settings.queue:
            raise BusyError(
                "too many features wait", where=f"cut {self._cut.at!r}",
                found=str(len(self._waiting)), allowed=f"{self._settings.queue}", retry_after=0.1,
            )  # fmt: skip
        self._waiting.append(job)
        self._more.set()

    async def put(self, job: Job) -> None:
        """Let a feature wait as soon as there is room."""
        while True:
            try:
                return self.offer(job)
            except BusyError:
                self._space.clear()
                await self._space.wait()

    async def run(self) -> None:
        """Compute until cancelled."""
        while True:
            while not self._waiting:
                self._more.clear()
                await self._more.wait()
            jobs = await self._gather()
            self._space.set()
            if jobs:
                await self._compute(jobs)

    def refuse_all(self) -> None:
        """Answer what still waits: the service stops."""
        while self._waiting:
            job = self._waiting.popleft()
            if not job.answer.done():
                job.answer.set_exception(UnavailableError("the service stops"))

    async def _gather(self) -> list[Job]:
        """The first feature, and those like it that come in time."""
        jobs: list[Job] = []
        end = time.monotonic() + self._settings.wait_ms / 1000
        while True:
            self._take_alike(jobs)
            left = end - time.monotonic()
            # Others that wait are of another shape: they should not wait for company, too.
            if len(jobs) >= self._settings.batch or left <= 0 or self._waiting or not jobs:
                return jobs
            self._more.clear()
            try:
                await asyncio.wait_for(self._more.wait(), left)
            except asyncio.TimeoutError:
                return jobs

    def _take_alike(self, jobs: list[Job]) -> None:
        others: deque[Job] = deque()
        while self._waiting and len(jobs) < self._settings.batch:
            job = self._waiting.popleft()
            if job.answer.done():
                continue  # its client has gone
            alike = not jobs or job.key == jobs[0].key
            (jobs if alike else others).append(job)
        self._waiting.extendleft(reversed(others))

    async def _compute(self, jobs: list[Job]) -> None:
        self._metrics.batch.observe(len(jobs))
        start = time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._executor, partial(compute, self._cut, jobs))
        except Exception as error:  # the executor itself: whatever a task raises is in `found`
            found = [error] * len(jobs)
        self._metrics.seconds.labels("tail").observe(time.perf_counter() - start)
        for job, result in zip(jobs, found, strict=True):
            if job.answer.done():
                continue
            if isinstance(result, Exception):
                job.answer.set_exception(result)
            else:
                job.answer.set_result(result)


def compute(cut: Cut, jobs: Sequence[Job]) -> list[Answers | Exception]:
    """The answers of each feature; runs in a thread.

    A batch in which a task fails is computed one by one, so that one feature spoils no other.
    """
    found: list[Answers | Exception] = [{} for _ in jobs]
    with torch.inference_mode():
        for task in dict.fromkeys(task for job in jobs for task in job.tasks):
            asking = [number for number, job in enumerate(jobs) if task in job.tasks]
            results = _run(cut, task, [jobs[number] for number in asking])
            for number, result in zip(asking, results, strict=True):
                before = found[number]
                if isinstance(before, Exception):
                    continue
                if isinstance(result, Exception):
                    found[number] = result
                else:
                    before[task] = result
    return found


def _run(cut: Cut, task: str, jobs: Sequence[Job]) -> list[Outputs | Exception]:
    if len(jobs) > 1 and task not in cut.alone:
        try:
            columns = zip(*(job.tensors for job in jobs), strict=True)
            together = outputs_of(cut.tasks[task](*map(torch.cat, columns)))
        except Exception as error:
            log.debug("a batch fails", extra={"task": task, "error": repr(error)})
        else:
            rows = [job.rows or 0 for job in jobs]
            if all(one.dim() and one.shape[0] == sum(rows) for one in together.values()):
                parts = {name: torch.split(one, rows) for name, one in together.items()}
                return [
                    {name: part[number] for name, part in parts.items()}
                    for number in range(len(jobs))
                ]
            cut.alone.add(task)
    return [_run_alone(cut, task, job) for job in jobs]


def _run_alone(cut: Cut, task: str, job: Job) -> Outputs | Exception:
    try:
        # Copies: they may be the base of the next feature, and a task may change what it is given.
        return outputs_of(cut.tasks[task](*(tensor.clone() for tensor in job.tensors)))
    except LimosaError as error:
        return error
    except MemoryError:
        return BusyError("not enough memory", where=f"task {task!r}")
    except Exception as error:
        log.warning("a task fails", extra={"task": task, "error": repr(error)[:500]})
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in job.tensors)
        return UnfitError("the task cannot take this feature", where=f"task {task!r}", found=shapes)
