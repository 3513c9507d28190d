"""Follow the links within a built site."""

from __future__ import annotations

from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """Collect the links and anchors of an HTML page.

    Attributes:
        links: The values of ``href`` and ``src``.
        anchors: The values of ``id``.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what one element links to, and its own anchor."""
        for name, value in attrs:
            if value and name in ("href", "src"):
                self.links.append(value)
            elif value and name == "id":
                self.anchors.add(value)


def broken_links(folder: Path) -> list[str]:
    """List the links that lead to no file in ``folder``, or to no anchor in it; links to elsewhere are not followed."""

    @cache
    def read(path: Path) -> Page:
        return Page(path.read_text(encoding="utf-8"))

    broken = []
    for path in sorted(folder.rglob("*.html")):
        for link in read(path).links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(parts.fragment)
            missing = not target.is_file() or (
                anchor and target.suffix == ".html" and anchor not in read(target).anchors
            )
            if missing:
                broken.append(f"{path.relative_to(folder)}: {link} leads nowhere")
    return broken
