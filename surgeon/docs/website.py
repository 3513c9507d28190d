"""Build the site: write the generated pages beside those by hand, run Sphinx, and follow every link."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from surgeon.docs.links import broken_links
from surgeon.docs.pages import generated_pages

HERE = Path(__file__).parent


def build(output: Path) -> int:
    """Build the site in ``output``, with Sphinx's warnings as errors; return 0, or 1 and what is wrong on stderr."""
    try:
        from sphinx.cmd.build import build_main
    except ImportError:
        print("Sphinx is not installed: python -m pip install -e '.[docs]'", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="surgeon-docs") as scratch:
        sources = Path(scratch, "sources")
        write_sources(sources, generated_pages())
        quiet = ["-q", "-W", "--keep-going", "-b", "html", "-c", str(HERE), "-d", str(Path(scratch, "doctrees"))]
        if build_main([*quiet, str(sources), str(output)]):
            return 1
    broken = broken_links(output)
    print(*broken, sep="\n", end="\n" if broken else "", file=sys.stderr)
    print(f"{output / 'index.html'}: {len(list(output.rglob('*.html')))} pages")
    return 1 if broken else 0


def write_sources(folder: Path, generated: Mapping[str, str]) -> None:
    """Write the sources of all pages: those by hand, and the generated ones by path."""
    folder.mkdir(parents=True)
    for page in HERE.glob("*.md"):
        shutil.copy(page, folder)
    for path, text in generated.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
