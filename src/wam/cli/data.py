"""wam data: look at a data set before training does: check it, measure it, show it, encode it.

Example:
    wam data lint data/kitchen --embodiment droid-franka --page kitchen.html
    wam data stats data/kitchen --embodiment droid-franka --fill kitchen.yaml
    wam data show data/kitchen --episode 3
    wam data encode data/kitchen --tokenizer runs/tokenizer
"""

from __future__ import annotations

from typing import Annotated, Union

import tyro

from wam.cli import data_encode, data_lint, data_show, data_stats
from wam.cli.data_encode import Encode
from wam.cli.data_lint import Lint
from wam.cli.data_show import Show
from wam.cli.data_stats import Stats

Data = Union[  # noqa: UP007  a value, not an annotation
    Annotated[Lint, tyro.conf.subcommand("lint", description=data_lint.__doc__)],
    Annotated[Stats, tyro.conf.subcommand("stats", description=data_stats.__doc__)],
    Annotated[Show, tyro.conf.subcommand("show", description=data_show.__doc__)],
    Annotated[Encode, tyro.conf.subcommand("encode", description=data_encode.__doc__)],
]


def main(config: Lint | Stats | Show | Encode) -> None:
    """Hand over to the sub-verb."""
    if isinstance(config, Lint):
        data_lint.main(config)
    elif isinstance(config, Stats):
        data_stats.main(config)
    elif isinstance(config, Show):
        data_show.main(config)
    else:
        data_encode.main(config)
