"""Sessions: whose they are, how many there may be, how they end."""

from __future__ import annotations

import re

import pytest

from wam.serve.errors import ServeError
from wam.serve.request import Who
from wam.serve.sessions import GRACE, WAITING, SessionTable


class Table(SessionTable):
    """With a clock that stands still until it is moved, and a list of what was dropped."""

    def __init__(self, **options: float) -> None:
        self.now, self.dropped = 0.0, list[int]()
        super().__init__(self.dropped.append, clock=lambda: self.now, **options)  # type: ignore[arg-type]


def test_a_named_session_is_the_same_on_every_connection_and_others_are_not() -> None:
    table = Table()
    assert table.get(Who("a"), "one") is table.get(Who("a"), "two")
    assert table.get(Who(), "one") is not table.get(Who(), "two")
    assert table.get(Who(env="0"), "one") is not table.get(Who(env="1"), "one")
    assert table.get(Who(env="0"), "one") is not table.get(Who(env="0"), "two")
    assert len({table.get(who, "one").number for who in (Who("a"), Who(), Who("a", "0"))}) == 3


def test_seeds_follow_from_names_and_episodes_and_a_client_may_bring_its_own() -> None:
    first, again = (Table().get(Who("a"), "x") for _ in range(2))
    assert first.seed == again.seed != Table().get(Who("b"), "x").seed
    assert Table(seed=1).get(Who("a"), "x").seed != first.seed
    assert Table().get(Who("a"), "x", 42).seed == 42
    table = Table()
    session = table.get(Who("a"), "x")
    table.renew(session)
    assert session.seed != first.seed
    table.renew(session, 5)
    assert session.seed == 5


def test_a_new_episode_has_a_memory_of_its_own() -> None:
    table = Table()
    session = table.get(Who("a"), "x")
    old, session.begun, session.chunks, session.previous_time = session.number, True, 3, 1.0
    table.renew(session)
    assert table.dropped == [old] and session.number != old
    assert (session.begun, session.chunks, session.previous_time, session.episode) == (False, 0, None, 1)


def test_idle_sessions_end() -> None:
    table = Table(idle_seconds=10.0)
    old = table.get(Who("old"), "x")
    table.now = 8.0
    table.get(Who("new"), "x")
    table.now = 11.0
    assert table.evict_idle() == ["old"] and table.dropped == [old.number] and len(table) == 1


def test_a_session_with_a_request_in_flight_is_not_idle() -> None:
    table = Table(idle_seconds=10.0)
    session = table.get(Who("a"), "x")
    session.enter()
    table.now = 100.0
    assert table.evict_idle() == []
    session.leave()
    assert table.evict_idle() == ["a"]


def test_the_longest_idle_session_makes_room_but_an_active_one_does_not() -> None:
    table = Table(limit=2)
    first = table.get(Who("first"), "x")
    table.now = 1.0
    table.get(Who("second"), "x")
    with pytest.raises(ServeError, match="2 sessions are active, at most 2 are taken") as refused:
        table.get(Who("third"), "x")
    assert refused.value.name == "Busy"
    table.now = GRACE + 1.5
    table.get(Who("third"), "x")
    assert table.dropped == [first.number] and len(table) == 2


def test_a_session_takes_so_many_waiting_requests_and_no_more() -> None:
    session = Table().get(Who("a"), "x")
    for _ in range(1 + WAITING):
        session.enter()
    with pytest.raises(ServeError, match="wait for the answer") as refused:
        session.enter()
    assert refused.value.name == "Busy"
    session.leave()
    session.enter()


def test_a_dead_worker_is_told_to_those_who_had_begun() -> None:
    table = Table()
    begun, fresh = table.get(Who("begun"), "x"), table.get(Who("fresh"), "x")
    begun.begun = True
    numbers = (begun.number, fresh.number)
    table.lose_all("it died")
    assert begun.lost == "it died" and fresh.lost is None and not begun.begun
    assert begun.number not in numbers and fresh.number not in numbers


def test_labels_are_fit_for_file_names() -> None:
    label = Table().get(Who("../../etc/pass wd\n", "3"), "x").label
    assert re.fullmatch(r"[A-Za-z0-9_-]+", label) and "etc_pass_wd_" in label
    assert Table().get(Who("left-arm_2"), "x").label == "left-arm_2"


def test_every_session_has_a_label_of_its_own() -> None:
    table = Table()
    names = (("左臂", None), ("右臂", None), ("a/b", None), ("a_b", None), ("x", "y"), ("x.y", None), ("x" * 90, None))
    labels = [table.get(Who(*name), "c").label for name in (*names, ("x" * 91, None))]
    assert len(set(labels)) == len(labels)


def test_a_reset_without_an_environment_means_all_of_them() -> None:
    table = Table()
    envs = [table.get(Who("a", env), "x") for env in ("0", "1")]
    table.get(Who("b", "0"), "x")
    assert table.matching(Who("a"), "y") == envs
    assert table.matching(Who("a", "1"), "y") == envs[1:]
    assert table.matching(Who(), "x") == []
