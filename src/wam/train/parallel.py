"""Several processes and one optimiser step: copies of the model (DDP), or a shard of every weight each (FSDP2).

`torchrun` or `accelerate launch` starts the processes, accelerate connects them; alone, a process is its own world. The
same code runs on gloo between CPUs and on NCCL between GPUs: accelerate's FSDP plugin knows GPUs alone, so torch's
`fully_shard` cuts the weights. What all processes must agree on (counts, the clock, when to stop) goes through gloo, so
that nobody waits for a GPU to hear it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal

import torch
from accelerate import PartialState
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from wam.model.precision import Precision, arithmetic, compute_dtype
from wam.world_action_model import WorldActionModel

Parallel = Literal["ddp", "fsdp2"]


class Processes:
    """Those that train together: `rank` of `world`, each with its `device`; `main` is the one that writes."""

    def __init__(self, precision: Precision) -> None:
        started = PartialState(cpu=not torch.cuda.is_available())
        self.rank, self.world = started.process_index, started.num_processes
        self.main, self.device = started.is_main_process, started.device
        self.dtype = compute_dtype(precision, self.device)
        patient = timedelta(days=1)  # while the main process validates, or encodes latents, the others wait
        self._talk = distributed.new_group(backend="gloo", timeout=patient) if distributed.is_initialized() else None

    def wrap(self, model: WorldActionModel, parallel: Parallel) -> nn.Module:
        """The model on its device, so that calling it and `backward` leave the mean of all processes' gradients."""
        if self.world == 1:
            return model.to(self.device)
        if parallel == "fsdp2":
            return _sharded(model, self)
        unused = not model.config.dream  # the video head
        return DistributedDataParallel(model.to(self.device), find_unused_parameters=unused)

    def autocast(self) -> torch.autocast:
        """Arithmetic in the run's precision."""
        return arithmetic(self.dtype, self.device)

    @contextmanager
    def accumulating(self, model: nn.Module, last: bool) -> Iterator[None]:
        """Exchange gradients in the last micro-batch of a step alone."""
        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(last)
            yield
        elif isinstance(model, DistributedDataParallel) and not last:
            with model.no_sync():
                yield
        else:
            yield

    def summed(self, *numbers: float) -> list[float]:
        """Each number's sum over all processes."""
        if self._talk is None:
            return list(numbers)
        total = torch.tensor(numbers, dtype=torch.float64)
        distributed.all_reduce(total, group=self._talk)
        return total.tolist()

    def wait(self) -> None:
        """Until all processes are here."""
        self.summed(0.0)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process goes through, then the others: to find ready what it has made."""
        if not self.main:
            self.wait()
        yield
        if self.main:
            self.wait()


def local(tensor: Tensor) -> Tensor:
    """This process's shard, sharing its memory; the tensor itself where nothing is sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gathered(tensor: Tensor) -> Tensor:
    """The whole tensor on every process. All have to ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(whole: Tensor, target: Tensor) -> Tensor:
    """A tensor that every process has, of the type, on the device and cut as `target` is."""
    moved = whole.to(target.device, target.dtype)
    if not isinstance(target, DTensor):
        return moved
    return distribute_tensor(moved, target.device_mesh, target.placements, src_data_rank=None)


def _sharded(model: WorldActionModel, processes: Processes) -> nn.Module:
    """FSDP2 in place: every block gathers its weights when it runs, in bfloat16 if that is the precision.

    The cross-attention of a block is asked for the prompt's keys before that block runs, so it is a unit of its own.
    Gradients are added up in float32 and then divided, since gloo has no mean.
    """
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")  # nobody writes into keys
    mesh = init_device_mesh(processes.device.type, (processes.world,))
    policy = MixedPrecisionPolicy(param_dtype=processes.dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    blocks: list[Any] = list(model.transformer.blocks)
    for block in blocks:
        fully_shard(block.cross_attn, mesh=mesh, mp_policy=policy)
        register_fsdp_forward_method(block.cross_attn, "text_keys")
        register_fsdp_forward_method(block.cross_attn, "image_keys")
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(True)
    return model
