"""wam bench: how fast it is, what limits it, and what every speed-up costs.

Example:
    wam bench ladder --json runs/ladder.json
    wam bench latency --chunks 10000
    wam bench train --threads 2
    wam bench released --threads 2
    wam bench published --preset dreamzero-droid --device cuda
    wam bench loader data/kitchen --embodiment kitchen.yaml
    wam bench serve --sessions 8 --chunks 10000
"""

from __future__ import annotations

from typing import Annotated, Union

import tyro

from wam.cli import (
    bench_ladder,
    bench_latency,
    bench_loader,
    bench_published,
    bench_released,
    bench_serve,
    bench_train,
)
from wam.cli.bench_ladder import Ladder
from wam.cli.bench_latency import Latency
from wam.cli.bench_loader import Loader
from wam.cli.bench_published import Published
from wam.cli.bench_released import Released
from wam.cli.bench_serve import ServeLoad
from wam.cli.bench_train import Train

Bench = Union[  # noqa: UP007  a value, not an annotation
    Annotated[Ladder, tyro.conf.subcommand("ladder", description=bench_ladder.__doc__)],
    Annotated[Latency, tyro.conf.subcommand("latency", description=bench_latency.__doc__)],
    Annotated[Train, tyro.conf.subcommand("train", description=bench_train.__doc__)],
    Annotated[Released, tyro.conf.subcommand("released", description=bench_released.__doc__)],
    Annotated[Published, tyro.conf.subcommand("published", description=bench_published.__doc__)],
    Annotated[Loader, tyro.conf.subcommand("loader", description=bench_loader.__doc__)],
    Annotated[ServeLoad, tyro.conf.subcommand("serve", description=bench_serve.__doc__)],
]
MAINS = {
    Ladder: bench_ladder.main,
    Latency: bench_latency.main,
    Train: bench_train.main,
    Released: bench_released.main,
    Published: bench_published.main,
    Loader: bench_loader.main,
    ServeLoad: bench_serve.main,
}


def main(config: Bench) -> None:
    """Hand over to the sub-verb."""
    MAINS[type(config)](config)  # type: ignore[operator]
