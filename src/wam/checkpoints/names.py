"""What other projects call our weights: exact, two-way, and strict about whatever does not fit.

Three dialects of one network:
    ours       `Transformer.state_dict()`
    wan        the original Wan files and DreamZero's, which add a prefix (`action_head.model.`), the action modules
               (`.W` and `.b`) and, after LoRA training, `base_model.model.` and `.base_layer.`
    diffusers  `WanTransformer3DModel`; it has no action modules
Ours are Wan's names; only the patch embedding (a convolution there, a linear layer here) and the action modules differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from wam.model.config import TransformerConfig
from wam.model.transformer import Transformer

Dialect = Literal["wan", "diffusers"]
Tensors = Mapping[str, Tensor]

DREAMZERO_PREFIX = "action_head.model."
WRAPPED_PREFIX = "base_model.model."  # in front of every name once peft has wrapped the network
PATCH = "patch_embedding.weight"
CODEC = re.compile(r"^(state_encoder|action_encoder|action_decoder)\.")
ADAPTER = re.compile(r"\.lora_([AB])(\.default)?\.weight$")


@dataclass(frozen=True)
class Part:
    """A group of weights, by a pattern of our names (or of foreign names without counterpart), and a reason."""

    pattern: str
    reason: str

    def has(self, name: str) -> bool:
        return re.search(self.pattern, name) is not None


ACTION_MODULES = Part(CODEC.pattern, "a video model has no action and state modules; they start untrained")
IMAGE_BRANCH = Part(r"(^img_emb\.|_img\.)", "the image branch: Wan2.2-TI2V has none, and a config with image_dim=None")
ADAPTERS = Part(r"\.lora_[AB]\.", "LoRA adapters: merge them first with merge_adapters")
COMPONENTS = (
    Part(r"^action_head\.text_encoder\.", "the text encoder, another component of the same file"),
    Part(r"^action_head\.image_encoder\.", "the image encoder, another component of the same file"),
    Part(r"^action_head\.vae\.", "the video tokenizer, another component of the same file"),
)


# ---------------------------------------------------------------- wan <-> ours


def from_wan(tensors: Tensors) -> dict[str, Tensor]:
    """Original or DreamZero names -> ours; names without counterpart stay, so that a report can list them.

    Raises ValueError when two names of the file mean the same weight.
    """
    ours: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        own = _from_wan_name(name)
        if own in ours:
            raise ValueError(f"{name!r}: the file holds {own!r} twice, under different prefixes; keep one of them")
        ours[own] = tensor.flatten(1) if own == PATCH and tensor.ndim == 5 else tensor
    return ours


def to_wan(tensors: Tensors, config: TransformerConfig, prefix: str = "") -> dict[str, Tensor]:
    """Our names -> original names (prefix "") or DreamZero's (prefix `DREAMZERO_PREFIX`)."""
    return {prefix + _to_wan_name(name): _unflattened(name, tensor, config) for name, tensor in tensors.items()}


def _from_wan_name(name: str) -> str:
    name = name.removeprefix(DREAMZERO_PREFIX).removeprefix(WRAPPED_PREFIX).replace(".base_layer.", ".")
    if ADAPTER.search(name):
        return ADAPTER.sub(r".lora_\1.weight", name)
    if not CODEC.match(name):
        return name
    name = re.sub(r"^action_encoder\.W(\d)\.", r"action_encoder.layer\1.", name)
    return re.sub(r"\.b$", ".bias", re.sub(r"\.W$", ".weight", name))


def _to_wan_name(name: str) -> str:
    if not CODEC.match(name):
        return name
    name = re.sub(r"^action_encoder\.layer(\d)\.", r"action_encoder.W\1.", name)
    return re.sub(r"\.bias$", ".b", re.sub(r"\.weight$", ".W", name))


def _unflattened(name: str, tensor: Tensor, config: TransformerConfig) -> Tensor:
    """The patch embedding as the weight of a convolution, (D, C p p) -> (D, C, 1, p, p)."""
    if name != PATCH:
        return tensor
    return tensor.reshape(tensor.shape[0], config.in_channels, 1, config.patch, config.patch)


# ---------------------------------------------------------------- diffusers <-> ours


def from_diffusers(tensors: Tensors) -> dict[str, Tensor]:
    """diffusers names -> ours; names without counterpart stay, so that a report can list them.

    Raises ValueError when two names of the file mean the same weight.
    """
    ours: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        own = _translate(name, TO_OURS) or name
        if own in ours:
            raise ValueError(f"{name!r}: the file holds {own!r} twice, under different names; keep one of them")
        ours[own] = tensor.flatten(1) if own == PATCH else tensor
    return ours


def to_diffusers(tensors: Tensors, config: TransformerConfig) -> dict[str, Tensor]:
    """Our names -> diffusers names. Action modules have no counterpart there and are left out.

    Raises ValueError naming any other weight that diffusers does not know.
    """
    theirs: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if CODEC.match(name):
            continue
        translated = _translate(name, TO_DIFFUSERS)
        if translated is None:
            raise ValueError(f"{name!r} has no counterpart in diffusers' WanTransformer3DModel")
        theirs[translated] = _unflattened(name, tensor, config)
    return theirs


