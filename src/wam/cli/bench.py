"""wam bench: how fast it is, what limits it, and what every speed-up costs.

Example:
    wam bench ladder --json runs/ladder.json
    wam bench latency --chunks 10000
    wam bench loader data/kitchen --embodiment kitchen.yaml
    wam bench serve --sessions 8 --chunks 10000
"""

from __future__ import annotations

from typing import Annotated, Union

import tyro

from wam.cli import bench_ladder, bench_latency, bench_loader, bench_serve
from wam.cli.bench_ladder import Ladder
from wam.cli.bench_latency import Latency
from wam.cli.bench_loader import Loader
from wam.cli.bench_serve import ServeLoad

Bench = Union[  # noqa: UP007  a value, not an annotation
    Annotated[Ladder, tyro.conf.subcommand("ladder", description=bench_ladder.__doc__)],
    Annotated[Latency, tyro.conf.subcommand("latency", description=bench_latency.__doc__)],
    Annotated[Loader, tyro.conf.subcommand("loader", description=bench_loader.__doc__)],
    Annotated[ServeLoad, tyro.conf.subcommand("serve", description=bench_serve.__doc__)],
]


def main(config: Ladder | Latency | Loader | ServeLoad) -> None:
    """Hand over to the sub-verb."""
    if isinstance(config, Ladder):
        bench_ladder.main(config)
    elif isinstance(config, Latency):
        bench_latency.main(config)
    elif isinstance(config, ServeLoad):
        bench_serve.main(config)
    else:
        bench_loader.main(config)
