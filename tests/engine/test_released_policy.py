"""Released weights in closed loop, on tiny random parts: two chunks equal the loop written out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from wam.encoders.wan_vae import WanVideoTokenizer
from wam.engine.policy import ActionChunk
from wam.engine.released_loop import NEGATIVE_PROMPT, ReleasedLoop, ReleasedSampler
from wam.engine.released_policy import PolicyConfig, ReleasedPolicy
from wam.model.attention import ANCHOR
from wam.model.config import TransformerConfig
from wam.model.transformer import Transformer
from wam.robot.canvas import compose
from wam.robot.embodiment import Embodiment, EmbodimentError, Moments, Statistics, load_embodiment
from wam.robot.observation import Image, Observation
from wam.robot.preprocess import canvas_to_video
from wam.robot.released import released_prompt
from wam.robot.units import Units

Z, VIEW = 4, (16, 24)  # latent channels; a view on the canvas, in pixels
CANVAS = (32, 48)
DROID: Embodiment = replace(
    load_embodiment("droid-franka"),
    view_height=VIEW[0],
    view_width=VIEW[1],
    state_width=16,
    action_width=12,
    statistics=Statistics(
        Moments(q01=(*(-1.0,) * 7, 0.0), q99=(*(2.0,) * 7, 1.0)),
        Moments(q01=(*(-0.1,) * 7, 0.0), q99=(*(0.2,) * 7, 1.0)),
    ),
)
UNITS = Units(DROID)
NETWORK = TransformerConfig(
    dim=48,
    heads=2,
    layers=2,
    ffn_dim=64,
    in_channels=2 * Z + 4,
    out_channels=Z,
    text_dim=10,
    image_dim=6,
    time_dim=16,
    action_dim=12,
    state_dim=16,
    codec_hidden=16,
    frames_per_chunk=2,
    actions_per_chunk=24,
    memory=2,
)
CONFIG = PolicyConfig(sampler=ReleasedSampler(skip=5))


class Words:
    """A text encoder that remembers what it was asked."""

    text_len, text_dim = 5, 10

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, prompts: Sequence[str]) -> Tensor:
        self.asked += prompts
        return torch.stack([self.features(prompt) for prompt in prompts])

    @staticmethod
    def features(prompt: str) -> Tensor:
        return torch.randn(5, 10, generator=torch.Generator().manual_seed(sum(map(ord, prompt))))


def see(pictures: Image) -> Tensor:
    """An image encoder: mean colours of the picture's left and right half, as 2 tokens."""
    assert pictures.dtype == np.uint8 and pictures.shape[1:] == (*CANVAS, 3)
    halves = torch.from_numpy(pictures).float().unflatten(2, (2, -1)).mean(dim=(1, 3)) / 255
    return torch.cat([halves, 1 - halves], dim=-1)


def transformer(config: TransformerConfig = NETWORK) -> Transformer:
    torch.manual_seed(0)
    made = Transformer(config)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return made.eval()


@pytest.fixture(scope="module")
def tokenizer() -> WanVideoTokenizer:
    torch.manual_seed(1)
    vae = AutoencoderKLWan(
        base_dim=4, z_dim=Z, dim_mult=[1, 1, 1, 1], num_res_blocks=1, latents_mean=[0.0] * Z, latents_std=[1.0] * Z
    )
    return WanVideoTokenizer(vae)


def policy(
    tokenizer: WanVideoTokenizer, config: PolicyConfig = CONFIG, network: TransformerConfig = NETWORK
) -> ReleasedPolicy:
    image = None if network.image_dim is None else see
    return ReleasedPolicy(transformer(network), tokenizer, Words(), image, DROID, config)


def looks(seed: int, count: int, instruction: str = "Open the DOOR") -> list[Observation]:
    g = np.random.default_rng(seed)
    return [
        Observation(
            {name: g.integers(0, 256, (20, 28, 3), dtype=np.uint8) for name in DROID.cameras},
            g.uniform(-0.5, 1, 8).astype(np.float32),
            instruction,
            float(index),
        )
        for index in range(count)
    ]


