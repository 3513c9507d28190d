"""Collect the generated pages of the site."""

from __future__ import annotations

from surgeon.docs.artifact_page import artifact_page
from surgeon.docs.command_pages import command_pages
from surgeon.docs.gallery_page import gallery_page
from surgeon.docs.python_pages import python_pages
from surgeon.docs.recipe_pages import RecipePages
from surgeon.docs.rst import contents, heading
from surgeon.docs.training_pages import training_pages
from surgeon.plugins import load
from surgeon.recipe.catalog import schema_of

ORDER = (
    "operations/index",
    "recipe",
    "train",
    "sources",
    "losses",
    "penalties",
    "schedules",
    "metrics",
    "callbacks",
    "parts",
    "commands/index",
    "exit_codes",
    "artifact",
    "python/index",
)


def generated_pages() -> dict[str, str]:
    """Write every generated page, by path; without installed plugins, so that each machine makes the same."""
    plugins = load(installed=False)
    intro = "All of it is generated from the code: by ``python -m surgeon.docs``."
    return {
        "reference/index.rst": heading("Reference", label="reference") + f"\n{intro}\n\n" + contents(ORDER),
        "gallery.rst": gallery_page(),
        "reference/artifact.rst": artifact_page(),
        **RecipePages(schema_of(plugins)).pages(),
        **training_pages(plugins),
        **command_pages(plugins),
        **python_pages(),
    }
