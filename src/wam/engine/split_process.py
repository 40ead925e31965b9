"""The second process of a split guidance: start it beside ours, meet it, let it follow.

The two meet at a TCP store on this machine, or at `host:port` when they run on two (`follow` is then started there by
hand). Process groups are made without torch's global one, so that a program may have others of its own.
"""

from __future__ import annotations

import atexit
import logging
from datetime import timedelta
from pathlib import Path
from typing import cast

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from wam.checkpoints.model_folder import load_model
from wam.data.interrupts import deaf_to_interrupts
from wam.engine.quantize import Weights, quantize
from wam.engine.split import FOLLOWER, LEADER, Follower, Group, Partner, PartnerLost, Wire

logger = logging.getLogger(__name__)

START = 120.0  # seconds for the other process to import torch and load its weights
PATIENCE = timedelta(days=7)  # the follower may wait that long for the next order


def meet(store: Store, rank: int, device: torch.device, timeout: float = 10.0) -> Wire:
    """Both ranks call this. timeout: seconds of silence after which the other one counts as lost."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = PATIENCE
        return Wire(cast(Group, dist.ProcessGroupNCCL(store, rank, 2, options)), device, timeout)
    return Wire(cast(Group, dist.ProcessGroupGloo(store, rank, 2, PATIENCE)), device, timeout)


def partner_of(device: str) -> str:
    """The device of the partner: the CPU's is the CPU, the first GPU's the second. Raises ValueError for another."""
    if device not in ("cpu", "cuda", "cuda:0"):
        raise ValueError(
            f"device={device!r}: split guidance leads from 'cpu', or from 'cuda:0' with its partner on 'cuda:1'"
        )
    return "cpu" if device == "cpu" else "cuda:1"


def start_partner(
    folder: Path, *, device: str = "cpu", weights: Weights = "float32", joint: bool = True, timeout: float = 10.0
) -> Partner:
    """Start a process with the same weights on its own device, and return what leads it; it ends with us.

    device: of the partner; ours is its type's first ("cuda:1" follows "cuda:0").
    Raises PartnerLost when it does not come up.
    """
    store = TCPStore("127.0.0.1", 0, 2, is_master=True, timeout=timedelta(seconds=START), wait_for_workers=False)
    arguments = (str(folder), f"127.0.0.1:{store.port}", device, weights, joint, torch.get_num_threads(), timeout)
    process = mp.get_context("spawn").Process(target=follow, args=arguments, daemon=True, name="wam-split-guidance")
    with deaf_to_interrupts():
        process.start()
    try:
        store.wait(["follower is ready"], timedelta(seconds=START))
        wire = meet(store, LEADER, torch.device("cuda:0" if device.startswith("cuda") else "cpu"), timeout)
    except RuntimeError as error:
        process.kill()
        raise PartnerLost(f"the partner of split guidance did not start within {START:g} s: {error}") from error
    partner = Partner(wire, process)
    atexit.register(partner.close)
    return partner


def follow(
    folder: str, rendezvous: str, device: str, weights: Weights, joint: bool, threads: int, timeout: float
) -> None:
    """What the second process runs. rendezvous: host:port of the leader's store."""
    torch.set_num_threads(threads)
    host, port = rendezvous.rsplit(":", 1)
    model = load_model(Path(folder)).to(device)
    quantize(model.transformer, weights)
    store = TCPStore(host, int(port), 2, is_master=False, timeout=timedelta(seconds=START))
    store.set("follower is ready", "yes")
    try:
        Follower(model, meet(store, FOLLOWER, torch.device(device), timeout), joint=joint).follow()
    except PartnerLost as lost:
        logger.warning("%s", lost)
