"""Reading a bench report back: its outline, its drawings, and what each row of a drawing shows."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

from ksi_migrate.charts import SVG_NAMESPACE

SVG = f"{{{SVG_NAMESPACE}}}"
VOID = {"meta"}


class Outline(HTMLParser):
    """Reads a page and complains where a tag is closed that is not the last one opened."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember the tag and its attributes; `<meta>` has no end."""
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember a tag that closes itself."""
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Insist that what ends here is what began last."""
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Keep the text between tags."""
        self.words.append(data)

    def count(self, tag: str) -> int:
        """How often a tag was opened."""
        return sum(name == tag for name, _ in self.seen)


def svgs(page: str) -> list[ET.Element]:
    """Every drawing of the page, parsed as XML."""
    return [ET.fromstring(text) for text in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def plots(page: str) -> dict[str, list[tuple[str, float | None, str]]]:
    """For each drawing with a title its rows: label, length of the bar in per cent or None, figure."""
    found = {}
    for svg in svgs(page):
        title = svg.find(f"{SVG}title")
        if title is not None:
            found[str(title.text)] = [row_of(group) for group in svg.iter(f"{SVG}g")]
    return found


def row_of(group: ET.Element) -> tuple[str, float | None, str]:
    """Label, length and figure of one row."""
    texts = [element.text or "" for element in group.iter(f"{SVG}text")]
    bar = group.find(f"{SVG}rect")
    return texts[0], None if bar is None else float(bar.attrib["width"].rstrip("%")), texts[-1]
