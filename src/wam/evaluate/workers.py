"""A small crew of processes that do one job at a time, and say which job it was when something goes wrong.

Jobs are handed out one by one and asked for lazily, so the caller may decide about a job as late as possible. Processes
are spawned, not forked: simulators and torch both keep threads and graphics contexts that do not survive a fork.
"""

from __future__ import annotations

import multiprocessing
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any, Generic, Protocol, TypeVar

from wam.data.errors import PLAIN
from wam.data.interrupts import deaf_to_interrupts

Job = TypeVar("Job")
Answer = TypeVar("Answer")
JobIn = TypeVar("JobIn", contravariant=True)
AnswerOut = TypeVar("AnswerOut", covariant=True)

_PATIENCE = 10.0  # seconds that a worker gets to close its environments


class WorkerError(ChildProcessError):
    """A job failed, or the process that did it died."""


class Worker(Protocol[JobIn, AnswerOut]):
    """What lives in a process: built once, runs many jobs."""

    def run(self, job: JobIn, /) -> AnswerOut: ...

    def close(self) -> None: ...


def run_jobs(
    make_worker: Callable[[], Worker[Job, Answer]],
    jobs: Iterable[Job],
    workers: int,
    describe: Callable[[Job], str] = str,
) -> Iterator[tuple[Job, Answer]]:
    """Yield (job, answer) in the order of completion.

    make_worker: picklable; called once in every process. describe: names a job in error messages.
    Raises WorkerError, naming the job, when it raises or when its process dies; the other processes are ended. What
    went wrong is told by the message of a plain error, and by the trace of any other.
    """
    if workers < 1:
        raise ValueError(f"at least one worker process is needed; found workers={workers}")
    context = multiprocessing.get_context("spawn")
    queue = iter(jobs)
    crew: list[_Member[Job]] = []
    try:
        for job in _first(queue, workers):
            crew.append(_Member.start(context, make_worker, job))
        while busy := [member for member in crew if member.busy]:
            ready = wait([member.pipe for member in busy])
            for member in [m for m in busy if m.pipe in ready]:
                job, answer = member.receive(describe)
                member.give(next(queue, _NOTHING))
                yield job, answer
    finally:
        for member in crew:
            member.stop()


@dataclass
class _Failure:
    """What a worker sends instead of an answer. why: a message, or the trace of an error that nobody foresaw."""

    while_loading: bool
    why: str

    @classmethod
    def of(cls, error: Exception, while_loading: bool) -> _Failure:
        trace = f"in the worker process:\n{traceback.format_exc()}"
        return cls(while_loading, str(error) if isinstance(error, PLAIN) else trace)


_NOTHING: Any = object()


def _first(queue: Iterator[Job], count: int) -> Iterator[Job]:
    for _ in range(count):
        job = next(queue, _NOTHING)
        if job is _NOTHING:
            return
        yield job


@dataclass
class _Member(Generic[Job]):
    """One process as its employer sees it."""

    process: BaseProcess
    pipe: Connection
    job: Job
    busy: bool = True

    @classmethod
    def start(cls, context: SpawnContext, make_worker: Callable[[], Worker[Job, Answer]], job: Job) -> _Member[Job]:
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(make_worker, theirs), daemon=True)
        with deaf_to_interrupts():
            process.start()
        theirs.close()  # so that a dead worker reads as the end of the pipe
        member = cls(process, ours, job)
        member.give(job)
        return member

    def give(self, job: Job) -> None:
        self.busy = job is not _NOTHING
        if self.busy:
            self.job = job
            with suppress(BrokenPipeError, ConnectionResetError):  # it died; receive() says so with the exit code
                self.pipe.send(job)

    def receive(self, describe: Callable[[Job], str]) -> tuple[Job, Any]:
        try:
            answer = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join(_PATIENCE)
            raise WorkerError(
                f"{describe(self.job)}: the worker process died with exit code {self.process.exitcode} "
                "(-9 is usually a lack of memory, -11 a crash inside a native library); finished episodes are kept"
            ) from None
        if isinstance(answer, _Failure):
            what = "the worker could not be set up" if answer.while_loading else f"{describe(self.job)} failed"
            raise WorkerError(f"{what}: {answer.why}")
        return self.job, answer

    def stop(self) -> None:
        """Ask it to go home; a worker in the middle of a job is ended."""
        if self.busy:
            self.process.terminate()
        else:
            _tell(self.pipe, None)
        self.process.join(_PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()


def _serve(make_worker: Callable[[], Worker[Any, Any]], pipe: Connection) -> None:
    """The life of a worker process: build, answer jobs until told to stop, close."""
    worker: Worker[Any, Any] | None = None
    try:
        worker = make_worker()
        _use_one_thread()
        while (job := pipe.recv()) is not None:
            _tell(pipe, worker.run(job))
    except EOFError:
        pass  # the employer is gone
    except Exception as error:
        _tell(pipe, _Failure.of(error, while_loading=worker is None))
    finally:
        if worker is not None:
            worker.close()
        pipe.close()


def _tell(pipe: Connection, message: object) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):  # nobody is left to hear it
        pipe.send(message)


def _use_one_thread() -> None:
    """The processes are the parallelism; more threads than cores make everything slower, and sums less repeatable."""
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)
