"""Acting through LeRobot's interface is acting with wam's own: the same actions, the same memory."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.factory import make_policy, make_policy_config
from lerobot.policies.rtc.action_queue import ActionQueue
from lerobot.policies.rtc.configuration_rtc import RTCConfig

from lerobot_policy_wam import WamConfig, WamPolicy, WamSimConfig
from lerobot_policy_wam.export import export
from wam.engine import load_policy
from wam.evaluate.rollout import rollout
from wam.robot.observation import Observation
from wam.sim.metaworld import MetaWorldEnv

SEED, STEPS = 100_003, 60  # simulator steps, two for each control step


def batch_of(*looks: Observation) -> dict[str, Any]:
    """What LeRobot's rollout hands to a policy."""
    views = {
        f"observation.images.{name}": torch.stack(
            [torch.from_numpy(look.images[name]).permute(2, 0, 1).float() / 255 for look in looks]
        )
        for name in looks[0].images
    }
    states = torch.stack([torch.from_numpy(look.state) for look in looks])
    return {**views, "observation.state": states, "task": [look.instruction for look in looks]}


def driven(policy: WamPolicy, tasks: list[str]) -> np.ndarray:
    """Actions (B, T, A) of environments in lock step."""
    worlds = [MetaWorldEnv(task) for task in tasks]
    looks = [world.reset(SEED) for world in worlds]
    actions = []
    for _ in range(STEPS // 2):
        action = policy.select_action(batch_of(*looks)).numpy()
        actions.append(action)
        for world, own in zip(worlds, action, strict=True):
            world.step(own)
        looks = [world.observe() for world in worlds]
    for world in worlds:
        world.close()
    return np.stack(actions, axis=1)


def in_process(task: str, seed: int, **options: Any) -> np.ndarray:
    policy, world = load_policy("nano-metaworld", **options), MetaWorldEnv(task)
    policy.reset(seed)
    looks, actions = [world.reset(SEED)], []
    while len(actions) < STEPS // 2:
        chunk, looks = policy.act(looks), []
        for action in chunk.actions[: policy.execute]:
            world.step(action)
            actions.append(action)
            if len(actions) % policy.video_stride == 0:
                looks.append(world.observe())
    world.close()
    return np.array(actions[: STEPS // 2])


def test_one_environment_acts_as_in_process() -> None:
    policy = WamPolicy(WamConfig(device="cpu", seed=7)).eval()
    np.testing.assert_array_equal(driven(policy, ["push"])[0], in_process("push", seed=7))
    policy.reset()  # the second episode has the next seed
    np.testing.assert_array_equal(driven(policy, ["reach"])[0], in_process("reach", seed=8))


def test_several_environments_are_several_sessions() -> None:
    policy = WamPolicy(WamConfig(device="cpu")).eval()
    found = driven(policy, ["push", "reach"])
    np.testing.assert_allclose(found[0], in_process("push", seed=0), atol=1e-4)
    np.testing.assert_allclose(found[1], in_process("reach", seed=1), atol=1e-4)
    with pytest.raises(ValueError, match="1 environments, there were 2"):
        driven(policy, ["push"])


def test_without_memory_chunks_may_be_cut() -> None:
    options: dict[str, Any] = {"memory": "none", "steps": 2}
    policy = WamPolicy(WamConfig(device="cpu", n_action_steps=4, **options)).eval()
    expected = in_process("push", 0, execute=4, **options)
    np.testing.assert_array_equal(driven(policy, ["push"])[0], expected)


def test_a_chunk_asked_for_out_of_turn_starts_anew(caplog: pytest.LogCaptureFixture) -> None:
    policy, world = WamPolicy(WamConfig(device="cpu")).eval(), MetaWorldEnv("push")
    first = batch_of(world.reset(SEED))
    policy.predict_action_chunk(first)
    with caplog.at_level(logging.WARNING):
        policy.predict_action_chunk(first)
        policy.predict_action_chunk(first)
    assert [record.message.split(",")[0] for record in caplog.records] == [
        "a chunk was asked for after 1 looks instead of 4"
    ]
    assert policy._loop is not None and policy._loop.sessions[0].chunk == -1
    world.close()


def test_observed_looks_keep_the_memory() -> None:
    policy, world = WamPolicy(WamConfig(device="cpu")).eval(), MetaWorldEnv("push")
    chunks = [policy.predict_action_chunk(batch_of(world.reset(SEED)))[0]]
    for step, action in enumerate(chunks[0].numpy(), start=1):
        world.step(action)
        if step % 2 == 0 and step < 8:
            policy.observe(batch_of(world.observe()))
    chunks.append(policy.predict_action_chunk(batch_of(world.observe()))[0])
    world.close()
    np.testing.assert_array_equal(torch.cat(chunks).numpy(), in_process("push", 0)[:16])


def test_what_is_executed_meanwhile_is_held() -> None:
    policy, world = WamPolicy(WamConfig(device="cpu")).eval(), MetaWorldEnv("push")
    batch = batch_of(world.reset(SEED))
    world.close()
    left_over = torch.linspace(-1, 1, 20).reshape(5, 4)
    for given in (left_over, left_over[None]):
        policy.reset()
        chunk = policy.predict_action_chunk(batch, inference_delay=3, prev_chunk_left_over=given, execution_horizon=6)
        assert chunk.shape == (1, 8, 4)
        torch.testing.assert_close(chunk[0, :3], left_over[:3], rtol=0, atol=0)
        assert not torch.allclose(chunk[0, 3:5], left_over[3:5])
    assert policy.predict_action_chunk(batch, inference_delay=2, prev_chunk_left_over=None).shape == (1, 8, 4)
    assert not policy.supports_rtc()  # the nano model was trained without prefixes


def test_lerobots_action_queue_continues_what_was_being_executed() -> None:
    """The loop of LeRobot's real-time chunking, on its own queue: three actions pass while the model thinks."""
    policy, world = WamPolicy(WamConfig(device="cpu")).eval(), MetaWorldEnv("push")
    queue, delay, sent = ActionQueue(RTCConfig(enabled=True, execution_horizon=8)), 3, []
    look = world.reset(SEED)
    for _ in range(4):
        left_over, before = queue.get_left_over(), queue.get_action_index()
        chunk = policy.predict_action_chunk(
            batch_of(look), inference_delay=delay, prev_chunk_left_over=left_over, execution_horizon=8
        )[0]
        passed = delay if left_over is not None else 0
        meanwhile = [action for _ in range(passed) if (action := queue.get()) is not None]
        if passed:
            torch.testing.assert_close(chunk[:delay], torch.stack(meanwhile), rtol=0, atol=0)
        queue.merge(chunk, chunk, passed, before)
        played = [*meanwhile, *(queue.get() for _ in range(5 - passed))]
        for action in played:
            assert action is not None
            world.step(action.numpy())
            sent.append(action)
        look = world.observe()
    world.close()
    assert len(sent) == 20


def test_noise_is_refused_and_a_sentence_is_needed() -> None:
    policy, world = WamPolicy(WamConfig(device="cpu")).eval(), MetaWorldEnv("push")
    batch = batch_of(world.reset(SEED))
    world.close()
    with pytest.raises(ValueError, match="noise"):
        policy.predict_action_chunk(batch, noise=torch.zeros(1))
    with pytest.raises(ValueError, match="--policy.instruction"):
        policy.predict_action_chunk({**batch, "task": [""]})
    with pytest.raises(ValueError, match="observation.images.top"):
        policy.predict_action_chunk({k: v for k, v in batch.items() if not k.endswith(".top")})
    told = WamPolicy(WamConfig(device="cpu", instruction=batch["task"][0])).eval()
    expected = WamPolicy(WamConfig(device="cpu")).eval().predict_action_chunk(batch)
    torch.testing.assert_close(told.predict_action_chunk({**batch, "task": [""]}), expected)


# ---------------------------------------------------------------- configuration and disk


def test_a_base_as_pretrained_path() -> None:
    config = make_policy_config("wam", pretrained_path=Path("nano-metaworld"), device="cpu")
    assert isinstance(config, WamConfig)
    assert (config.base, config.pretrained_path) == ("nano-metaworld", None)
    assert (config.chunk_size, config.video_stride) == (8, 2)
    assert config.observation_delta_indices == list(range(0, 25, 2))
    assert config.action_delta_indices == list(range(24))
    same = WamPolicy.from_pretrained("nano-metaworld", config=config)
    assert same.robot.name == "metaworld-sawyer"


def test_cameras_of_other_names_are_renamed_or_refused_by_lerobot() -> None:
    env = WamSimConfig()
    env.features_map = {
        key: name.replace(".top", ".overhead").replace(".side", ".left") for key, name in env.features_map.items()
    }
    renamed = {
        f"observation.images.{theirs}": f"observation.images.{ours}"
        for theirs, ours in (("overhead", "top"), ("left", "side"))
    }
    policy = make_policy(WamConfig(device="cpu"), env_cfg=env, rename_map=renamed)
    assert set(policy.config.image_features) == {"observation.images.top", "observation.images.side"}
    with pytest.raises(ValueError, match="overhead"):
        make_policy(WamConfig(device="cpu"), env_cfg=env)


def test_an_environment_with_too_few_actions_is_refused() -> None:
    env = WamSimConfig()
    env.features["action"] = PolicyFeature(FeatureType.ACTION, (3,))
    with pytest.raises(ValueError, match="'action' has 3 dimensions, robot 'metaworld-sawyer' needs 4"):
        make_policy(WamConfig(device="cpu"), env_cfg=env)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"base": "nowhere"}, "nowhere"),
        ({"robot": "panda"}, "panda"),
        ({"memory": "long"}, "policy.memory"),
        ({"chunks": 0}, "policy.chunks"),
        ({"text_dropout": 2.0}, "policy.text_dropout"),
    ],
)
def test_what_is_wrong_is_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=named):
        WamConfig(device="cpu", **options)


