"""The crew: every job once, and the name of the job when something breaks."""

from __future__ import annotations

import multiprocessing

import pytest

from tests.evaluate.small_workers import Squarer, Unbuildable
from wam.evaluate.workers import WorkerError, _serve, run_jobs


def describe(job: int) -> str:
    return f"number {job}"


def test_every_job_is_answered_once_by_several_processes() -> None:
    answers = dict(run_jobs(Squarer, [0, 1, 2, 3, 4], workers=2))
    assert {job: square for job, (square, _) in answers.items()} == {0: 0, 1: 1, 2: 4, 3: 9, 4: 16}
    assert len({process for _, process in answers.values()}) == 2


def test_jobs_are_asked_for_as_late_as_possible() -> None:
    """The caller may decide about a job with the answers to all but the last few in hand."""
    answered: list[int] = []
    seen_when_asked = []

    def jobs():
        for job in range(1, 5):
            seen_when_asked.append(len(answered))
            yield job

    for job, _ in run_jobs(Squarer, jobs(), workers=1):
        answered.append(job)
    assert answered == [1, 2, 3, 4]
    assert seen_when_asked == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("worker", "jobs", "message"),
    [
        (Squarer, [1, 13], r"(?s)number 13 failed.*ZeroDivisionError: unlucky"),
        (Squarer, [1, 17], r"number 17: the worker process died with exit code 3"),
        (Unbuildable, [1], r"^the worker could not be set up: no licence for this simulator$"),
        (Squarer, [1, 19], r"^number 19 failed: 19 is not a number for squares$"),
    ],
)
def test_trouble_names_the_job(worker: type[Squarer], jobs: list[int], message: str) -> None:
    with pytest.raises(WorkerError, match=message):
        list(run_jobs(worker, jobs, workers=1, describe=describe))


@pytest.mark.parametrize("job", [0, 13])
def test_a_worker_whose_employer_is_gone_leaves_without_a_word(job: int, capfd: pytest.CaptureFixture[str]) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    ours.send(job)
    process = context.Process(target=_serve, args=(Squarer, theirs))
    process.start()
    theirs.close()
    ours.close()
    process.join(30)
    assert process.exitcode == 0
    assert "Traceback" not in capfd.readouterr().err


def test_what_nobody_foresaw_comes_with_its_trace() -> None:
    with pytest.raises(WorkerError, match=r"(?s)number 13 failed: in the worker process:\nTraceback .*unlucky"):
        list(run_jobs(Squarer, [13], workers=1, describe=describe))


def test_nothing_to_do_starts_nothing() -> None:
    assert list(run_jobs(Unbuildable, [], workers=2)) == []
    with pytest.raises(ValueError, match="workers=0"):
        list(run_jobs(Squarer, [1], workers=0))
