"""The page of `wam play` in a real browser: it shows what happens, obeys, and fetches nothing from anywhere else."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.evaluate.test_rerun_log import read

pytest.importorskip("nicegui", reason='needs pip install -e ".[play]"')
webdriver = pytest.importorskip("selenium.webdriver", reason='needs pip install -e ".[browser]"')
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromedriver") is None, reason="needs chromium and chromium-driver"),
]
SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("play")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """Where a real `wam play` serves its page, keeping recordings in `folder` if it can."""
    errors = folder / "errors.txt"
    command = [sys.executable, "-m", "wam.cli.main", "play", "--port", "0", "--no-browser", "--task", "drawer-close"]
    command += ["--rerun", str(folder / "episode.rrd")] if find_spec("rerun") else []
    # NiceGUI serves differently under pytest; this is the real thing.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    with errors.open("w") as log:
        process = subprocess.Popen(command, stderr=log, env={**environment, "PYTHONPATH": str(SOURCE)})
    try:
        yield until(lambda: next((w for w in errors.read_text().split() if w.startswith("http://")), None), 120)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, -signal.SIGINT), errors.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def browser() -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1500,1140"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    yield Browser(driver)
    driver.quit()


class Browser:
    """What a person sees and does."""

    def __init__(self, driver) -> None:
        self.driver = driver

    def open(self, address: str) -> None:
        until(lambda: _answers(address), 30)
        self.driver.get(address)

    def text(self, selector: str) -> str:
        return self.driver.execute_script(f"return document.querySelector({selector!r})?.innerText ?? ''")

    def pictures(self, kind: str) -> list[str]:
        """The sources of all pictures that show something, in order: the large one, then the film strip."""
        script = f"return [...document.querySelectorAll('img.{kind}:not(.empty)')].map(shot => shot.src)"
        return self.driver.execute_script(script)

    def press(self, words: str) -> None:
        script = "return [...document.querySelectorAll('button')].find(b => b.innerText.trim() == arguments[0])"
        until(lambda: self.driver.execute_script(script, words), 10).click()

    def say(self, sentence: str) -> None:
        field = self.driver.find_element("css selector", "input[placeholder='say what to do']")
        field.send_keys(webdriver.Keys.CONTROL, "a")
        field.send_keys(sentence, webdriver.Keys.ENTER)

    def chunk(self) -> int:
        words = self.text(".strip-title").split()
        return int(words[1]) if words and words[0].lower() == "chunk" else 0

    def foreign(self) -> set[str]:
        """Hosts that the page asked for anything, besides its own."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        assert asked
        return {url for url in asked if not url.startswith(("http://127.0.0.1:", "data:", "chrome"))}


def until(look: Callable[[], object], seconds: float = 20.0):
    """What `look` returns as soon as it is true."""
    end = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < end, f"{look} was never true in {seconds} s"
        time.sleep(0.05)
    return seen


def _answers(address: str) -> bool:
    try:
        return urllib.request.urlopen(address, timeout=5).status == 200
    except OSError:
        return False


def test_a_person_watches_interrupts_and_compares(address: str, browser: Browser, tmp_path: Path) -> None:
    browser.open(address)
    until(lambda: browser.text(".sentence") == "Close the drawer." and len(browser.pictures("real")) == 1, 60)
    assert browser.pictures("dream") == []
    before = browser.pictures("real")[0]

    browser.press("Start")
    until(lambda: browser.chunk() >= 2)
    until(lambda: browser.pictures("real")[0] != before)
    assert len(browser.pictures("dream")) == 5  # the present moment, and four of the chunk
    assert "running" in browser.text(".stage")

    browser.say("Open the drawer.")
    until(lambda: browser.text(".sentence") == "Open the drawer.")
    heard = browser.chunk()
    until(lambda: browser.chunk() > heard)
    until(lambda: not browser.driver.find_element("css selector", ".chip.unread").is_displayed())
    assert browser.text(".stages").count("\n") >= 4  # observe, prompt, encode, remember, denoise, act

    browser.press("Pause")
    browser.press("One chunk, then pause")
    until(lambda: "paused" in browser.text(".stage") and len(browser.pictures("real")) == 5)
    still = browser.pictures("real")
    time.sleep(0.5)
    assert browser.pictures("real") == still
    screenshot = tmp_path / "play.png"
    screenshot.write_bytes(browser.driver.get_screenshot_as_png())
    assert np.asarray(Image.open(screenshot).convert("L")).std() > 10  # it shows something
    assert [entry for entry in browser.driver.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert browser.foreign() == set()


def test_pictures_arrive_pixel_by_pixel(address: str, browser: Browser) -> None:
    browser.open(address)
    source = until(lambda: browser.pictures("real"))[0]
    with urllib.request.urlopen(source) as data:
        assert Image.open(io.BytesIO(data.read())).size == (128, 64)


def test_another_scene_is_opened_by_its_sentence(address: str, browser: Browser) -> None:
    browser.open(address)
    browser.press("Reset")
    until(lambda: "ready" in browser.text(".stage"))
    browser.say("Slide the window open.")
    until(lambda: browser.driver.find_element("css selector", ".scene input").get_attribute("value") == "window-open")
    browser.press("Start")
    until(lambda: browser.chunk() >= 1)
    browser.press("Next")
    until(lambda: "initial state 2" in browser.text(".side") and "ready" in browser.text(".stage"))


def test_every_episode_became_a_recording(address: str, browser: Browser, folder: Path) -> None:
    pytest.importorskip("rerun", reason='needs pip install -e ".[viz]"')
    browser.open(address)
    browser.press("Reset")
    until(lambda: "ready" in browser.text(".stage"))
    before = set(folder.glob("*.rrd"))
    browser.press("One chunk, then pause")
    until(lambda: browser.chunk() == 1 and "paused" in browser.text(".stage"))
    browser.press("Reset")
    (new,) = until(lambda: set(folder.glob("*.rrd")) - before)
    found = read(new)
    assert {"/real/top", "/dream/side", "/state", "/chunk", "/success", "/latency/remember"} <= set(found)
    assert [step for step, _ in found["/real/top"]] == [0, 2, 4, 6, 8]


def test_no_other_name_leads_here(address: str) -> None:
    until(lambda: _answers(address), 30)
    request = urllib.request.Request(address, headers={"Host": "somewhere.example"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=5)
    assert refused.value.code == 400
