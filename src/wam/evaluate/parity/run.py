"""Run every golden case of a folder and say how far our numbers are from the other implementation's."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wam.evaluate.parity.golden import CaseResult, Check, GoldenCase, golden_cases
from wam.evaluate.parity.names import check_names
from wam.evaluate.parity.network import check_inference, check_loop, check_training
from wam.evaluate.parity.numbers import check_loss, check_preprocess, check_schedule


@dataclass(frozen=True)
class Runner:
    """Which cases a function checks, by a pattern of their names; note: what they hold that it does not compare."""

    pattern: str
    check: Callable[[GoldenCase], list[Check]]
    note: str = ""


RUNNERS = (
    Runner(r"dit_\w+_train", check_training),
    Runner(r"dit_\w+_infer", check_inference),
    Runner(r"(\w+_)?chunk_loop", check_loop, "similarities are compared through the steps that they decide"),
    Runner(r"schedule", check_schedule, "drawn timesteps are compared as ids, which decide them"),
    Runner(r"loss", check_loss),
    Runner(r"preprocess", check_preprocess),
    Runner(r"manifest\.\w+", check_names),
)


@dataclass(frozen=True)
class ParityReport:
    """Results of the cases that ran, and the names of those that nothing here can check."""

    results: tuple[CaseResult, ...]
    not_covered: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return all(result.ok for result in self.results)

    @property
    def exit_code(self) -> int:
        """0 all within tolerance, 1 something above it, 2 within tolerance but some cases are not covered."""
        if not self.ok:
            return 1
        return 2 if self.not_covered else 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN and infinity become strings."""
        return {
            "ok": self.ok,
            "not_covered": list(self.not_covered),
            "cases": [
                {
                    "case": result.case,
                    "ok": result.ok,
                    "seconds": round(result.seconds, 3),
                    "notes": list(result.notes),
                    "checks": [
                        {**vars(check), "error": _json_number(check.error), "ok": check.ok} for check in result.checks
                    ],
                }
                for result in self.results
            ],
        }


def run_folder(
    folder: Path, only: Iterable[str] = (), on_case: Callable[[str], None] = lambda name: None
) -> ParityReport:
    """Check the cases of a folder, or only the named ones, in float32 on the CPU.

    on_case: told the name of each case before it runs. Raises ValueError naming a file that is missing, or a case that
    is not in the folder.
    """
    cases, wanted = golden_cases(folder), set(only)
    unknown = sorted(wanted - {case.name for case in cases})
    if unknown:
        raise ValueError(f"{folder}: no case {unknown[0]!r}; found {[case.name for case in cases]}")
    results, not_covered = [], []
    for case in cases:
        if wanted and case.name not in wanted:
            continue
        runner = runner_of(case.name)
        if runner is None:
            not_covered.append(case.name)
            continue
        on_case(case.name)
        results.append(_run(case, runner))
    return ParityReport(tuple(results), tuple(not_covered))


def runner_of(case: str) -> Runner | None:
    return next((runner for runner in RUNNERS if re.fullmatch(runner.pattern, case)), None)


def _run(case: GoldenCase, runner: Runner) -> CaseResult:
    start = time.perf_counter()
    try:
        with torch.enable_grad():  # gradients are compared, whatever the caller has switched off
            checks = runner.check(case)
    except KeyError as error:
        raise ValueError(f"{case.folder / case.name}: {error} is missing; the case is incomplete") from error
    return CaseResult(case.name, tuple(checks), time.perf_counter() - start, (runner.note,) if runner.note else ())


def _json_number(value: float) -> float | str:
    return value if abs(value) < float("inf") else str(value)
