"""Real demonstrations, recorded by `wam collect`, pass the linter without a single finding."""

from pathlib import Path

import pytest

pytest.importorskip("metaworld")

from wam.cli.collect import Collect, main
from wam.data.lint import Options, lint
from wam.robot.embodiment import METAWORLD_SAWYER


def test_ten_demonstrations_are_clean(tmp_path: Path) -> None:
    tasks = ("push", "drawer-open", "window-close")
    main(Collect(tmp_path / "set", tasks=tasks, episodes_per_task=3, more={"push": 4}, workers=1, episodes_per_file=4))
    report = lint(tmp_path / "set", Options(embodiment=METAWORLD_SAWYER))
    assert report.findings == ()
    assert report.episodes == 10
    assert report.films == 20
