"""Read ``--data``: a recipe, a data section in a file, a folder of pictures, or a source as YAML or JSON.

Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surgeon.errors import RecipeError, counted, suggest
from surgeon.plugins import Plugins
from surgeon.recipe.document import Document, Keys, parse, read
from surgeon.recipe.load import RecipeSettings
from surgeon.recipe.problems import shown, validate
from surgeon.recipe.train_settings import TrainSettings

RECIPES = (".yaml", ".yml", ".json")
TOP = ("model", "arch", "seed", "roles", "inputs")
"""Keys of a recipe that advice uses, beside its ``train:`` section."""
HINT = "a recipe with a train: section, a folder of pictures, or: --data '{source: digits, classes: [5, 6, 7]}'"


@dataclass(frozen=True)
class DataRequest:
    """Describe the data to train on, and other settings in the same file.

    Attributes:
        settings: A ``train:`` section.
        top: ``model``, ``seed``, … as in the recipe; the path of the model is relative to the recipe.
        name: The argument, for messages.
    """

    settings: TrainSettings
    top: dict[str, Any] = field(default_factory=dict)
    name: str = "--data"


def data_request(text: str, plugins: Plugins) -> DataRequest:
    """Read the value of ``--data``.

    Raises:
        RecipeError: The value is invalid; every mistake is in ``problems``.
    """
    path = Path() if is_written_out(text) else Path(text)
    if path != Path() and path.is_dir():
        document = _below(Document("--data", text, {"source": "images", "path": text}), ("train", "data"))
        return DataRequest(_settings(document, plugins).train or TrainSettings(), name=text)
    if path != Path() and (path.suffix in RECIPES or path.is_file()):
        if path.suffix not in RECIPES:
            hint = f"which columns? --data '{{source: table, path: {text}, image: …, targets: {{labels: …}}}}'"
            raise RecipeError("is a data file, not a recipe", where=text, hint=hint)
        document, folder = read(path), path.parent
    else:
        document, folder = parse(text, "--data"), Path()
        if isinstance(document.data, str) and document.data not in plugins.sources():
            names = [*plugins.sources(), *sorted(entry.name for entry in Path().iterdir())]
            message = f"{text!r} is neither a file or folder nor a source of data"
            raise RecipeError(message, hint=suggest(text, names, see="surgeon schema sources"))
        if isinstance(document.data, str):
            document.data = {"source": document.data}
    data = document.data
    if not isinstance(data, (dict, list)) or not data:
        raise RecipeError(f"is {shown(data)}, which is not data", where=document.where(), hint=HINT)
    if isinstance(data, list) or "source" in data:
        document = _below(document, ("train", "data"))
    elif "data" in data:
        document = _below(document, ("train",))
    elif "train" not in data:
        raise RecipeError("has no train: section", where=document.where(), hint=HINT)
    settings = _settings(document, plugins)
    if settings.train is None or settings.train.data is None:
        raise RecipeError("its train: section names no data", where=document.where("train"), hint=HINT)
    top = {key: document.data[key] for key in TOP if document.data.get(key) is not None}
    if settings.model and (folder / settings.model).exists():
        top["model"] = str(folder / settings.model)
    return DataRequest(settings.train.beside(folder), top, text)


def is_written_out(text: str) -> bool:
    """Return whether the text is a source in YAML or JSON instead of a path; it may be too long for a path."""
    return text.lstrip().startswith(("{", "[")) or "\n" in text


def _below(document: Document, keys: Keys) -> Document:
    """Nest the data of a document under ``keys``."""
    data = document.data
    for key in reversed(keys):
        data = {key: data}
    places = {(*keys, *at): place for at, place in document.places.items()}
    return Document(document.name, document.text, data, places, document.problems)


def _settings(document: Document, plugins: Plugins) -> RecipeSettings:
    fields = {key: value for key, value in document.data.items() if key not in ("operations", "$schema")}
    settings = validate(RecipeSettings, fields, document, plugins=plugins)
    if document.problems or settings is None:
        count = len(document.problems)
        message = f"{counted(count, 'mistake')} in {document.name}"
        raise RecipeError(message, problems=document.problems)
    return settings
