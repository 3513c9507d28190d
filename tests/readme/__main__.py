"""``PYTHONPATH=tests python -m readme``: write what the commands print now into README.md and the handwritten pages."""

from __future__ import annotations

from readme import PAGES, regenerated


def main() -> None:
    """Write the pages again."""
    for page in PAGES:
        page.write_text(regenerated(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
