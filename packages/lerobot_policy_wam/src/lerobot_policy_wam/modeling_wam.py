"""A World Action Model as LeRobot's policy: loss on windows for `lerobot-train`, closed loop for `lerobot-eval`."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.constants import SAFETENSORS_SINGLE_FILE
from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor

from lerobot_policy_wam.closed_loop import ClosedLoop
from lerobot_policy_wam.configuration_wam import STATE, WamConfig, is_base
from lerobot_policy_wam.windows import Batch, WindowReader, to_pixels, vectors, with_gaps
from lerobot_policy_wam.world import World
from wam.checkpoints.lora_files import LoraConfig
from wam.data.windows import in_model_units
from wam.engine import Engine, EngineConfig
from wam.flow.sampler import Sampler
from wam.robot.observation import Observation

_OF_THE_HUB = ("revision", "cache_dir", "token", "local_files_only", "force_download")


class WamPolicy(PreTrainedPolicy):
    """`model`, the network, is all that LeRobot trains; the frozen tokenizer and text encoder stand beside it."""

    config_class = WamConfig
    name = "wam"

    def __init__(self, config: WamConfig, *, world: World | None = None, **of_the_data: Any) -> None:
        """world: instead of the base's. of_the_data: what LeRobot tells of its data set; the model carries its own.

        Raises ValueError when the data set or the environment does not act as the robot does.
        """
        super().__init__(config)
        self.config: WamConfig = config
        world = world or World.from_base(config)
        self.model = world.model
        self.world, self.senses = world, world.senses  # neither is a module, so nothing of them is trained or saved
        self.name_or_path = str(config.pretrained_path or config.base)  # peft notes what an adapter belongs to
        self.slot = world.model.config.slot(config.robot)
        self.robot = world.model.config.embodiments[self.slot]
        config.validate_features()
        config.require_actions(self.robot)
        self._reader = WindowReader(self.robot, self.senses.tokenizer, config.chunks)
        self._engine: Engine | None = None
        self._episodes = 0  # begun so far, over all environments
        self.reset()

    # ---------------------------------------------------------------- training

    def get_optim_params(self) -> list[dict[str, Any]]:
        """Decay matrices; leave norms, biases and modulations alone."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        matrices = [p for p in parameters if p.ndim >= 2 and p.shape[0] > 1]
        rest = [p for p in parameters if p.ndim < 2 or p.shape[0] == 1]
        return [{"params": matrices}, {"params": rest, "weight_decay": 0.0}]

    def forward(self, batch: Batch, reduction: str = "mean") -> tuple[Tensor, dict[str, float]]:
        """The loss on a batch of LeRobot's data loader, with its two parts for the log.

        Raises ValueError for a reduction other than "mean": the losses of a batch share one mean over what is real.
        """
        if reduction != "mean":
            raise ValueError(f"reduction is {reduction!r}; this policy gives the mean loss of a batch only")
        generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
        config, device = self.config, next(self.model.parameters()).device
        self.senses.tokenizer.to(device)
        with torch.autocast(device.type, enabled=False):
            windows = with_gaps(self._reader(batch), config.gap_probability, generator)
        windows = in_model_units(windows.to("cpu"), self.model.units(self.slot), self.slot).to(device)
        sentences = [self.robot.prompt(sentence) for sentence in self._tasks(batch, len(windows.state))]
        text = self.senses.text(sentences, config.text_dropout, generator).to(device)
        losses = self.model.loss(windows, text, generator)
        return losses.total, {"video_loss": losses.video.item(), "action_loss": losses.action.item()}

    def _get_default_peft_targets(self) -> dict[str, Any]:
        """For `lerobot-train --peft.method_type=LORA`: adapters in every block, the robots' codec in full."""
        usual = LoraConfig()
        return {"target_modules": list(usual.targets), "modules_to_save": list(usual.full)}

    def _validate_peft_config(self, peft_config: Any) -> None:
        """Raises ValueError where there is nothing to adapt."""
        if self.config.initial != "base" and self.config.pretrained_path is None:
            raise ValueError("policy.initial is 'random': adapters need a trained model below them")

    # ---------------------------------------------------------------- acting

    def reset(self) -> None:
        """New episodes in all environments."""
        loop: ClosedLoop | None = getattr(self, "_loop", None)
        if loop is not None:
            self._episodes += len(loop.sessions)
        self._loop: ClosedLoop | None = None
        self._queue: deque[Tensor] = deque()
        self._elapsed = 0  # control steps since the last chunk

    @torch.no_grad()
    def select_action(self, batch: Batch, **noise: Any) -> Tensor:
        """The action (B, A) of this control step; to be called at every step with what is seen now.

        Every chunk is executed whole (or `n_action_steps` of it), and the frames seen meanwhile enter the memory.
        """
        if not self._queue:
            chunk = self.predict_action_chunk(batch, **noise)
            self._queue.extend(chunk[:, : self.engine.execute].unbind(1))
        else:
            self._elapsed += 1
            if self._elapsed % self.engine.video_stride == 0:
                self.observe(batch)
        return self._queue.popleft()

    @torch.no_grad()
    def observe(self, batch: Batch) -> None:
        """Note what is seen while a chunk is executed, every `engine.video_stride` control steps.

        For programs that call `predict_action_chunk` themselves and want the memory to go on.
        """
        self._closed_loop.observe(self._looks(batch))

    @torch.no_grad()
    def predict_action_chunk(
        self,
        batch: Batch,
        inference_delay: int | None = None,
        prev_chunk_left_over: Tensor | None = None,
        execution_horizon: int | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """The next chunk, (B, N, A), the first action for now.

        Real-time chunking: the first `inference_delay` actions of `prev_chunk_left_over`, (n, A) or (1, n, A), are
        executed while this chunk is being thought out. They are held clean and become its first actions; a model
        trained with prefixes (`supports_rtc`) continues them. What is not certain binds nothing, so `execution_horizon`
        changes nothing here. Raises ValueError for `noise`, which comes from `WamConfig.seed`.
        """
        if noise is not None:
            raise ValueError("noise: this policy draws its own; set policy.seed")
        executing = self._executing(inference_delay, prev_chunk_left_over)
        actions = self._closed_loop.decide(self._looks(batch), executing)
        self._elapsed = 0
        return torch.from_numpy(actions).to(next(self.model.parameters()).device)

    def supports_rtc(self) -> bool:
        """Whether the model learned to continue what is being executed."""
        return self.model.config.noise.prefix_share > 0

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            config = self.config
            sampler: Any = Sampler(steps=config.steps, solver=config.solver, guidance=config.guidance)  # type: ignore[arg-type]
            memory: Any = config.memory
            self.senses.tokenizer.to(next(self.model.parameters()).device)
            options = EngineConfig(sampler=sampler, memory=memory, execute=config.n_action_steps, robot=config.robot)
            self._engine = Engine(self.model, self.senses.tokenizer, self.senses.text_encoder, options)
        return self._engine

    @property
    def _closed_loop(self) -> ClosedLoop:
        if self._loop is None:
            begun = self._episodes
            self._loop = ClosedLoop(self.engine, lambda i: self.config.seed + begun + i)
        return self._loop

    def _looks(self, batch: Batch) -> list[Observation]:
        """What every environment shows now."""
        robot = self.robot
        states = vectors(batch, robot.state, STATE).cpu().numpy()
        if states.ndim != 2:
            raise ValueError(f"{STATE}: found shape {states.shape}, expected (B, {robot.state_dim}), the present alone")
        views = {camera: self._pictures(batch, camera) for camera in robot.cameras}
        sentences = self._tasks(batch, len(states))
        return [
            Observation({name: view[i] for name, view in views.items()}, states[i], sentences[i], timestamp=0.0)
            for i in range(len(states))
        ]

    def _tasks(self, batch: Batch, count: int) -> list[str]:
        """The sentence of every sample. Raises ValueError when one is missing and `policy.instruction` is not set."""
        found = batch.get("task") or ""
        tasks = [found] * count if isinstance(found, str) else list(found)
        if len(tasks) != count:
            raise ValueError(f"batch: 'task' has {len(tasks)} sentences for {count} samples")
        if not all(tasks) and self.config.instruction is None:
            raise ValueError(
                "batch: 'task' is empty, and a World Action Model acts on a sentence; set it with --policy.instruction"
            )
        return [task or str(self.config.instruction) for task in tasks]

    def _pictures(self, batch: Batch, camera: str) -> np.ndarray:
        key = self.robot.camera_key(camera)
        if key not in batch:
            raise ValueError(f"batch: {key!r} is missing; found {sorted(batch)}")
        return to_pixels(batch[key])

    def _executing(self, delay: int | None, left_over: Tensor | None) -> np.ndarray | None:
        """(n, A) of what will be done in any case; nothing before the first chunk, or when there is no delay."""
        if left_over is None or not delay:
            return None
        rows = left_over[0] if left_over.ndim == 3 else left_over
        longest = self.robot.actions_per_chunk - 1
        return rows[: min(delay, longest)].detach().float().cpu().numpy()

    # ---------------------------------------------------------------- on disk

    def _save_pretrained(self, save_directory: Path) -> None:
        super()._save_pretrained(save_directory)
        self.world.save_beside(Path(save_directory))

    @classmethod
    def from_pretrained(
        cls, pretrained_name_or_path: str | Path, *, config: WamConfig | None = None, **kwargs: Any
    ) -> WamPolicy:
        """A checkpoint of LeRobot (a folder or a Hub id), or a base: a folder of `wam train`, or a shipped name."""
        if is_base(pretrained_name_or_path):
            config = config or WamConfig(base=str(pretrained_name_or_path))
            return cls(config).to(config.device).eval()
        folder = Path(pretrained_name_or_path)
        if not folder.is_dir():
            options = {name: value for name, value in kwargs.items() if name in _OF_THE_HUB}
            folder = Path(snapshot_download(str(pretrained_name_or_path), **options))
        if config is None:
            loaded: Any = PreTrainedConfig.from_pretrained(folder)
            config = loaded
        policy = cls(config, world=World.from_checkpoint(folder))
        cls._load_as_safetensor(policy, str(folder / SAFETENSORS_SINGLE_FILE), config.device or "cpu", True)
        return policy.to(config.device).eval()
