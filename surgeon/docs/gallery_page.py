"""Show the recipes of the repository: what each header says, and the recipe."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

from surgeon.docs.rst import code, escape, heading

RECIPES = Path(__file__).parents[2] / "recipes"
GROUPS = {"gallery": "For your own data", ".": "On the digits"}
"""Folders in ``recipes/``, and the headings of their recipes."""


def gallery_page() -> str:
    """Write the page with every recipe."""
    intro = (
        "Copy the recipe that is nearest to your job, and put in your classes and paths. The test suite runs every one "
        "of them, those for your own data on small networks of the same kind.\n"
    )
    parts = [heading("Recipe gallery", label="gallery"), intro]
    for folder, title in GROUPS.items():
        parts.append(heading(title, 1))
        for path in sorted((RECIPES / folder).glob("*.yaml")):
            parts += [heading(path.relative_to(RECIPES).as_posix(), 2), described(path.read_text(encoding="utf-8"))]
    return "\n".join(parts)


def described(recipe: str) -> str:
    """Format a recipe: the prose and the commands of its header, then its keys."""
    lines = recipe.splitlines()
    end = next(at for at, line in enumerate(lines) if not line.startswith("#"))
    header = "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines[:end] if "$schema=" not in line)
    blocks = []
    for paragraph in re.split(r"\n\s*\n", header.strip("\n")):
        if re.search("^ ", paragraph, re.MULTILINE):
            blocks.append(code(dedent(paragraph), "text"))
        else:
            blocks.append(escape(paragraph) + "\n")
    return "\n".join([*blocks, code("\n".join(lines[end:]).strip())])