def canvases(observations: list[Observation]) -> Image:
    return np.stack([compose(look.images, DROID) for look in observations])


# ---------------------------------------------------------------- the loop, written out


def by_hand(tokenizer: WanVideoTokenizer, first: list[Observation], second: list[Observation]) -> list[Tensor]:
    """Normalised actions of two chunks, from nothing but ReleasedLoop, tokenizer and encoders."""
    network = transformer()
    picture = canvases(first)
    video = canvas_to_video(picture, torch.bfloat16).float()
    window = torch.cat([video, torch.zeros(1, 3, 16, *CANVAS)], dim=2)  # 1 + 2 chunks of 8 raw frames
    with torch.no_grad():
        latents = tokenizer.encode(window)
        mask = torch.zeros(1, 4, 5, 4, 6)
        mask[:, :, 0] = 1
        texts = released_prompt(DROID, first[0].instruction), NEGATIVE_PROMPT
        prompts = [Words.features(text)[None] for text in texts]
        contexts = [network.context(text, see(picture)) for text in prompts]
        session = ReleasedLoop(network, contexts, (2, 3), CONFIG.sampler, torch.cat([mask, latents], dim=1))
        session.remember(tokenizer.encode(video), ANCHOR)
        noise = torch.randn(1, Z, 2, 4, 6, generator=torch.Generator().manual_seed(1140))
        action = torch.randn(1, 24, 12, generator=torch.Generator().manual_seed(1140))
        one = session.denoise(noise, action, vector(first[-1]), 0).action
        pictures = torch.from_numpy(canvases(second)).repeat_interleave(2, dim=0)
        clip = canvas_to_video(torch.cat([pictures[:1], pictures]).numpy(), torch.bfloat16).float()
        session.remember(tokenizer.encode(clip)[:, :, 1:], 0)
        return [one, session.denoise(noise, action, vector(second[-1]), 1).action]


def vector(look: Observation) -> Tensor:
    return UNITS.state_to_model(torch.from_numpy(look.state))[None, None]


def test_two_chunks_equal_the_loop_written_out(tokenizer: WanVideoTokenizer) -> None:
    first, second = looks(0, 1), looks(1, 4)
    loop = policy(tokenizer)
    found = [loop.act(first), loop.act(second)]
    for chunk, action, now in zip(found, by_hand(tokenizer, first, second), (first[-1], second[-1]), strict=True):
        expected = UNITS.action_to_robot(action[0], torch.from_numpy(now.state))
        assert chunk.actions.shape == (24, 8) and chunk.actions.dtype == np.float32
        torch.testing.assert_close(torch.from_numpy(chunk.actions), expected, rtol=1e-5, atol=1e-6)
    assert not np.allclose(found[0].actions, found[1].actions, atol=1e-3)


def test_actions_are_absolute_joint_positions(tokenizer: WanVideoTokenizer) -> None:
    """The same pictures with the arm 0.3 further: the network sees another state, and 0.3 is added to its answer."""
    look = looks(0, 1)[0]
    still = replace(look, state=np.full(8, -1.0, dtype=np.float32))  # at the 1 % quantile, and beyond: cut to -1
    moved = replace(look, state=np.concatenate([np.full(7, -1.3), [-1.0]]).astype(np.float32))
    here, there = (policy(tokenizer).act([seen]).actions for seen in (still, moved))
    np.testing.assert_allclose(here[:, :7] - there[:, :7], 0.3, atol=1e-5)
    np.testing.assert_allclose(here[:, 7], there[:, 7], atol=1e-6)


def test_prompts_are_worded_and_read_once(tokenizer: WanVideoTokenizer) -> None:
    loop = policy(tokenizer)
    loop.act(looks(0, 1))
    loop.act(looks(1, 4))
    assert isinstance(loop.text_encoder, Words)
    assert loop.text_encoder.asked == [released_prompt(DROID, "Open the DOOR"), NEGATIVE_PROMPT]


