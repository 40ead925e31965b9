"""Smaller weights behind one option: the linear layers of the blocks, through torchao.

| weights       | bits | what is rounded          | runs on                  | error | measured                   |
|---------------|------|--------------------------|--------------------------|-------|----------------------------|
| float32       | 32   | nothing                  | everything               | 0     | CPU                        |
| bf16          | 16   | everything, to bfloat16  | everything               | 0.5 % | CPU, H200                  |
| int8          | 8    | weights                  | everything               | 0.6 % | CPU, H200                  |
| int8-dynamic  | 8    | weights and activations  | everything               | 0.6 % | CPU                        |
| int4          | 4.25 | weights, groups of 128   | CPU; CUDA from 8.0, bf16 | 12 %  | CPU; never run on a GPU    |
| fp8           | 8    | weights                  | everything               | 2.9 % | CPU, H200                  |
| fp8-dynamic   | 8    | weights and activations  | CUDA from 8.9, bf16      | < 8 % | H200                       |
| nvfp4         | 4.5  | weights, groups of 16    | everything               | 11 %  | CPU; never run on a GPU    |
| nvfp4-dynamic | 4.5  | weights and activations  | CUDA from 10.0, bf16     | ?     | never run                  |

Error: of the velocities of a network of two blocks, width 256, with random weights (tests/engine/test_quantize.py holds
twice these values). It orders the formats; what a trained model loses has to be measured on that model.
"Weights" alone: they are widened again for every product, so memory shrinks and speed need not grow. "-dynamic" rounds
the activations too, which is what makes fast 8- and 4-bit products possible. docs/performance.md has the
speed of fp8-dynamic on an H200, and of what a CPU runs.

Left alone, besides norms, modulations and biases (small, and rounding them costs most):
    patch_embedding, head     first and last layer: their error goes straight into the video
    time_embedding, time_projection  a noise level steers every token; 1 % of the weights
    text_embedding, img_emb   run once per prompt, not per step
    action_encoder, action_decoder, state_encoder  few weights, and their error goes straight into the robot
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
from torch import nn

from wam.model.transformer import Transformer

Weights = Literal["float32", "bf16", "int8", "int8-dynamic", "int4", "fp8", "fp8-dynamic", "nvfp4", "nvfp4-dynamic"]
BITS: dict[Weights, float] = {
    "float32": 32,
    "bf16": 16,
    "int8": 8,
    "int8-dynamic": 8,
    "int4": 4.25,  # and a bfloat16 scale and zero point per 128 weights
    "fp8": 8,
    "fp8-dynamic": 8,
    "nvfp4": 4.5,  # and a float8 scale per 16 weights
    "nvfp4-dynamic": 4.5,
}
"""Bits per weight of a block's linear layer, scales included (those per output row are below 1 %)."""
INSTALL = "pip install torchao"
INT4_GROUPS = (128, 64, 32)  # weights that share a scale; the largest that divides a layer's inputs


@dataclass(frozen=True)
class Need:
    """What a format asks for. capability: of the CUDA device, None where a CPU will do.  multiple: of both sides."""

    capability: tuple[int, int] | None = None
    bfloat16: bool = False
    multiple: int = 1


NEEDS: dict[Weights, Need] = {
    "int4": Need(multiple=32),
    "fp8-dynamic": Need((8, 9), bfloat16=True, multiple=16),
    "nvfp4": Need(multiple=16),
    "nvfp4-dynamic": Need((10, 0), bfloat16=True, multiple=16),
}
INT4_ON_CUDA = Need((8, 0), bfloat16=True, multiple=32)


def quantize(
    transformer: Transformer, weights: Weights, device: torch.device | str | None = None, rest: bool = False
) -> Transformer:
    """Change the transformer's weights in place and return it; for inference alone.

    "float32" and "bf16" convert everything; the other formats convert the linear layers of the blocks and leave the
    rest in the type it has, so give a bfloat16 transformer to have the rest in bfloat16.

    device: where it is done; where the weights are, when left out. Layers go there one after the other, so that it
    never holds more than one of them in full, and stay there with everything else; rest: they go back to where they
    were, and all else stays (for blocks that rest on the host, see `BlockOffload`).

    Raises ValueError naming the format's need that is not met (device, type, sizes, merged adapters), and ImportError
    with the line to install torchao.
    """
    if weights not in get_args(Weights):
        raise ValueError(f"weights={weights!r}: expected one of {', '.join(get_args(Weights))}")
    if weights in ("float32", "bf16"):
        transformer.to(torch.float32 if weights == "float32" else torch.bfloat16)
        return transformer if device is None or rest else transformer.to(device)
    layers = quantizable(transformer)
    home = next(iter(layers.values())).weight.device
    place = home if device is None else torch.device(device)
    need = INT4_ON_CUDA if weights == "int4" and place.type == "cuda" else NEEDS.get(weights, Need())
    _require(need, weights, layers, place)
    configuration = _configurations(place.type == "cuda")[weights]
    torchao = _torchao("torchao.quantization")
    for layer in layers.values():
        torchao.quantize_(layer.to(place), configuration(layer))
        if rest:
            layer.to(home)
    if not rest:
        _move_others(transformer, layers, place)
    return transformer


