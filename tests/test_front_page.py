"""The front's page needs nothing but itself, and works where MLflow shows it: in a frame that may only run scripts."""

import html
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from spaces.errors import UserError
from tests.tracked import opened, search, trial
from tracking.events import Event
from tracking.ledger import Ledger
from tracking.page import figure, page
from tracking.picture import save_picture
from tracking.result import Front
from tracking.writer import result_of

CHROMIUM = shutil.which("chromium")
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
# Virtual time waits for no frame of another process: keep the sandboxed frame in this one.
QUIET += ["--disable-site-isolation-trials", "--disable-features=IsolateSandboxedIframes"]
QUIET += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


def result(events: list[Event]) -> Front:
    ledger = Ledger("digits")
    for event in events:
        ledger.hear(event)
    return result_of(ledger, "digits <&> friends")


class References(HTMLParser):
    """Every attribute that would make a browser fetch something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [f"{tag} {name}={value}" for name, value in attrs if name in {"src", "href", "srcset", "action"}]


def test_the_page_refers_to_nothing_outside_itself() -> None:
    text = page(result(search(6)))
    assert References(text).found == []
    own = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert "http" not in own
    assert "@import" not in own


def test_the_page_shows_every_trial_the_front_as_a_line_and_the_baseline() -> None:
    beaten, front, dense = figure(result(search(6)))["data"]
    assert len(beaten["x"]) == 2
    assert len(front["x"]) == 4
    assert front["line"]["shape"] == "hv"
    assert dense["y"] == [pytest.approx(0.95)]
    assert "frs (mode stable)" in front["text"][0]


def test_any_measured_cost_can_stand_on_the_axis() -> None:
    layout = figure(result(search(4)))["layout"]
    buttons = layout["updatemenus"][0]["buttons"]
    assert [button["label"] for button in buttons][1:3] == ["MACs (1 MAC = 2 FLOPs)", "parameters"]
    assert layout["xaxis"]["type"] == "log"


def test_what_people_name_things_cannot_become_markup() -> None:
    events = search(2)
    for event in events:
        if event.kind == "proposed" and event.trial == 1:
            event.body["plan"]["prune"]["criterion"] = {"name": "mine:<script>alert(1)</script>"}
    text = page(result(events))
    assert "digits &lt;&amp;&gt; friends" in text
    assert "<script>alert" not in text


@pytest.mark.parametrize("events", [[opened()], [opened(), *trial(0)], [opened(), *trial(1)]])
def test_a_search_that_has_only_begun_has_a_page_and_a_picture(events: list[Event], tmp_path: Path) -> None:
    begun = result(events)
    assert "</html>" in page(begun)
    save_picture(begun, tmp_path / "front.png")
    assert begun.to_csv().startswith("run_id")


@pytest.mark.parametrize(
    ("ending", "first"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF"), ("PNG", b"\x89PNG")]
)
def test_a_picture_is_what_its_ending_says(ending: str, first: bytes, tmp_path: Path) -> None:
    file = tmp_path / f"front.{ending}"
    save_picture(result(search(6)), file)
    assert file.read_bytes().startswith(first)


def test_a_picture_that_cannot_be_saved_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must end in one of: \.png, \.svg, \.pdf"):
        save_picture(result(search(2)), tmp_path / "front.gif")
    with pytest.raises(UserError, match="cannot write"):
        save_picture(result(search(2)), tmp_path / "nowhere" / "front.png")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_a_browser_draws_the_front_in_mlflows_sandboxed_frame(tmp_path: Path) -> None:
    watcher = """<script>
    window.addEventListener("load", function () { setTimeout(function () {
      var points = document.querySelectorAll("#chart .scatterlayer .point").length
      parent.postMessage("points " + points + " rows " + document.querySelectorAll("tbody tr").length, "*")
    }, 500) })
    </script></body>"""
    before, _, after = page(result(search(6))).rpartition("</body>")  # the library's own text has some as well
    framed = html.escape(before + watcher + after, quote=True)
    outer = f"""<!doctype html><meta charset="utf-8"><p id="heard">nothing</p><script>
    window.addEventListener("message", function (event) {{
      document.getElementById("heard").textContent = event.data
    }})
    </script><iframe sandbox="allow-scripts" width="1200" height="900" srcdoc="{framed}"></iframe>"""
    (tmp_path / "outer.html").write_text(outer, encoding="utf-8")
    asked = [f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=8000", "--dump-dom"]
    drawn = subprocess.run(
        [CHROMIUM, *QUIET, *asked, f"file://{tmp_path}/outer.html"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    # 2 beaten, 4 on the front, and the baseline's own mark
    assert '<p id="heard">points 7 rows 4</p>' in drawn.stdout
