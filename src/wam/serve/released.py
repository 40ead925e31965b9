"""Policies that decide for one robot at a time, such as released weights: a policy for each session, one after another.

The networks are shared; what a session remembers is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wam.engine.policy import ActionChunk, Policy
from wam.engine.released_policy import PolicyConfig, ReleasedPolicy
from wam.robot.released import TAGS
from wam.serve.backends import Turn
from wam.serve.metadata import Served


class PolicyBackend:
    """Sessions that are computed one after another."""

    def __init__(self, served: Served, make: Callable[[], Policy]) -> None:
        """make: a policy for a new session; a single observation must let it begin anew."""
        self.served, self._make = served, make

    def open(self, seed: int) -> Policy:
        policy = self._make()
        policy.reset(seed)
        return policy

    def steps(self, turns: Sequence[Turn]) -> list[ActionChunk]:
        if any(turn.executing is not None for turn in turns):
            raise ValueError("'executing': this policy cannot hold actions that are being executed")
        return [turn.memory.act(turn.looks) for turn in turns]

    def warm_up(self, sessions: int) -> None:
        """The first request pays for what happens once."""


@dataclass(frozen=True)
class ReleasedSource:
    """Weights that DreamZero published, in any layout that `wam inspect` knows, as their own server runs them.

    robot: the tag of a robot that the weights know, such as "oxe_droid"; the first that is described when left out.
    frames: looks per chunk, 4 as the released server takes, or 8 at the rate of the training videos.
    """

    checkpoint: str
    robot: str | None = None
    device: str = "cpu"
    threads: int | None = None
    decode_video: bool = False
    frames: int = 4

    def open(self) -> PolicyBackend:
        import torch

        from wam.checkpoints.load import load_published

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        model = load_published(
            self.checkpoint, dtype=torch.bfloat16 if self.device != "cpu" else None, device=self.device
        )
        if model.vae is None or model.text_encoder is None:
            raise ValueError(f"{self.checkpoint}: has no vae or no text_encoder, so it cannot act; see wam inspect")
        vae, text_encoder, image_encoder = model.vae, model.text_encoder, model.image_encoder
        known = [tag for tag in model.robots if tag in TAGS]
        tag = self.robot or (known[0] if known else "")
        robot = model.robot(tag)
        config = PolicyConfig(frames=8 if self.frames == 8 else 4, decode_video=self.decode_video)

        def make() -> ReleasedPolicy:
            see = None if image_encoder is None else image_encoder.encode
            return ReleasedPolicy(model.transformer, vae, text_encoder, see, robot, config)

        first = make()
        served = Served(
            model.source,
            model.identity[:12],
            robot,
            first.execute,
            remembers=True,
            dreams=self.decode_video,
            frames=config.frames,
            stride=first.video_stride,
        )
        return PolicyBackend(served, make)
