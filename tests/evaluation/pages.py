"""What every page of ours must be: well-formed, of one file, and no wider than a phone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "br", "col", "hr", "img", "input", "link"}
SELF_CLOSING = {"line", "circle", "path"}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]
MEASURE = """<script>
addEventListener("load", () => {
  const page = document.documentElement;
  parent.postMessage(`measured ${page.scrollWidth} ${page.clientWidth}`, "*");
});
</script></body>"""
# A frame, because a browser's own window cannot be as narrow as a phone.
FRAME = """<!doctype html><title>waiting</title>
<script>addEventListener("message", (event) => {{ document.title = event.data; }});</script>
<iframe src="{name}" style="border: 0; width: {width}px; height: 900px"></iframe>"""


class PageParser(HTMLParser):
    """Fails on an unbalanced tag; collects the text, the ids, the scripts and all links."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self.tags: list[str] = []
        self.unscoped = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.unscoped += tag == "th" and "scope" not in given
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [str(value) for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SELF_CLOSING, tag
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)


def parsed(html: str) -> PageParser:
    """The page, after the checks that hold for every page."""
    parser = PageParser()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    assert parser.links == [], "a page needs nothing but itself"
    assert len(parser.ids) == len(set(parser.ids)), "ids are unique"
    assert parser.unscoped == 0, "every table header has a scope"
    assert parser.tags.count("script") == 1, "only our own script"
    assert '<html lang="en">' in html
    assert "url(" not in html and "@import" not in html
    return parser


def words(parser: PageParser) -> str:
    return re.sub(r"\s+", " ", " ".join(parser.text))


def chromium(page: Path, folder: Path, *arguments: str) -> str:
    """Standard output of a headless browser on the page, with a profile of its own."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", *arguments, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "HOME": str(folder)})
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout


def overflow(page: Path, folder: Path, width: int) -> int:
    """By how many CSS pixels the page is wider than a window of this width."""
    copy, frame = folder / f"measured-{width}.html", folder / f"frame-{width}.html"
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", MEASURE), encoding="utf-8")
    frame.write_text(FRAME.format(name=copy.name, width=width), encoding="utf-8")
    dom = chromium(frame, folder, "--window-size=1400,1000", "--virtual-time-budget=3000", "--dump-dom")
    found = re.search(r"<title>measured (\d+) (\d+)</title>", dom)
    assert found, dom[:300]
    scroll, client = int(found[1]), int(found[2])
    assert client == width, "the frame has another width"
    return scroll - client
