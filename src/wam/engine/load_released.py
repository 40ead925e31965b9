"""Published weights, ready to act on the hardware there is: what `wam plan` advises, `Fit` turns on.

Everything is loaded to where it rests; the transformer's layers visit the device one by one to be made smaller, so that
a GPU never has to hold what the options keep away from it. Nothing of this has run with the published files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import torch

from wam.checkpoints.identity import identity
from wam.checkpoints.load import Progress, PublishedModel, load_published, load_text_encoder, silent
from wam.checkpoints.lora import load_adapter
from wam.checkpoints.model_folder import published_base, read_robot
from wam.checkpoints.recognise import PARTS
from wam.checkpoints.source import Source, require_parts, resolve
from wam.encoders.text import TextEncoder
from wam.encoders.umt5 import TEXT_LEN
from wam.encoders.video import VideoTokenizer
from wam.engine.compiled import compiled
from wam.engine.placement import BlockOffload, DroppedTextEncoder, OffloadedImageEncoder, OffloadedVideoTokenizer
from wam.engine.quantize import Weights, quantize
from wam.engine.released_policy import ImageEncoder, PolicyConfig, ReleasedPolicy
from wam.robot.embodiment import Embodiment, load_embodiment
from wam.robot.released import TAGS
from wam.world_action_model import Network

WAN_22_FACTOR, CANVAS_5B = 16, (160, 320)
"""The released 5B, on the VAE of Wan 2.2, sees its canvas at this height and width (target_video_height, _width)."""


@dataclass(frozen=True)
class Fit:
    """Where the parts of published weights are, and in which format."""

    weights: Weights | None = None
    """Format of the blocks, see `quantize`; bf16 on a GPU when left out, and as stored on a CPU."""
    text: Literal["device", "cpu", "drop"] = "device"
    """The text encoder (11 GB): on the device, on the CPU, or loaded for a new sentence and dropped after it."""
    image: Literal["device", "cpu", "visit"] = "device"
    """The image encoder: on the device, on the CPU, or visiting the device for each picture."""
    vae: Literal["device", "visit"] = "device"
    """The video VAE: on the device, or visiting it for each call."""
    blocks: int | None = None
    """Blocks of the transformer with a place on the device, at least 2; the others take turns. All when left out."""
    compile: Literal["off", "blocks"] = "off"
    """The blocks through torch.compile, which takes a minute at the start."""

    def __post_init__(self) -> None:
        if self.compile != "off" and self.blocks is not None:
            raise ValueError(
                f"compile={self.compile!r} with blocks={self.blocks}: a block that is brought from the host cannot be "
                "compiled; leave one of the two out"
            )

    def dtype(self, device: str) -> torch.dtype | None:
        """Of all parts, before blocks are made smaller; None: as they are stored."""
        plain: dict[Weights | None, torch.dtype] = {"float32": torch.float32, "bf16": torch.bfloat16}
        return plain.get(self.weights, None if device == "cpu" else torch.bfloat16)

    @property
    def small(self) -> Weights | None:
        """The format that blocks are converted to after loading, if any."""
        return None if self.weights in ("float32", "bf16") else self.weights

    def places(self) -> dict[str, str]:
        """Where each part is loaded to, if not to the device."""
        on_the_host = {
            "transformer": self.small is not None or self.blocks is not None,
            "vae": self.vae == "visit",
            "text_encoder": self.text == "cpu",
            "image_encoder": self.image != "device",
        }
        return {part: "cpu" for part, host in on_the_host.items() if host}


@dataclass(frozen=True)
class ReleasedModel:
    """Networks that any number of sessions share.

    network: what runs in place of the transformer.  identity: of the weights.
    """

    name: str
    identity: str
    model: PublishedModel
    network: Network
    tokenizer: VideoTokenizer
    text_encoder: TextEncoder
    image_encoder: ImageEncoder | None
    robot: Embodiment
    config: PolicyConfig

    def policy(self) -> ReleasedPolicy:
        """A session of its own."""
        return ReleasedPolicy(
            self.model.transformer,
            self.tokenizer,
            self.text_encoder,
            self.image_encoder,
            self.robot,
            self.config,
            self.network,
        )


def load_released(
    source: str | Path,
    robot: str | None = None,
    device: str = "cpu",
    fit: Fit | None = None,
    config: PolicyConfig | None = None,
    progress: Progress = silent,
) -> ReleasedModel:
    """A folder, a Hub id or a preset -> a model that acts; the folder of an adapter, on the base that it names.

    An adapter stays beside its base, as in training: in bf16, merged weights lose what is smaller than their rounding.

    robot: the tag of a robot that the weights know, such as "oxe_droid", or a YAML file with the statistics of its
    numbers; when left out, the one that they were fine-tuned for, or the first that is described.
    device: where the transformer works, and what `fit` does not keep away from it.

    Raises a `CheckpointError` naming what is missing, EmbodimentError for a robot without statistics, and ValueError
    for what the device cannot do (see `quantize`).
    """
    fit, place = fit or Fit(), resolve(source)
    adapter = place.folder if place.found.kind == "adapter" else None
    if adapter is not None:
        place = resolve(published_base(adapter))
        _require_beside(fit, adapter)
    require_parts(place, ("vae", "text_encoder"), "act")
    components = [part for part in PARTS if part != "text_encoder" or fit.text != "drop"]
    model = load_published(
        place, components=components, dtype=fit.dtype(device), device=device, places=fit.places(), progress=progress
    )
    if adapter is not None:
        load_adapter(model.transformer, adapter)
        model = replace(model, source=adapter.name, identity=identity(model.transformer), fitted=read_robot(adapter))
    config = config or PolicyConfig()
    assert model.vae is not None  # looked for above
    if config.canvas_size is None:
        config = replace(config, canvas_size=canvas_of(model.vae))
    return ReleasedModel(
        name=model.source,
        identity=model.identity,
        model=model,
        network=_network(model, device, fit),
        tokenizer=OffloadedVideoTokenizer(model.vae, device) if fit.vae == "visit" else model.vae,
        text_encoder=_text_encoder(model, place, device, fit),
        image_encoder=_image_encoder(model, device, fit),
        robot=_robot(model, robot),
        config=config,
    )


def canvas_of(tokenizer: VideoTokenizer) -> tuple[int, int] | None:
    """The size that a whole canvas is resized to, for the VAE of Wan 2.2; None: it stays as it is."""
    return CANVAS_5B if tokenizer.spatial_factor == WAN_22_FACTOR else None


def _require_beside(fit: Fit, adapter: Path) -> None:
    """Raises ValueError for a layout that an adapter beside its base does not know."""
    if fit.small is not None or fit.blocks is not None:
        raise ValueError(
            f"{adapter}: is an adapter, which runs beside a base in bf16 or float32 that is on the device; for smaller "
            f"weights or blocks on the host merge it first, `wam merge-lora BASE {adapter} OUT`"
        )


def _robot(model: PublishedModel, asked: str | None) -> Embodiment:
    """The robot that is asked for, or that comes with the weights, as wide as their vectors."""
    if asked is None and model.fitted is not None:
        return model.fitted
    if asked is None or Path(asked).suffix not in {".yaml", ".yml"}:
        known = [tag for tag in model.robots if tag in TAGS]
        return model.robot(asked or (known[0] if known else ""))
    c = model.config
    return replace(load_embodiment(asked), state_width=c.state_dim, action_width=c.action_dim)


def _network(model: PublishedModel, device: str, fit: Fit) -> Network:
    """The transformer where it works, in its format."""
    if fit.small is not None:
        quantize(model.transformer, fit.small, device, rest=fit.blocks is not None)
    if fit.blocks is not None:
        BlockOffload(model.transformer, device, fit.blocks)  # its hooks keep it alive
    return compiled(model.transformer, fit.compile)


def _text_encoder(model: PublishedModel, place: Source, device: str, fit: Fit) -> TextEncoder:
    if fit.text != "drop":
        return cast(TextEncoder, model.text_encoder)
    width = model.transformer.config.text_dim
    return DroppedTextEncoder(lambda: load_text_encoder(place, dtype=fit.dtype(device), device=device), TEXT_LEN, width)


def _image_encoder(model: PublishedModel, device: str, fit: Fit) -> ImageEncoder | None:
    if model.image_encoder is None:
        return None
    visits = fit.image == "visit"
    return OffloadedImageEncoder(model.image_encoder, device) if visits else model.image_encoder.encode