_GLOBAL = {
    "patch_embedding": "patch_embedding",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "img_emb.proj.0": "condition_embedder.image_embedder.norm1",
    "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
    "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
    "img_emb.proj.4": "condition_embedder.image_embedder.norm2",
    "head.head": "proj_out",
    "head.modulation": "scale_shift_table",
}
_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0", "norm_q": "norm_q", "norm_k": "norm_k"}
_IMAGE = {"k_img": "add_k_proj", "v_img": "add_v_proj", "norm_k_img": "norm_added_k"}
_BLOCK = {
    "modulation": "scale_shift_table",
    "norm3": "norm2",  # Wan's numbers follow the code, diffusers' the order of use
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    **{f"self_attn.{own}": f"attn1.{theirs}" for own, theirs in _ATTENTION.items()},
    **{f"cross_attn.{own}": f"attn2.{theirs}" for own, theirs in {**_ATTENTION, **_IMAGE}.items()},
}
TO_DIFFUSERS = {**_GLOBAL, **{f"blocks.#.{own}": f"blocks.#.{theirs}" for own, theirs in _BLOCK.items()}}
TO_OURS = {theirs: own for own, theirs in TO_DIFFUSERS.items()}


def _translate(name: str, table: Mapping[str, str]) -> str | None:
    """Look the name up with its block number and its .weight or .bias taken off, then put them back."""
    block = re.match(r"^blocks\.(\d+)\.", name)
    stem = name if block is None else f"blocks.#.{name[block.end() :]}"
    ending = next((end for end in (".weight", ".bias") if stem.endswith(end)), "")
    found = table.get(stem.removesuffix(ending))
    if found is None:
        return None
    return (found if block is None else found.replace("#", block[1])) + ending


# ---------------------------------------------------------------- adapters


def merge_adapters(tensors: Tensors, *, scale: float) -> dict[str, Tensor]:
    """Our names with LoRA adapters -> plain weights, W + scale B A; scale = alpha / rank of the training run.

    Raises ValueError naming an adapter whose base weight or other half is missing.
    """
    merged = {name: tensor for name, tensor in tensors.items() if not ADAPTERS.has(name)}
    for name, lower in tensors.items():
        if ADAPTERS.has(name) and name.replace(".lora_B.", ".lora_A.") not in tensors:
            raise ValueError(f"{name!r}: its other half lora_A is missing from the file")
        if not name.endswith(".lora_A.weight"):
            continue
        base, upper = name.replace(".lora_A.", "."), name.replace(".lora_A.", ".lora_B.")
        if base not in merged or upper not in tensors:
            absent = base if base not in merged else upper
            raise ValueError(f"{name!r}: {absent!r} is missing; adapters merge into the weights they were trained on")
        change = scale * (tensors[upper].float() @ lower.float())
        merged[base] = (merged[base].float() + change).to(merged[base].dtype)
    return merged


# ---------------------------------------------------------------- strict loading


@dataclass(frozen=True)
class WrongShape:
    name: str
    found: tuple[int, ...]
    expected: tuple[int, ...]


@dataclass(frozen=True)
class LoadReport:
    """What became of every weight. unused: in the file, left there on purpose.  new: ours, untrained on purpose."""

    loaded: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: tuple[WrongShape, ...]
    unused: Mapping[str, str]
    new: Mapping[str, str]

    @property
    def ok(self) -> bool:
        return not (self.missing or self.unexpected or self.wrong_shape)

    def require_ok(self, source: str) -> None:
        """Raises ValueError with the first of each fault."""
        if self.ok:
            return
        faults = []
        if self.missing:
            faults.append(f"{len(self.missing)} weights are missing (first: {self.missing[0]!r})")
        if self.unexpected:
            faults.append(f"{len(self.unexpected)} are unexpected (first: {self.unexpected[0]!r})")
        if self.wrong_shape:
            first = self.wrong_shape[0]
            faults.append(
                f"{len(self.wrong_shape)} have a wrong shape (first: {first.name!r}, found {list(first.found)}, "
                f"expected {list(first.expected)})"
            )
        raise ValueError(f"{source}: {'; '.join(faults)}; choose the preset that the weights were trained with")


def dialect(names: Iterable[str]) -> Dialect:
    """Whose names these are."""
    return "diffusers" if any(".attn1." in name or name.startswith("condition_embedder.") for name in names) else "wan"


def compare(
    found: Tensors,
    expected: Tensors,
    *,
    new: Sequence[Part] = (),
    unused: Sequence[Part] = (),
) -> LoadReport:
    """Hold weights under our names against a state dict; nothing is copied, so both may be on the meta device.

    new: parts that the file may lack.  unused: parts of the file that may be left out; other components of a DreamZero
    file always are.
    """

    def reason(name: str, parts: Sequence[Part]) -> str | None:
        return next((part.reason for part in parts if part.has(name)), None)

    absent = {name: reason(name, new) for name in expected if name not in found}
    extra = {name: reason(name, (*COMPONENTS, *unused)) for name in found if name not in expected}
    common = [name for name in expected if name in found]
    wrong = [name for name in common if found[name].shape != expected[name].shape]
    return LoadReport(
        loaded=len(common) - len(wrong),
        missing=tuple(name for name, why in absent.items() if why is None),
        unexpected=tuple(name for name, why in extra.items() if why is None),
        wrong_shape=tuple(WrongShape(n, tuple(found[n].shape), tuple(expected[n].shape)) for n in wrong),
        unused={name: why for name, why in extra.items() if why is not None},
        new={name: why for name, why in absent.items() if why is not None},
    )


def load_foreign(
    transformer: Transformer,
    tensors: Tensors,
    *,
    source: str,
    new: Sequence[Part] = (),
    unused: Sequence[Part] = (),
) -> LoadReport:
    """Copy weights of either dialect into a transformer. Raises ValueError before touching it if anything is wrong."""
    ours = from_diffusers(tensors) if dialect(tensors) == "diffusers" else from_wan(tensors)
    report = compare(ours, transformer.state_dict(), new=new, unused=unused)
    report.require_ok(source)
    transformer.load_state_dict({name: ours[name] for name in transformer.state_dict() if name in ours}, strict=False)
    return report
