"""Recordings of episodes for the Rerun viewer (rerun.io): everything that an `EpisodeResult` knows, on one time line.

In a recording are, by control step and by the robot's time:
    real/CAMERA, dream/CAMERA   what was seen, and what it had been imagined to look like
    state, action               every dimension by name: as seen, as sent
    chunk                       all actions of a call, (N, A)
    latency/STAGE               milliseconds of every stage of a call, and of the whole ("call")
    success, sentence           0 or 1; what was asked for from here on
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from wam.data.files import write_atomic
from wam.evaluate.rollout import EpisodeResult
from wam.robot.canvas import split
from wam.robot.embodiment import Embodiment


def rerun_module() -> Any:
    """The module `rerun`. Raises ImportError saying how to install it."""
    try:
        import rerun
        import rerun.blueprint
    except ImportError as error:
        raise ImportError(
            '--rerun needs the package rerun-sdk, which is not installed: pip install -e ".[viz]"'
        ) from error
    return rerun


def write_recording(
    episode: EpisodeResult, robot: Embodiment, target: Path, said: Sequence[tuple[int, str]] | None = None
) -> Path:
    """Write a recorded episode as an .rrd file (atomic); returns `target`.

    said: (control step, sentence) where sentences changed during the episode; the episode's own when left out.
    Raises ValueError when the episode was not recorded; ImportError without the package.
    """
    if episode.frames is None or episode.states is None:
        raise ValueError(f"episode {episode.task!r} seed {episode.seed} has no frames; run it with record=True")
    rerun = rerun_module()
    recording = rerun.RecordingStream("wam")

    def write(temporary: Path) -> None:
        recording.save(temporary, default_blueprint=_blueprint(rerun, robot))
        recording.send_recording_name(f"{episode.task} {episode.seed}")
        _Log(rerun, recording, episode, robot).everything(said or [(0, episode.instruction)])
        recording.flush()
        recording.disconnect()

    write_atomic(target, write)
    return target


def recording_path(target: Path, episode: EpisodeResult, planned: int) -> Path:
    """`target` for a single episode, and with the task and the seed in its name for one of several."""
    if planned == 1:
        return target
    return target.with_name(f"{target.stem}-{episode.task.replace('/', '-')}-{episode.seed}{target.suffix or '.rrd'}")


class _Log:
    """One episode on its way into one recording."""

    def __init__(self, rerun: Any, recording: Any, episode: EpisodeResult, robot: Embodiment) -> None:
        self.rerun, self.recording, self.episode, self.robot = rerun, recording, episode, robot

    def everything(self, said: Sequence[tuple[int, str]]) -> None:
        self._facts()
        self._pictures_and_states()
        self._actions()
        self._calls()
        self._outcome()
        for step, sentence in said:
            self._at(step)
            self.recording.log("sentence", self.rerun.TextLog(sentence))

    def _at(self, step: int) -> None:
        self.recording.set_time("step", sequence=step)
        self.recording.set_time("time", duration=step / self.robot.control_hz)

    def _facts(self) -> None:
        episode = self.episode
        outcome = (
            f"solved after {episode.solved_at} steps" if episode.success else f"not solved in {episode.steps} steps"
        )
        text = f"# {episode.instruction}\n\n{episode.task}, seed {episode.seed}: {outcome}, {episode.chunks} chunks"
        self.recording.log("episode", self.rerun.TextDocument(text, media_type="text/markdown"), static=True)
        for name, labels in (("state", self.robot.state_names), ("action", self.robot.action_names)):
            self.recording.log(name, self.rerun.SeriesLines(names=list(labels)), static=True)

    def _pictures_and_states(self) -> None:
        episode = self.episode
        assert episode.frames is not None and episode.states is not None  # `write_recording` has looked
        for row, step in enumerate(episode.frame_steps):
            self._at(step)
            self.recording.log("state", self.rerun.Scalars(episode.states[row]))
            self._canvas("real", episode.frames[row])
            if episode.dreams is not None and row > 0:  # the first frame is given, not dreamed
                self._canvas("dream", episode.dreams[row])

    def _canvas(self, kind: str, canvas: Any) -> None:
        """As PNG: the very pixels."""
        for camera, view in split(canvas, self.robot).items():
            picture = io.BytesIO()
            Image.fromarray(view).save(picture, format="png")
            encoded = self.rerun.EncodedImage(contents=picture.getvalue(), media_type="image/png")
            self.recording.log(f"{kind}/{camera}", encoded)

    def _actions(self) -> None:
        for step, action in enumerate(self.episode.actions):
            self._at(step)
            self.recording.log("action", self.rerun.Scalars(action))

    def _calls(self) -> None:
        episode = self.episode
        for start, plan, stages, whole in zip(
            episode.chunk_starts, episode.plans, episode.stages, episode.act_seconds, strict=True
        ):
            self._at(start)
            self.recording.log("chunk", self.rerun.Tensor(plan, dim_names=["step", "action"]))
            for stage, seconds in (*stages.items(), ("call", whole)):
                self.recording.log(f"latency/{stage}", self.rerun.Scalars([1000 * seconds]))

    def _outcome(self) -> None:
        solved_at = self.episode.solved_at
        for step in self.episode.frame_steps:
            self._at(step)
            self.recording.log("success", self.rerun.Scalars([float(solved_at is not None and step >= solved_at)]))


def _blueprint(rerun: Any, robot: Embodiment) -> Any:
    """How the viewer lays a recording out: real beside dreamed, numbers below."""
    views = rerun.blueprint
    names = [(kind, camera) for kind in ("real", "dream") for camera in robot.cameras]
    cameras = [views.Spatial2DView(origin=f"{kind}/{camera}", name=f"{kind}: {camera}") for kind, camera in names]
    numbers = [views.TimeSeriesView(origin=name, name=name) for name in ("state", "action", "latency", "success")]
    words = [
        views.TextDocumentView(origin="episode", name="episode"),
        views.TextLogView(origin="sentence", name="sentence"),
        views.TensorView(origin="chunk", name="chunk"),
    ]
    rows = [views.Horizontal(*row) for row in (cameras, numbers, words)]
    return views.Blueprint(views.Vertical(*rows, row_shares=[4, 4, 2]), collapse_panels=True)
