"""The linter: looks at a data set before training does, and names what is wrong, where, and what to do about it.

Reading order: `finding` (what comes out), `declared`, `rows` and `films` (what goes in), `survey` (all of it together),
`run` (the list of checks); every other file is one family of checks.
"""

from wam.data.lint.finding import Finding, Report, Severity
from wam.data.lint.run import NAMES, Options, Progress, examine, gather, lint
from wam.data.lint.survey import Survey

__all__ = [
    "NAMES",
    "Finding",
    "Options",
    "Progress",
    "Report",
    "Severity",
    "Survey",
    "examine",
    "gather",
    "lint",
]
