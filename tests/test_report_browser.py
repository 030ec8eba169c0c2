"""The bench report in a real browser: it fits phone and desktop, light and dark, and nothing is cut off."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import zlib
from html import escape, unescape
from typing import TYPE_CHECKING, Any

import pytest

from ksi_migrate.report import render
from tests.report_sample import document

if TYPE_CHECKING:
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
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
SCHEMES = {"dark": 0, "light": 1}  # Blink's own numbers
GROUND = {"light": "rgb(246, 247, 249)", "dark": "rgb(18, 22, 28)"}
WIDTHS = (375, 1200)

# In the wrapper, not in the product: it writes down what the browser made of the page in each frame.
PROBE = """
const sizes = frame => {
  const page = frame.contentDocument, root = page.documentElement;
  const outside = [...page.querySelectorAll('svg text')].filter(text => {
    const own = text.getBoundingClientRect(), box = text.closest('.box').getBoundingClientRect();
    return own.left < box.left - 1 || own.right > box.right + 1;
  });
  const wide = [...page.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth);
  return {
    width: root.clientWidth, content: root.scrollWidth, height: root.scrollHeight,
    cut: outside.map(text => text.textContent), scrolling: wide.length,
    bars: [...page.querySelectorAll('rect')].map(bar => bar.getBoundingClientRect().width),
    ground: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
  };
};
addEventListener('load', () => {
  const found = [...document.querySelectorAll('iframe')].map(sizes);
  document.getElementById('out').textContent = JSON.stringify(found);
});
"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


def browse(tmp_path: Path, scheme: str, *arguments: str) -> str:
    """Run Chromium once in an empty profile; give what it printed."""
    profile = tmp_path / "profile"
    shutil.rmtree(profile, ignore_errors=True)
    colours = f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}"
    command = [str(CHROMIUM), *FLAGS, colours, f"--user-data-dir={profile}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    return done.stdout


def measure(tmp_path: Path, page: str, scheme: str = "light") -> dict[int, dict[str, Any]]:
    """Lay the page out in frames of each width; give what the probe found, by width."""
    frames = "".join(
        f'<iframe width="{width}" height="800" style="border:0" srcdoc="{escape(page)}"></iframe>'
        for width in WIDTHS
    )
    wrapper = tmp_path / "wrapper.html"
    wrapper.write_text(
        f'<!DOCTYPE html><meta charset="utf-8">{frames}<pre id="out"></pre><script>{PROBE}</script>',
        encoding="utf-8",
    )
    dom = browse(tmp_path, scheme, "--window-size=1700,900", "--dump-dom", wrapper.as_uri())
    found = re.search(r'<pre id="out">(.+?)</pre>', dom, re.DOTALL)
    assert found, "the probe wrote nothing"
    return dict(zip(WIDTHS, json.loads(unescape(found[1])), strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_its_window(tmp_path: Path, scheme: str) -> None:
    """At 375 and 1200 pixels nothing scrolls sideways but tables in their boxes, and no label is cut off."""
    measured = measure(tmp_path, render(document()), scheme)

    for width, found in measured.items():
        assert (found["width"], found["content"], found["cut"]) == (width, width, [])
        assert found["height"] > 1500
        assert found["ground"] == GROUND[scheme]
        assert min(found["bars"]) > 1
    assert measured[375]["scrolling"] == 11
    assert measured[1200]["scrolling"] == 0


def test_a_page_that_does_not_fit_would_be_found(tmp_path: Path) -> None:
    """The probe sees a block wider than a phone, and a label that leaves its box."""
    wide = render(document()).replace("<main>", '<main><div style="width: 700px">wide</div>')
    wide = wide.replace(">23,400/s</text>", ">23,400 acknowledged in each second</text>")

    found = measure(tmp_path, wide)[375]

    assert found["content"] > 375
    assert found["cut"] == ["23,400 acknowledged in each second"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_screenshot_shows_the_page(tmp_path: Path, width: int, scheme: str) -> None:
    """A picture of the page has the ground's colour in its corner and many different lines of pixels."""
    page, picture = tmp_path / "page.html", tmp_path / "page.png"
    page.write_text(render(document()), encoding="utf-8")

    browse(tmp_path, scheme, f"--window-size={width},1400", f"--screenshot={picture}", page.as_uri())

    shown_width, corner, lines = read_png(picture.read_bytes())
    assert shown_width == width
    assert f"rgb{corner}" == GROUND[scheme]
    assert lines > 300


def read_png(data: bytes) -> tuple[int, tuple[int, ...], int]:
    """Give the width, the colour of the first pixel and how many lines differ, of an 8-bit RGB(A) picture."""
    width, height, depth, kind = struct.unpack(">IIBB", data[16:26])
    assert (data[:8], depth, kind in (2, 6)) == (b"\x89PNG\r\n\x1a\n", 8, True)
    packed, at = b"", 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        packed += data[at + 8 : at + 8 + length] if data[at + 4 : at + 8] == b"IDAT" else b""
        at += length + 12
    raw = zlib.decompress(packed)
    stride = len(raw) // height
    lines = {raw[row * stride : (row + 1) * stride] for row in range(height)}
    return width, tuple(raw[1:4]), len(lines)  # the first pixel of a picture is the same under every filter