# ---------------------------------------------------------------- memory


def run(loop: ReleasedPolicy, chunks: int, count: int = 4) -> list[ActionChunk]:
    return [loop.act(looks(i, 1 if i == 0 else count)) for i in range(chunks)]


def test_a_full_window_is_forgotten_but_for_the_present_picture(tokenizer: WanVideoTokenizer) -> None:
    """Memory 2: the third call starts anew from its last picture, as a fresh session would."""
    third = run(policy(tokenizer), 3)[2]
    fresh = policy(tokenizer).act(looks(2, 4)[-1:])
    np.testing.assert_allclose(third.actions, fresh.actions, atol=1e-6)


def test_sliding_memory_keeps_what_the_window_forgets(tokenizer: WanVideoTokenizer) -> None:
    sliding = run(policy(tokenizer, replace(CONFIG, memory="slide")), 5)
    window = run(policy(tokenizer), 5)
    for slid, forgot in zip(sliding[:2], window[:2], strict=True):
        np.testing.assert_array_equal(slid.actions, forgot.actions)
    assert not np.allclose(sliding[2].actions, window[2].actions, atol=1e-3)
    assert all(np.isfinite(chunk.actions).all() for chunk in sliding)


def test_another_instruction_or_a_single_picture_starts_anew(tokenizer: WanVideoTokenizer) -> None:
    loop = policy(tokenizer)
    loop.act(looks(0, 1))
    alone = loop.act(looks(1, 4)[-1:])
    np.testing.assert_array_equal(alone.actions, policy(tokenizer).act(looks(1, 4)[-1:]).actions)
    other = loop.act(looks(2, 4, "Close the door"))
    expected = policy(tokenizer).act(looks(2, 4, "Close the door")[-1:])
    np.testing.assert_array_equal(other.actions, expected.actions)


def test_noise_is_the_same_for_every_chunk_unless_asked_otherwise(tokenizer: WanVideoTokenizer) -> None:
    look = looks(0, 1)
    released = policy(tokenizer)
    np.testing.assert_array_equal(released.act(look).actions, released.act(look).actions)
    drawn = policy(tokenizer, replace(CONFIG, noise_seed=None))
    drawn.reset(7)
    first, second = drawn.act(look).actions, drawn.act(look).actions
    drawn.reset(7)
    assert not np.allclose(first, second, atol=1e-3)
    np.testing.assert_array_equal(drawn.act(look).actions, first)


# ---------------------------------------------------------------- options


def test_a_stream_is_encoded_as_one_video(tokenizer: WanVideoTokenizer) -> None:
    """With 8 looks and a stream, what is remembered is what encoding the whole video gives."""
    config = replace(CONFIG, frames=8, encoding="stream")
    loop = policy(tokenizer, config)
    run(loop, 2, 8)
    whole = canvas_to_video(np.concatenate([canvases(looks(0, 1)), canvases(looks(1, 8))]), torch.bfloat16).float()
    session = loop._session
    assert session is not None
    torch.testing.assert_close(session.last, tokenizer.encode(whole)[:, :, -1:], rtol=0, atol=5e-6)


def test_models_without_image_and_first_frame(tokenizer: WanVideoTokenizer) -> None:
    """As Wan 2.2: text alone, the canvas resized as a whole; the dream comes as pictures."""
    network = replace(NETWORK, in_channels=Z, image_dim=None)
    config = replace(CONFIG, canvas_size=(16, 32), decode_video=True, sampler=ReleasedSampler(skip=5, guidance=1.0))
    loop = policy(tokenizer, config, network)
    chunks = run(loop, 2)
    assert all(chunk.dream is not None and chunk.dream.shape == (8, 16, 32, 3) for chunk in chunks)
    assert list(chunks[1].seconds) == ["observe", "encode", "remember", "denoise", "decode"]