def test_only_the_network_is_in_the_registry() -> None:
    policy = WamPolicy(WamConfig(device="cpu"))
    assert all(name.startswith("model.transformer.") for name in policy.state_dict())
    assert not any(p.requires_grad for p in policy.world.tokenizer.parameters())
    groups = policy.get_optim_params()
    assert sum(len(group["params"]) for group in groups) == len(list(policy.parameters()))


def test_random_weights_have_the_shape_of_the_base() -> None:
    torch.manual_seed(0)
    fresh, base = (WamPolicy(WamConfig(device="cpu", initial=name)) for name in ("random", "base"))
    ours, theirs = fresh.state_dict(), base.state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    assert not torch.equal(
        ours["model.transformer.patch_embedding.weight"], theirs["model.transformer.patch_embedding.weight"]
    )


def test_saved_loaded_and_exported_it_acts_the_same(tmp_path: Path) -> None:
    policy = WamPolicy(WamConfig(device="cpu")).eval()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.01)  # so that it is not the base any more
    policy.save_pretrained(tmp_path / "saved")
    config = PreTrainedConfig.from_pretrained(tmp_path / "saved")
    assert isinstance(config, WamConfig)
    config.base = "gone"
    config.device = "cpu"
    again = WamPolicy.from_pretrained(tmp_path / "saved", config=config)
    expected = driven(policy, ["push"])
    np.testing.assert_array_equal(driven(again, ["push"]), expected)
    export(tmp_path / "saved", tmp_path / "exported")
    result = rollout(
        _world := MetaWorldEnv("push"), _Seeded(load_policy(tmp_path / "exported")), SEED, max_env_steps=STEPS
    )
    _world.close()
    np.testing.assert_array_equal(result.actions, expected[0][: len(result.actions)])
    with pytest.raises(FileExistsError, match="exported"):
        export(tmp_path / "saved", tmp_path / "exported")


class _Seeded:
    """Draws the noise of seed 0 in every episode."""

    def __init__(self, policy: Any) -> None:
        self._policy, self.act = policy, policy.act
        self.execute, self.video_stride = policy.execute, policy.video_stride

    def reset(self, seed: int) -> None:
        self._policy.reset(0)
