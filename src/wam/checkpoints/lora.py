"""LoRA on the transformer: small adapters that know which base they were trained on.

    adapter = add_lora(transformer, LoraConfig(rank=8, alpha=8))     # freezes the base
    ...                                                              # train what requires gradients
    save_adapter(transformer, adapter, folder)
    load_adapter(transformer, folder)                                # refused on any other base
    merge(transformer)                                               # a plain transformer again

peft does the layers, inside the transformer and without changing its interface. The released code loads an adapter onto
whatever base it finds; here the base's identity (`wam.checkpoints.identity`) is recorded and checked. Released adapters
record none, so only names and shapes can be checked: whether they were trained on raw Wan or on a DreamZero checkpoint
is for the caller to know.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import nn

from wam.checkpoints.identity import identity
from wam.checkpoints.lora_files import (
    LOWER,
    UPPER,
    LoraConfig,
    StoredAdapter,
    WrongBaseError,
    as_peft,
    read_adapter,
    write_adapter,
)
from wam.checkpoints.names import ADAPTERS, from_wan, merge_adapters
from wam.model.transformer import Transformer

__all__ = ["Adapter", "LoraConfig", "WrongBaseError", "add_lora", "load_adapter", "merge", "save_adapter"]
logger = logging.getLogger(__name__)
NAME = "default"  # as peft calls the only adapter


@dataclass(frozen=True)
class Adapter:
    """What a transformer has been given: the configuration, and the identity of the base below it."""

    config: LoraConfig
    base: str


def add_lora(transformer: Transformer, config: LoraConfig | None = None) -> Adapter:
    """Freeze the transformer, put untrained adapters into it (they change nothing yet), leave `config.full` trainable.

    Adapters are float32, whatever the base is; the modules trained in full keep the base's dtype, so train a float32
    base under autocast, as the released training does. Raises ValueError naming a target or module that is not there.
    """
    config = config or LoraConfig()
    _require_no_adapter(transformer)
    _require_targets(transformer, config)
    adapter = Adapter(config, identity(transformer, leave_out=(config.whole,)))
    _inject(transformer, config)
    return adapter


def save_adapter(transformer: Transformer, adapter: Adapter, folder: Path | str, *, place: str | None = None) -> None:
    """Write adapters and the modules trained in full, in peft's layout, with the identity of the base beside them.

    place: where the base is, for peft's `base_model_name_or_path`.  Raises ValueError if the base is no longer what it
    was: without the exact base the adapter would be worthless.
    """
    found = identity(transformer, leave_out=(adapter.config.whole,))
    if found != adapter.base:
        raise ValueError(
            f"the base below the adapter has changed in training (identity {adapter.base[:16]} before, {found[:16]} "
            "now); freeze it, or save the whole model"
        )
    whole = adapter.config.whole
    kept = {n: x for n, x in from_wan(transformer.state_dict()).items() if ADAPTERS.has(n) or whole.has(n)}
    write_adapter(Path(folder), adapter.config, adapter.base, kept, place=place)


def load_adapter(transformer: Transformer, folder: Path | str, *, alpha: float | None = None) -> Adapter:
    """Put a saved adapter on its base: ours, one of peft's, or a released DreamZero one.

    alpha: for released files without a config.json. Raises WrongBaseError, before touching the transformer, if the
    base's identity differs or names and shapes do not fit; another CheckpointError if the files cannot be used.
    """
    _require_no_adapter(transformer)
    stored = read_adapter(folder, alpha=alpha)
    state = transformer.state_dict()
    stored.require_fit(state)
    base = identity(transformer, leave_out=(stored.config.whole,))
    stored.require_base(base)
    if stored.base is None:
        logger.warning("%s: does not say which base it was trained on; only names and shapes are checked", folder)
    _inject(transformer, stored.config)
    _copy(transformer, stored)
    return Adapter(stored.config, base)


def merge(transformer: Transformer) -> int:
    """Write the adapters into the weights and take them out: a plain transformer, trainable as a whole.

    Returns the number of layers merged. Raises ValueError if there is no adapter.
    """
    layers = _adapted(transformer)
    if not layers:
        raise ValueError("the transformer has no adapter to merge; add or load one first")
    for name, layer in layers.items():
        base = cast(nn.Linear, layer.get_submodule("base_layer"))
        weights = {
            f"{name}.weight": base.weight.data,
            f"{name}{LOWER}": layer.get_parameter(f"lora_A.{NAME}.weight").data,
            f"{name}{UPPER}": layer.get_parameter(f"lora_B.{NAME}.weight").data,
        }
        scale = cast(dict[str, float], layer.scaling)[NAME]
        base.weight.data.copy_(merge_adapters(weights, scale=scale)[f"{name}.weight"])
        transformer.set_submodule(name, base)
    transformer.requires_grad_(True)
    return len(layers)


# ---------------------------------------------------------------- layers


def _adapted(transformer: nn.Module) -> dict[str, nn.Module]:
    """Layers that carry an adapter."""
    return {name: module for name, module in transformer.named_modules() if hasattr(module, "lora_A")}


def _require_no_adapter(transformer: Transformer) -> None:
    if _adapted(transformer):
        raise ValueError("the transformer already carries an adapter; merge it first")


def _require_targets(transformer: Transformer, config: LoraConfig) -> None:
    linear = {name for name, module in transformer.named_modules() if isinstance(module, nn.Linear)}
    for target in config.targets:
        if not any(LoraConfig(targets=(target,)).targeted(name) for name in linear):
            known = sorted({name.split(".", 2)[-1] for name in linear if name.startswith("blocks.")})
            raise ValueError(f"LoraConfig.targets: no linear layer ends in {target!r}; layers of a block are {known}")
    for module in config.full:
        if module not in dict(transformer.named_children()):
            known = sorted(name for name, _ in transformer.named_children())
            raise ValueError(f"LoraConfig.full: no module {module!r}; modules are {known}")


def _inject(transformer: Transformer, config: LoraConfig) -> None:
    import peft  # takes seconds, and most commands need no adapter

    transformer.requires_grad_(False)
    peft.inject_adapter_in_model(as_peft(config), transformer, adapter_name=NAME)
    for layer in _adapted(transformer).values():
        for half in ("lora_A", "lora_B"):
            layer.get_submodule(half).float().requires_grad_(True)
    for module in config.full:
        transformer.get_submodule(module).requires_grad_(True)


def _copy(transformer: Transformer, stored: StoredAdapter) -> None:
    """Every tensor of the file into the parameter of its name."""
    own = from_wan(transformer.state_dict())
    for name, tensor in stored.tensors.items():
        own[name].copy_(tensor)