def test_a_narrow_network_works_in_its_own_type(tokenizer: WanVideoTokenizer) -> None:
    loop = policy(tokenizer)
    exact = loop.act(looks(0, 1)).actions
    loop.transformer.to(torch.bfloat16)
    loop.reset(0)
    rounded = loop.act(looks(0, 1)).actions
    assert rounded.dtype == np.float32 and 0 < np.abs(rounded - exact).max() < 0.5


def test_the_image_encoder_gets_the_very_pixels(tokenizer: WanVideoTokenizer) -> None:
    """Rounding to bfloat16 on the way to [-1, 1] loses no level of a picture."""
    seen: list[Image] = []

    def watch(pictures: Image) -> Tensor:
        seen.append(pictures)
        return see(pictures)

    ReleasedPolicy(transformer(), tokenizer, Words(), watch, DROID, CONFIG).act(looks(0, 1))
    np.testing.assert_array_equal(seen[0], canvases(looks(0, 1)))
    assert len(np.unique(seen[0])) > 200


# ---------------------------------------------------------------- what is refused, by name


def test_cadence(tokenizer: WanVideoTokenizer) -> None:
    assert (policy(tokenizer).execute, policy(tokenizer).video_stride) == (24, 6)
    assert policy(tokenizer, replace(CONFIG, frames=8)).video_stride == 3
    loop = policy(tokenizer)
    loop.act(looks(0, 1))
    for count in (2, 3, 5, 8):
        with pytest.raises(
            ValueError, match=f"found {count} observations since the last chunk, expected 4: one every 6"
        ):
            loop.act(looks(1, count))
    with pytest.raises(ValueError, match="at least one observation"):
        loop.act([])
    with pytest.raises(ValueError, match="frames=4: a chunk of 8 frames and 6 actions"):
        policy(tokenizer, network=replace(NETWORK, actions_per_chunk=6))


def test_a_bad_observation_is_named(tokenizer: WanVideoTokenizer) -> None:
    loop, good = policy(tokenizer), looks(0, 1)[0]
    fewer = {name: image for name, image in good.images.items() if name != "wrist_image_left"}
    with pytest.raises(ValueError, match="camera 'wrist_image_left' is missing.*'droid-franka' needs"):
        loop.act([replace(good, images=fewer)])
    with pytest.raises(ValueError, match="camera 'exterior_image_1_left': found float64"):
        loop.act([replace(good, images={**good.images, "exterior_image_1_left": np.zeros((20, 28, 3))})])
    with pytest.raises(ValueError, match=r"state: found shape \(7,\).*\(8,\) = .*joint_position \(7\)"):
        loop.act([replace(good, state=good.state[:7])])
    with pytest.raises(ValueError, match="state: not finite"):
        loop.act([replace(good, state=np.full(8, np.nan, dtype=np.float32))])


def test_parts_that_do_not_belong_together_are_named(tokenizer: WanVideoTokenizer) -> None:
    def made(network: TransformerConfig = NETWORK, robot: Embodiment = DROID) -> None:
        ReleasedPolicy(transformer(network), tokenizer, Words(), see, robot)

    with pytest.raises(EmbodimentError, match="field 'statistics' is missing"):
        made(robot=load_embodiment("yam"))
    with pytest.raises(ValueError, match="'droid-franka': it needs {'state_dim': 64}, the transformer has"):
        made(robot=replace(DROID, state_width=64))
    with pytest.raises(ValueError, match="5 channels in, 4 out; a tokenizer of 4 channels needs 4 or 12 in"):
        made(replace(NETWORK, in_channels=5))
    with pytest.raises(ValueError, match="image encoder: .* image_dim=None"):
        made(replace(NETWORK, image_dim=None))
    with pytest.raises(ValueError, match="features are 10 wide, the transformer reads 11"):
        made(replace(NETWORK, text_dim=11))
