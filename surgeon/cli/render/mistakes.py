"""Draw errors: place, message and hint in a line or two, without a traceback."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from surgeon.errors import RecipeError, SurgeonError


def render_error(error: SurgeonError) -> Text:
    """Draw the place in bold, the message in red, and the hint below."""
    problems = error.problems if isinstance(error, RecipeError) else []
    if not problems:
        return _one(error)
    lines = [_one(problem) for problem in problems]
    if len(problems) > 1:
        lines.append(Text(error.message, style="dim"))
    return Text("\n").join(lines)


def _one(error: SurgeonError) -> Text:
    text = Text.assemble((f"{error.where}: " if error.where else "error: ", "bold"), (error.message, "red"))
    if error.hint:
        text.append(f"\n    {error.hint}", style="dim")
    return text


def error_dict(error: SurgeonError) -> dict[str, Any]:
    """Convert an error to JSON-able data."""
    data: dict[str, Any] = {
        "type": type(error).__name__,
        "message": error.message,
        "where": error.where,
        "hint": error.hint,
        "exit_code": error.exit_code,
    }
    if isinstance(error, RecipeError) and error.problems:
        data["problems"] = [{k: v for k, v in error_dict(p).items() if k != "exit_code"} for p in error.problems]
    return data
