"""What a run has learned so far: weights, averaged weights, moments of the optimiser. Only of what learns.

Whole tensors by name go out and come in, however many processes hold the model and however they have cut it: a run
saved under FSDP2 is read by one process, and the other way round.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from wam.train.parallel import gathered, like, local
from wam.train.schedule import AveragedWeights
from wam.world_action_model import WorldActionModel

WEIGHTS, AVERAGED, MOMENTS = "weights", "averaged", "optimizer"
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class LearnedState:
    """model: unwrapped, its weights whole or sharded.  optimizer: over its parameters."""

    model: WorldActionModel
    averaged: AveragedWeights
    optimizer: torch.optim.Optimizer

    def tensors(self, keep: bool) -> dict[str, dict[str, Tensor]]:
        """Copies on the CPU by file and name. All processes have to ask; without `keep` one only helps the others."""
        parts = {WEIGHTS: self._weights(), AVERAGED: self.averaged.weights, MOMENTS: self._moments()}
        whole: dict[str, dict[str, Tensor]] = {file: {} for file in parts}
        for file, tensors in parts.items():
            for name, tensor in tensors.items():
                complete = gathered(tensor.detach())
                if keep:
                    whole[file][name] = complete.to("cpu", copy=True).contiguous()
        return whole

    @torch.no_grad()
    def load(self, files: Mapping[str, Tensors], source: Path) -> None:
        """Put everything back. Raises ValueError naming the file and the weight that is missing or does not fit."""
        weights = self._weights()
        for file, targets in ((WEIGHTS, weights), (AVERAGED, self.averaged.weights)):
            _check_names(files[file], targets, source / file)
            for name, target in targets.items():
                local(target).copy_(local(_fitted(files[file][name], target, source / file, name)))
        for key in files[MOMENTS]:
            name, _, moment = key.rpartition(".")
            if name not in weights:
                raise ValueError(f"{source / MOMENTS}.safetensors: {name!r} does not learn in this run")
            value, target = files[MOMENTS][key], weights[name]
            own = like(value, target) if value.shape == target.shape else value.to(target.device)  # AdamW's step
            self.optimizer.state[target][moment] = own.clone()  # the file stays as it is

    def _weights(self) -> dict[str, Tensor]:
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}

    def _moments(self) -> dict[str, Tensor]:
        """AdamW's moments by the weight that they belong to, e.g. "transformer.head.head.weight.exp_avg"."""
        state = self.optimizer.state
        return {
            f"{name}.{moment}": torch.as_tensor(value)
            for name, weight in self._weights().items()
            for moment, value in state.get(weight, {}).items()
        }


def hollow(model: WorldActionModel) -> WorldActionModel:
    """The same modules without values, whatever has been put into the model since it was built, such as adapters."""
    empty = {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, dict(empty))


def averaged_model(learned: LearnedState, form: WorldActionModel, keep: bool) -> WorldActionModel | None:
    """The averaged weights in a model like `form`, with those that do not learn as they are.

    All processes have to ask; without `keep` one only helps the others, and gets None. Frozen weights are shared with
    the model in training where that has them whole.
    """
    values: dict[str, Tensor] = {}
    for name, weight in learned.model.state_dict().items():
        value = gathered(learned.averaged.weights.get(name, weight).detach())
        if keep:
            values[name] = value.to(weight.device, weight.dtype, copy=name in learned.averaged.weights)
    if not keep:
        return None
    model = copy.deepcopy(form)
    model.load_state_dict(values, assign=True)
    return model.eval()


def _fitted(value: Tensor, target: Tensor, file: Path, name: str) -> Tensor:
    if value.shape != target.shape:
        raise ValueError(
            f"{file}.safetensors: {name!r} is {list(value.shape)}, this run has {list(target.shape)}; keep the model's "
            "configuration to resume, or give another --out"
        )
    return like(value, target)


def _check_names(found: Tensors, expected: Tensors, file: Path) -> None:
    missing, unexpected = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or unexpected:
        raise ValueError(
            f"{file}.safetensors: does not fit this run: {len(missing)} weights are missing (first: {missing[:1]}), "
            f"{len(unexpected)} unexpected (first: {unexpected[:1]}); keep what learns to resume, or give another --out"
        )
