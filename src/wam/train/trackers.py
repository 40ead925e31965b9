"""Where a run's rows go: always to log.jsonl, and to TensorBoard and Weights & Biases if asked for.

A row is what one moment of the run says, such as {"step": 20, "seconds": 9.1, "video": .., "action": ..}, or
{"step": 20, "seconds": 9.1, "validation": {..}}, for which see `wam.train.validation`. log.jsonl holds it as it is, one
JSON object per line. Trackers get its numbers under the path to them, "training/video" or
"validation/data/mt10/video_at/0.5". A continued run forgets what was said after the checkpoint that it goes on from;
wandb alone cannot forget.
"""

from __future__ import annotations

import importlib.util
import io
import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from wam.data.files import write_atomic
from wam.evaluate.rollout import Frames
from wam.train.config import TrainConfig
from wam.train.provenance import described
from wam.train.samples import Sample

LOG, SAMPLES = "log.jsonl", "samples"
TENSORBOARD, WANDB = "tensorboard", "wandb"  # trackers, their libraries, and their folders below the run's
VALIDATION = "validation"  # key of a validation in its row


class TrackerError(ValueError):
    """A tracker that is asked for cannot be had."""


class Tracker(Protocol):
    """One place besides log.jsonl."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Numbers by name, at this optimiser step."""

    def show(self, sample: Sample, picture: Path, film: Path, step: int) -> None:
        """A dream, and the PNG and the mp4 that it was written to."""

    def close(self) -> None:
        """Everything is said."""


class Trackers:
    """All of a run's, as one: `log` rows, `show` dreams."""

    def __init__(self, config: TrainConfig, step: int = 0) -> None:
        """step: of the checkpoint that the run goes on from.  Raises TrackerError, see `check_trackers`."""
        check_trackers(config.track)
        self.config, self.log_file = config, JsonLines(config.out / LOG)
        self.log_file.forget_after(step)
        self.others: list[Tracker] = []
        if TENSORBOARD in config.track:
            self.others.append(TensorBoard(config.out / TENSORBOARD, step))
        if WANDB in config.track:
            self.others.append(WeightsAndBiases(config))

    def log(self, row: Mapping[str, Any]) -> None:
        """Must have a "step"."""
        self.log_file.append(row)
        values = numbers(row)
        for tracker in self.others:
            tracker.scalars(values, row["step"])

    def show(self, sample: Sample, step: int) -> None:
        """Write a dream into samples/ and hand it on."""
        picture, film = sample.save(self.config.out / SAMPLES, step, self.config.validation.keep_samples)
        for tracker in self.others:
            tracker.show(sample, picture, film, step)

    def close(self) -> None:
        for tracker in self.others:
            tracker.close()


def check_trackers(names: Sequence[str]) -> None:
    """Raises TrackerError naming the library that is missing, before anything costs time."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise TrackerError(
                f"--track {name}: the library {name!r} is not installed; pip install 'wam[track]', or "
                f"leave {name} out (log.jsonl and loss.png are always written)"
            )


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row by their path, without its step; those that are not of a validation under "training/"."""
    found: dict[str, float] = {}

    def collect(values: Mapping[str, Any], path: str) -> None:
        for name, value in values.items():
            if isinstance(value, Mapping):
                collect(value, f"{path}{name}/")
            elif isinstance(value, (int, float)):
                found[f"{path}{name}"] = float(value)

    checks = {name: value for name, value in row.items() if name == VALIDATION}
    collect({name: value for name, value in row.items() if name not in (VALIDATION, "step")}, "training/")
    collect(checks, "")
    return found


# -------------------------------------------------------------------------------- the places


class JsonLines:
    """log.jsonl: a JSON object per line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, row: Mapping[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def forget_after(self, step: int) -> None:
        """Drop rows of later steps, and a last line that was cut off."""
        if not self.path.is_file():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _is_until(line, step)]
        if len(kept) < len(lines):
            text = "".join(f"{line}\n" for line in kept)
            write_atomic(self.path, lambda path: path.write_text(text, encoding="utf-8"))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a log.jsonl; a last line that is still being written, or was cut off, is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = _parsed(line)
        if row is not None:
            rows.append(row)
    return rows


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) else None


def _is_until(line: str, step: int) -> bool:
    row = _parsed(line)
    return row is not None and row.get("step", 0) <= step


class TensorBoard:
    """Event files for `tensorboard --logdir`; a film is a moving GIF among the pictures."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=step + 1)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def show(self, sample: Sample, picture: Path, film: Path, step: int) -> None:
        self._image("samples/strip", picture.read_bytes(), sample.strip(), step)
        frames = sample.film()
        self._image("samples/film", _gif(frames, sample.frame_rate), frames[0], step)
        self.writer.flush()

    def _image(self, name: str, encoded: bytes, frame: Frames, step: int) -> None:
        """An encoded picture as it is: TensorBoard shows PNG and moving GIF."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        height, width = frame.shape[:2]
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encoded)
        summary = Summary(value=[Summary.Value(tag=name, image=image)])
        assert self.writer.file_writer is not None
        self.writer.file_writer.add_summary(summary, step)

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run of wandb, named after the run's folder; a continued run goes on under the same id."""

    def __init__(self, config: TrainConfig) -> None:
        import wandb

        account, offline = config.wandb, config.wandb.mode == "offline"
        (config.out / WANDB).mkdir(parents=True, exist_ok=True)
        try:
            self.run = wandb.init(
                project=account.project,
                entity=account.entity,
                mode=account.mode,
                name=config.out.resolve().name,
                id=_run_id(config.out / WANDB / "run-id"),
                resume=None if offline else "allow",
                dir=str(config.out),
                config=described(config),
                settings=wandb.Settings(console="off", quiet=True, disable_git=True, x_disable_stats=True),
            )
        except wandb.Error as error:
            raise TrackerError(
                f"--track wandb: {error}; log in with `wandb login`, or give --wandb.mode offline"
            ) from error
        self.run.define_metric("*", step_metric="step")
        self._picture, self._film = wandb.Image, wandb.Video

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self.run.log({**values, "step": step})

    def show(self, sample: Sample, picture: Path, film: Path, step: int) -> None:
        strip, moving = self._picture(str(picture)), self._film(str(film), format="mp4")
        self.run.log({"samples/strip": strip, "samples/film": moving, "step": step})

    def close(self) -> None:
        self.run.finish()


def _run_id(path: Path) -> str:
    """The id that this run has at wandb, kept in its folder."""
    if not path.is_file():
        write_atomic(path, lambda temporary: temporary.write_text(uuid.uuid4().hex[:8]))
    return path.read_text()


def _gif(frames: Frames, fps: float) -> bytes:
    """A moving GIF that repeats."""
    pictures = [Image.fromarray(frame) for frame in frames]
    target = io.BytesIO()
    pictures[0].save(
        target, format="GIF", save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0
    )
    return target.getvalue()