def _move_others(transformer: Transformer, layers: dict[str, nn.Linear], device: torch.device) -> None:
    """Everything but these layers."""
    for name, module in transformer.named_modules():
        if name not in layers:
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                tensor.data = tensor.data.to(device)


def quantizable(transformer: Transformer) -> dict[str, nn.Linear]:
    """The layers that a format applies to, by name: every linear layer of every block.

    Raises ValueError where adapters are in the way, or the layers are quantised already.
    """
    adapted = next((name for name, module in transformer.named_modules() if hasattr(module, "lora_A")), None)
    if adapted is not None:
        raise ValueError(f"{adapted} carries an adapter; merge it first (wam.checkpoints.lora.merge), then quantise")
    found = {n: module for n, module in transformer.named_modules() if isinstance(module, nn.Linear) and "blocks." in n}
    for name, layer in found.items():
        if not _plain(layer.weight):
            raise ValueError(f"{name} is quantised already ({type(layer.weight).__name__}); start from plain weights")
    return found


def _plain(weight: torch.Tensor) -> bool:
    return type(weight) is nn.Parameter and type(weight.data) is torch.Tensor


def _require(need: Need, weights: Weights, layers: dict[str, nn.Linear], device: torch.device) -> None:
    if need.capability is not None:
        _require_gpu(need.capability, weights, device)
    for name, layer in layers.items():
        dtype = layer.weight.dtype
        if need.bfloat16 and dtype != torch.bfloat16:
            raise ValueError(
                f"weights={weights!r} needs a bfloat16 transformer, but {name} is {dtype}; quantize(transformer, "
                "'bf16') first"
            )
        if layer.in_features % need.multiple or layer.out_features % need.multiple:
            raise ValueError(
                f"weights={weights!r} needs layers whose sides are multiples of {need.multiple}, but {name} is "
                f"{layer.out_features} x {layer.in_features}; use 'int8' for this model"
            )


def _require_gpu(needed: tuple[int, int], weights: Weights, device: torch.device) -> None:
    found = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    if found is None or found < needed:
        has = f"the transformer is on {device}" if found is None else f"{device} has {found[0]}.{found[1]}"
        raise ValueError(
            f"weights={weights!r} needs a CUDA device of compute capability {needed[0]}.{needed[1]} or later, but "
            f"{has}; without one use 'int8' or {weights.removesuffix('-dynamic')!r}"
        )


def _configurations(cuda: bool) -> dict[Weights, Callable[[nn.Linear], Any]]:
    """torchao's configuration for a layer, by format."""
    torchao = _torchao("torchao.quantization")

    def int4(layer: nn.Linear) -> Any:
        group = next(size for size in INT4_GROUPS if layer.in_features % size == 0)
        if cuda:
            return torchao.Int4WeightOnlyConfig(
                group_size=group, int4_packing_format="tile_packed_to_4d", set_inductor_config=False
            )
        prototype = _torchao("torchao.prototype.quantization.int4")  # the only packed 4 bits that a CPU runs
        return prototype.PrototypeInt4WeightOnlyConfig(group_size=group, set_inductor_config=False)

    def nvfp4(name: str) -> Callable[[nn.Linear], Any]:
        return lambda _: getattr(_torchao("torchao.prototype.mx_formats"), name)()

    def plain(name: str, **options: Any) -> Callable[[nn.Linear], Any]:
        return lambda _: getattr(torchao, name)(set_inductor_config=False, **options)  # no global settings

    return {
        "int8": plain("Int8WeightOnlyConfig"),
        "int8-dynamic": plain("Int8DynamicActivationInt8WeightConfig"),
        "int4": int4,
        "fp8": plain("Float8WeightOnlyConfig"),
        "fp8-dynamic": plain("Float8DynamicActivationFloat8WeightConfig", granularity=torchao.PerRow()),
        "nvfp4": nvfp4("NVFP4WeightOnlyConfig"),
        "nvfp4-dynamic": nvfp4("NVFP4DynamicActivationNVFP4WeightConfig"),
    }


def _torchao(module: str) -> Any:
    """A module of torchao, imported when a format needs it: it takes seconds."""
    if importlib.util.find_spec("torchao") is None:
        raise ImportError(f"quantised weights need torchao, which is not installed: {INSTALL}")
    return cast(Any, importlib.import_module(module))
