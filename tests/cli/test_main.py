"""The command line: every verb has help with an example, and errors are sentences with an exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from wam.cli.main import VERBS, main


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    assert f"wam {verb}" in capsys.readouterr().out.split("Example", 1)[1]


def test_overview_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in VERBS)


def test_unknown_verb_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["dance"])
    assert stop.value.code == 2
    assert "unknown verb 'dance'" in capsys.readouterr().err


def test_an_error_is_one_sentence_and_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["demo", str(tmp_path / "nowhere")])
    assert stop.value.code == 1
    assert "no such folder, no shipped model of that name" in capsys.readouterr().err
