"""What LeRobot has to know of a World Action Model: which rows of a recording it learns from, and how it is trained.

The model itself comes from a *base*: a folder that `wam train` wrote, or a shipped model. Its architecture, video
tokenizer and robot stay; its weights are where training starts from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature
from lerobot.optim.optimizers import AdamWConfig
from lerobot.optim.schedulers import CosineDecayWithWarmupSchedulerConfig
from lerobot.utils.constants import ACTION

from wam.checkpoints.model_folder import CONFIG, SHIPPED, read_config
from wam.data.vectors import columns_of, places
from wam.engine.load import resolve
from wam.robot.embodiment import Embodiment

STATE = "observation.state"


@PreTrainedConfig.register_subclass("wam")
@dataclass
class WamConfig(PreTrainedConfig):
    """`--policy.type=wam`.

    base: folder of a World Action Model, or the name of a shipped one. `pretrained_path` may be such a folder or name
    too; it then is the base.
    robot: which of the base's robots; the first when left out.
    initial: "base" starts from the base's weights, "random" from fresh ones of the same shape.
    chunk_size, video_stride, input_features: control steps per chunk and between frames, and what the robot sees;
    taken from the base.

    Training: `chunks` per window at most; `gap_probability`, share of the windows whose anchor lies further back than
    the first chunk; `text_dropout`, share of samples without their sentence.
    Acting: `steps`, `solver`, `guidance`, `memory` and `n_action_steps` (of every chunk; all when left out) as in
    `wam.engine`; `seed` of the noise: the k-th episode since the policy was made draws from seed + k; `instruction`,
    what to do where the environment does not say.
    """

    base: str = "nano-metaworld"
    robot: str | None = None
    initial: str = "base"
    chunk_size: int | None = None
    video_stride: int | None = None

    chunks: int = 3
    gap_probability: float = 0.3
    text_dropout: float = 0.1

    steps: int = 1
    solver: str = "euler"
    guidance: float = 1.0
    memory: str = "slide"
    n_action_steps: int | None = None
    seed: int = 0
    instruction: str | None = None

    optimizer_lr: float = 3e-4
    optimizer_betas: tuple[float, float] = (0.9, 0.95)
    optimizer_weight_decay: float = 0.01
    optimizer_grad_clip_norm: float = 1.0
    scheduler_warmup_steps: int = 200
    scheduler_decay_steps: int = 30_000
    scheduler_decay_lr: float = 0.0

    # states and actions are scaled inside the model, by the statistics that it was trained with
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: dict.fromkeys(("VISUAL", "STATE", "ACTION"), NormalizationMode.IDENTITY)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pretrained_path is not None and is_base(self.pretrained_path):
            self.base, self.pretrained_path = str(self.pretrained_path), None
        if self.chunk_size is None or self.video_stride is None or not self.input_features:
            robot = self.base_robot()
            self.chunk_size, self.video_stride = robot.actions_per_chunk, robot.video_stride
            self.input_features = features_of(robot)
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"policy.{name} is {getattr(self, name)!r}; expected one of {list(allowed)}")
        for name in ("gap_probability", "text_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"policy.{name} is {getattr(self, name)}; expected a share from 0 to 1")
        if self.chunks < 1:
            raise ValueError(f"policy.chunks is {self.chunks}; expected at least 1 per window")

    def base_robot(self) -> Embodiment:
        """The robot as the base describes it. Raises FileNotFoundError or ValueError naming what there is."""
        config = read_config(resolve(self.base))
        return config.embodiments[config.slot(self.robot)]

    # ---------------------------------------------------------------- what LeRobot asks for

    @property
    def observation_delta_indices(self) -> list[int]:
        """Rows of all frames of a window, the anchor first; states are asked for at the same rows."""
        chunk, stride = self._rows
        return list(range(0, self.chunks * chunk + 1, stride))

    @property
    def action_delta_indices(self) -> list[int]:
        return list(range(self.chunks * self._rows[0]))

    @property
    def reward_delta_indices(self) -> None:
        return None

    def get_optimizer_preset(self) -> AdamWConfig:
        return AdamWConfig(
            lr=self.optimizer_lr,
            betas=self.optimizer_betas,
            weight_decay=self.optimizer_weight_decay,
            grad_clip_norm=self.optimizer_grad_clip_norm,
        )

    def get_scheduler_preset(self) -> CosineDecayWithWarmupSchedulerConfig:
        return CosineDecayWithWarmupSchedulerConfig(
            num_warmup_steps=self.scheduler_warmup_steps,
            num_decay_steps=self.scheduler_decay_steps,
            peak_lr=self.optimizer_lr,
            decay_lr=self.scheduler_decay_lr,
        )

    def validate_features(self) -> None:
        """Raises ValueError without a camera; `require_actions` checks what depends on the robot."""
        if not self.image_features:
            raise ValueError("policy.input_features: no camera; a World Action Model needs one at least")

    def require_actions(self, robot: Embodiment) -> None:
        """Raises ValueError when the data set's or the environment's actions are too narrow for the robot."""
        action = self.action_feature
        needed = max(place.end for place in places(robot.action, ACTION))
        if action is not None and columns_of(robot.action, ACTION) == {ACTION} and action.shape[0] < needed:
            raise ValueError(
                f"policy.output_features: 'action' has {action.shape[0]} dimensions, robot {robot.name!r} needs "
                f"{needed}: {list(robot.action_names)}"
            )

    @property
    def _rows(self) -> tuple[int, int]:
        assert self.chunk_size is not None and self.video_stride is not None  # filled in when made
        return self.chunk_size, self.video_stride


_CHOICES: dict[str, tuple[str, ...]] = {
    "initial": ("base", "random"),
    "solver": ("euler", "unipc"),
    "memory": ("slide", "none"),
}


def features_of(robot: Embodiment) -> dict[str, PolicyFeature]:
    """What the robot sees and feels, by the names that a batch must have (`--rename_map` renames others)."""
    views = {robot.camera_key(camera): (3, robot.view_height, robot.view_width) for camera in robot.cameras}
    widths: dict[str, int] = {}
    for place in places(robot.state, STATE):
        widths[place.key] = max(place.end, widths.get(place.key, 0))
    return {
        **{key: PolicyFeature(FeatureType.VISUAL, shape) for key, shape in views.items()},
        **{key: PolicyFeature(FeatureType.STATE, (width,)) for key, width in widths.items()},
    }


def is_base(path: Path | str) -> bool:
    """Whether this is a model of `wam train` or a shipped one, rather than a checkpoint of LeRobot."""
    config = Path(path) / CONFIG
    if not Path(path).is_dir():
        return (SHIPPED / str(path) / CONFIG).is_file()
    fields: Any = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    return "embodiments" in fields
