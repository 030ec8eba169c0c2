"""All identities as encoded text, in pages, so that a change costs one page and never the whole."""

from __future__ import annotations

PAGE = 128
"""Identities on a page: 40 kB, joined in some microseconds."""


class _Page:
    """Some identities by id, and their text together while none has changed."""

    __slots__ = ("entries", "text")

    def __init__(self) -> None:
        self.entries: dict[str, bytes] = {}
        self.text: bytes | None = None

    def whole(self) -> bytes:
        """The text of all of them, with commas between."""
        if self.text is None:
            self.text = b",\n".join(self.entries.values())
        return self.text


class Pages:
    """The order is that of a dict: what is put again keeps its place, what is new goes last."""

    def __init__(self) -> None:
        self._pages: list[_Page] = []
        self._of: dict[str, _Page] = {}

    def put(self, agent: str, entry: bytes | None) -> None:
        """Set the text of one identity; None takes it out, which is harmless when it is not there."""
        if entry is None:
            self._drop(agent)
            return
        page = self._of.get(agent)
        if page is None:
            page = self._of[agent] = self._last()
        page.entries[agent] = entry
        page.text = None

    def snapshot(self) -> list[bytes]:
        """The pieces of the whole file as it is now; they stay what they are when pages change."""
        if not self._pages:
            return [b"{}"]
        pieces = [b"{\n"]
        for page in self._pages:
            pieces += (page.whole(), b",\n")
        pieces[-1] = b"\n}"
        return pieces

    def _drop(self, agent: str) -> None:
        page = self._of.pop(agent, None)
        if page is None:
            return
        del page.entries[agent]
        page.text = None
        if not page.entries:
            self._pages.remove(page)

    def _last(self) -> _Page:
        if self._pages and len(self._pages[-1].entries) >= PAGE:
            self._pages[-1].whole()  # now, and not all pages together at the first snapshot
            self._pages.append(_Page())
        elif not self._pages:
            self._pages.append(_Page())
        return self._pages[-1]
