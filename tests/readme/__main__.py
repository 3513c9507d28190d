"""``PYTHONPATH=tests python -m readme``: write what the commands print now into README.md."""

from __future__ import annotations

from readme import README, regenerated


def main() -> None:
    """Write the README again."""
    README.write_text(regenerated(README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
