"""Scripted hands: they go where they should, in step, and only then turn to the next waypoint."""

from __future__ import annotations

import numpy as np
import pytest

from wam.sim.scripts import Hand, Script, Waypoint, pick, pick_and_place

CONTROLLER = 0.05  # metres per unit of the action


class Puppet:
    """Hands that do what they are told, and things that move with a closed hand around them."""

    def __init__(self, things: list[np.ndarray], speed: list[float], place: np.ndarray | None = None) -> None:
        self.things, self.speed, self.place = things, speed, place
        self.hands = [thing + [0.1, -0.1, 0.3] for thing in things]
        self.turned = [0.4 for _ in things]
        self.held = [False for _ in things]

    def seen(self) -> list[Hand]:
        return [
            Hand(hand, np.array([np.cos(turn), np.sin(turn), 0.0]), thing.copy(), np.array([1.0, 0.0]), self.place)
            for hand, thing, turn in zip(self.hands, self.things, self.turned, strict=True)
        ]

    def obey(self, action: np.ndarray) -> None:
        for i, part in enumerate(action.reshape(-1, 7)):
            move = CONTROLLER * self.speed[i] * part[:3]
            near = np.linalg.norm(self.hands[i] - self.things[i]) < 0.02
            self.held[i] = part[6] > 0 and (self.held[i] or near)
            self.hands[i] = self.hands[i] + move
            self.turned[i] += 0.5 * part[5] * self.speed[i]
            if self.held[i]:
                self.things[i] = self.things[i] + move


def play(puppet: Puppet, script: Script, steps: int) -> None:
    for _ in range(steps):
        action = script.action(puppet.seen())
        assert action.dtype == np.float32 and np.abs(action).max() <= 1.0
        puppet.obey(action)


def test_a_thing_is_lifted() -> None:
    puppet = Puppet([np.array([0.3, 0.1, 0.8])], [0.5])
    play(puppet, Script(pick(0.2)), 120)
    assert puppet.held == [True]
    np.testing.assert_allclose(puppet.things[0], [0.3, 0.1, 1.0], atol=0.02)
    assert abs(puppet.turned[0]) < 0.1, "the hand should open along the given direction"


def test_a_thing_is_placed_although_it_was_grasped_beside_its_middle() -> None:
    puppet = Puppet([np.array([0.3, 0.1, 0.8])], [0.5], place=np.array([0.0, 0.5, 0.8]))
    puppet.hands[0] = puppet.things[0] + [0.012, 0.0, 0.3]
    play(puppet, Script(pick_and_place(0.2, 0.02)), 250)
    assert puppet.held == [False]
    np.testing.assert_allclose(puppet.things[0], [0.0, 0.5, 0.82], atol=0.02)


def test_hands_wait_for_each_other() -> None:
    """The slow hand closes as soon as it can; the fast one, long there, not a step earlier."""
    puppet = Puppet([np.zeros(3), np.ones(3)], [0.15, 0.8])
    script, closed = Script(pick(0.2)), []
    for _ in range(150):
        action = script.action(puppet.seen()).reshape(2, 7)
        closed.append((action[:, 6] > 0).tolist())
        puppet.obey(action.reshape(-1))
    assert all(first == second for first, second in closed) and closed[0] == [False, False]
    assert puppet.held == [True, True]


def test_a_hand_that_touches_something_goes_on_and_one_far_away_does_not() -> None:
    waypoints = (Waypoint("thing", 0.0, closed=False), Waypoint("thing", 0.0, closed=True))
    for distance, closes in ((0.04, True), (0.2, False)):
        script, hand = Script(waypoints), np.array([0.0, 0.0, distance])
        seen = [Hand(hand, np.array([1.0, 0.0, 0.0]), np.zeros(3))]
        actions = [script.action(seen) for _ in range(20)]
        assert (actions[-1][6] > 0) == closes


@pytest.mark.parametrize("turn", [0.4, 0.4 + np.pi, 0.4 - np.pi])
def test_which_finger_is_where_does_not_matter(turn: float) -> None:
    seen = [Hand(np.zeros(3), np.array([np.cos(turn), np.sin(turn), 0]), np.zeros(3), np.array([1.0, 0.0]))]
    assert Script(pick(0.1)).action(seen)[5] == pytest.approx(-0.8, abs=1e-3)
