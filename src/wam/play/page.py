"""The page: what the robot sees beside what the model dreamed, the action chunk, the time of every stage, the controls.

Made with NiceGUI, whose files all come with it: nothing is fetched from anywhere. Each open window draws the player's
latest snapshot a few times per second; the player does not know that windows exist.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nicegui import app, ui
from starlette.middleware.trustedhost import TrustedHostMiddleware

from wam.encoders.video import FRAMES_PER_LATENT
from wam.evaluate.rollout import Frames
from wam.play import charts
from wam.play.episode import Snapshot
from wam.play.pictures import NOTHING, data_uri
from wam.play.player import Player
from wam.play.style import CSS, STAGES
from wam.robot.embodiment import Embodiment

HOST = "127.0.0.1"
REFRESH = 0.05  # seconds between two looks at the player
SPEEDS = {1.0: "1×", 0.5: "½", 0.25: "¼", 0.1: "⅒"}
PHASES = {  # phase -> words, class of the chip
    "opening": ("opening the scene", "wait"),
    "ready": ("ready", ""),
    "running": ("running", "live"),
    "paused": ("paused", "wait"),
    "over": ("episode over", ""),
    "failed": ("failed", "bad"),
}


@dataclass(frozen=True)
class Show:
    """What the page tells of the model and offers to choose from.

    model: its name.  tasks: name -> how the list calls it.  sentences: offered while one types.
    scene_of: a sentence -> the task that it asks for, or None.
    """

    model: str
    embodiment: Embodiment
    tasks: Mapping[str, str]
    sentences: Sequence[str] = ()
    scene_of: Callable[[str], str | None] = lambda sentence: None


def serve(player: Player, show: Show, port: int, *, open_browser: bool = False) -> None:
    """Serve the page on this machine alone until interrupted; closes the player at the end."""
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])  # no other site's name may lead here
    app.on_shutdown(player.close)
    ui.run(
        lambda: Board(player, show),
        host=HOST,
        port=port,
        title=f"wam play: {show.model}",
        reload=False,
        show=open_browser,
        show_welcome_message=False,
        tailwind=False,
    )


class Board:
    """One window's elements, and how a snapshot is drawn on them."""

    def __init__(self, player: Player, show: Show) -> None:
        self.player, self.show = player, show
        self.drawn = Snapshot(version=-1)
        robot = show.embodiment
        self.frames = robot.frames_per_chunk * FRAMES_PER_LATENT
        ui.add_css(CSS)
        shape = f"--shape: {robot.canvas_width} / {robot.canvas_height}; --frames: {self.frames}"
        with ui.element("div").classes("board").style(shape):
            with ui.element("div").classes("side"):
                self._title()
                self._scene()
                self._sentence()
                self._transport()
            with ui.element("div").classes("stage"):
                self._headline()
                self._now()
                self._chunk()
                self._plots()
        ui.timer(REFRESH, self.refresh)

    # ---------------------------------------------------------------- elements

    def _title(self) -> None:
        with ui.element("div"):
            _text("wam play", "name")
            _text(self.show.model, "soft")

    def _scene(self) -> None:
        with ui.element("div").classes("card"):
            _text("Scene", "label")
            self.task = ui.select(dict(self.show.tasks), with_input=True, on_change=self._chosen).classes("full scene")
            self.task.props("dense options-dense")
            with ui.element("div").classes("row").style("margin-top: 10px"):
                self.number = _text("", "soft number grow")
                _button("Previous", lambda: self._go(-1), "outline")
                _button("Next", lambda: self._go(+1), "outline")

    def _sentence(self) -> None:
        with ui.element("div").classes("card"):
            _text("Sentence", "label")
            self.asked = ui.input(placeholder="say what to do", autocomplete=list(self.show.sentences)).classes("full")
            self.asked.props("dense clearable").on("keydown.enter", self._ask)
            with ui.element("div").classes("row").style("margin-top: 10px"):
                _button("Ask", self._ask, "unelevated").classes("full")
            note = "While it runs, the model reads its memory again under the new sentence, at the next chunk."
            _text(note, "soft").style("margin-top: 8px; line-height: 1.35")

    def _transport(self) -> None:
        with ui.element("div").classes("card"):
            _text("Episode", "label")
            with ui.element("div").classes("row").style("margin-top: 8px"):
                self.play = _button("Start", self._toggle, "unelevated").classes("grow")
                _button("Reset", self.player.reset, "outline").classes("grow")
            with ui.element("div").classes("row").style("margin-top: 8px"):
                _button("One chunk, then pause", self.player.one_chunk, "outline").classes("full")
            _text("Speed of the robot's clock", "soft").style("margin-top: 12px")
            speed = ui.toggle(
                SPEEDS, value=self.player.speed, on_change=lambda event: self.player.set_speed(event.value)
            )
            speed.props("spread unelevated dense no-caps toggle-color=primary").classes("full")
            after = ui.switch("go on after success", value=self.player.past_success).style("margin-top: 6px")
            after.on_value_change(lambda event: self.player.set_past_success(event.value))

    def _headline(self) -> None:
        with ui.element("div").classes("row").style("gap: 12px"):
            self.headline = _text("", "sentence")
            self.unread = _text("read at the next chunk", "chip wait unread")
            self.success = _text("success", "chip good")
            self.phase = _text("", "chip")
            self.step = _text("", "chip number")

    def _now(self) -> None:
        cameras = " · ".join(self.show.embodiment.cameras)
        with ui.element("div").classes("card pair"):
            with ui.element("div"):
                with ui.element("div").classes("caption"):
                    _text("Real: what the cameras see now", "tag real")
                    _text(cameras, "soft")
                self.present = _Picture("real")
            with ui.element("div"):
                with ui.element("div").classes("caption"):
                    _text("Dreamed: this moment, as imagined before", "tag dream")
                self.foreseen = _Picture("dream")

    def _chunk(self) -> None:
        seconds = self.show.embodiment.chunk_seconds
        with ui.element("div").classes("card"):
            with ui.element("div").classes("caption"):
                self.count = _text("The first chunk", "label number strip-title")
                self.quality = _text(f"a chunk is {1000 * seconds:.0f} ms of the robot's time", "soft number")
            with ui.element("div").classes("strip"):
                _text("Dreamed", "tag dream")
                self.dream = [_Picture("dream") for _ in range(self.frames)]
                _text("Real", "tag real")
                self.real = [_Picture("real") for _ in range(self.frames)]
                _text("", "soft")
                for frame in range(self.frames):
                    _text(f"+{1000 * seconds * (frame + 1) / self.frames:.0f} ms", "soft number when")

    def _plots(self) -> None:
        with ui.element("div").classes("pair"):
            with ui.element("div").classes("card"):
                with ui.element("div").classes("caption"):
                    _text("Actions", "label")
                    _text("shaded: the chunk, over control steps", "soft")
                self.actions = ui.echart(charts.actions(self.show.embodiment.action_names)).classes("plot")
            with ui.element("div").classes("card"):
                with ui.element("div").classes("caption"):
                    _text("Time per stage", "label")
                    self.call = _text("", "soft number")
                with ui.element("div").classes("stages number"):
                    self.stages = {stage: _text(stage, "").style(f"--colour: {c}") for stage, c in STAGES.items()}
                self.latency = ui.echart(charts.latency()).classes("plot low")

    # ---------------------------------------------------------------- drawing

    def refresh(self) -> None:
        """Draw what has changed."""
        shown, before = self.player.snapshot(), self.drawn
        if shown.version == before.version:
            return
        self.drawn = shown
        self._draw_words(shown, before)
        self.present.show(shown.present)
        self.foreseen.show(shown.foreseen)
        for frames, pictures in ((shown.dream, self.dream), (shown.real, self.real)):
            for place, picture in enumerate(pictures):
                picture.show(None if frames is None or place >= len(frames) else frames[place])
        if (shown.task, shown.step, shown.chunk) != (before.task, before.step, before.chunk):
            _redraw(self.actions, charts.actions(self.show.embodiment.action_names, shown))
        if (shown.task, shown.chunk) != (before.task, before.chunk):
            _redraw(self.latency, charts.latency(shown.seconds))
            last = shown.seconds[-1] if shown.seconds else {}
            self.call.text = f"last call: {1000 * sum(last.values()):.0f} ms, of which" if last else ""
            for stage, label in self.stages.items():
                label.text = f"{stage} {1000 * last[stage]:.0f}" if stage in last else stage

    def _draw_words(self, shown: Snapshot, before: Snapshot) -> None:
        if shown.task != before.task:
            self.task.value = shown.task
        if shown.sentence != before.sentence:
            self.asked.value = shown.sentence
        words, kind = PHASES[shown.phase]
        self.headline.text = shown.error or shown.sentence
        self.phase.text = words
        self.phase.classes(replace=f"chip {kind}")
        self.step.text = f"step {shown.step} of {shown.limit}"
        self.success.visible = shown.success
        self.unread.visible = not shown.read and shown.phase in ("running", "paused")
        self.number.text = f"initial state {shown.number}"
        self.count.text = f"Chunk {shown.chunk}" if shown.chunk else "The first chunk"
        self.play.text = {"running": "Pause", "paused": "Go on", "over": "Once more"}.get(shown.phase, "Start")
        if (good := shown.quality) is not None and good is not before.quality:
            self.quality.text = (
                f"like the real frames to {good.dreamed:.1f} dB in the last whole chunk; "
                f"a still picture to {good.frozen:.1f} dB"
            )

    # ---------------------------------------------------------------- what people do

    def _chosen(self) -> None:
        if self.task.value is not None and self.task.value != self.player.snapshot().task:
            self.player.choose(self.task.value, self.player.snapshot().number)

    def _go(self, change: int) -> None:
        shown = self.player.snapshot()
        self.player.choose(shown.task, max(0, shown.number + change))

    def _ask(self) -> None:
        """Interrupt with another sentence; before the start, a sentence that belongs to another scene opens it."""
        sentence, shown = (self.asked.value or "").strip(), self.player.snapshot()
        if not sentence:
            return
        scene = self.show.scene_of(sentence) if shown.phase in ("ready", "over") else None
        if scene is not None and scene != shown.task:
            self.player.choose(scene, shown.number, sentence)
        else:
            self.player.say(sentence)

    def _toggle(self) -> None:
        if self.player.snapshot().phase == "running":
            self.player.pause()
        else:
            self.player.start()


class _Picture:
    """An <img> that is only sent again when its pixels are another array's."""

    def __init__(self, kind: str) -> None:
        self.element = ui.element("img").classes(f"shot {kind} empty")
        self.element.props["src"] = NOTHING
        self.shown: Frames | None = None

    def show(self, picture: Frames | None) -> None:
        if _same(picture, self.shown):
            return
        self.shown = picture
        self.element.props["src"] = data_uri(picture)
        self.element.classes(add="empty") if picture is None else self.element.classes(remove="empty")
        self.element.update()


def _same(a: Frames | None, b: Frames | None) -> bool:
    """Whether both are the same array, or the same part of it."""
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and (a is b or bool((a == b).all()))


def _text(words: str, classes: str) -> ui.label:
    return ui.label(words).classes(classes)


def _button(words: str, on_click: Callable[[], None], look: str) -> ui.button:
    return ui.button(words, on_click=on_click).props(f"{look} dense no-caps padding='5px 12px'")


def _redraw(chart: ui.echart, options: Mapping[str, object]) -> None:
    chart.options.clear()
    chart.options.update(options)
    chart.update()
