"""Provide transformers' classes: ``hf:ORG/NAME[@REVISION]``, a folder's ``config.json``, ``hf/CLASS``."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from surgeon.architectures.config_errors import refused
from surgeon.architectures.limits import check_config
from surgeon.checkpoint.artifact_files import CONFIG, MANIFEST, RECIPE
from surgeon.checkpoint.companions import DOWNLOADS, FOLDER_DOWNLOADS
from surgeon.errors import ArchitectureError, CheckpointError, suggest
from surgeon.families.transformers.fields import MUTABLE
from surgeon.interfaces.architecture import ArchitectureProvider
from surgeon.interfaces.architecture_name import Architecture

if TYPE_CHECKING:
    from torch import nn

    from surgeon.checkpoint.formats import Checkpoint
    from surgeon.interfaces.match import Match

# Files to download from a repository: no code, and only one format of the weights.
SAFETENSORS = ["*.safetensors", "*.safetensors.index.json"]
BIN = ["pytorch_model*.bin", "pytorch_model*.bin.index.json"]
IGNORED = ["*/*", "consolidated*"]

# Buffers that earlier releases saved and the current one computes.
COMPUTED = (r"rotary_emb\.inv_freq$", r"(^|\.)position_ids$", r"\.attn\.(attention\.)?masked_bias$")

# Config keys that do not affect the network.
BESIDE_CONFIG = frozenset({"transformers_version", "_name_or_path", "architectures"})


class HuggingFace(ArchitectureProvider):
    """Build any transformers class from its config; remote code is never run."""

    scheme = "hf"

    def names(self) -> list[str]:
        """Return the model classes in transformers' auto mappings."""
        return sorted({name for names in _classes().values() for name in names})

    def build(self, architecture: Architecture) -> nn.Module:
        """Build the class ``name`` from ``options["config"]``."""
        where = str(architecture)
        if "config" not in architecture.options:
            raise ArchitectureError("has no config", where=where, hint="give a folder or repository: hf:ORG/NAME")
        config = _config(architecture.options["config"], where)
        cls = self._class(architecture.name, where)
        suits = cls.config_class is None or isinstance(config, cls.config_class)
        if not suits and architecture.name not in _classes().get(config.model_type, ()):
            raise ArchitectureError(
                f"is not a class for model type {config.model_type!r}, the type of the config",
                where=where,
                hint=suggest(_base_class(config, where), [n for n in self.names() if n != architecture.name]),
            )
        try:
            return cls._from_config(config)  # type: ignore[no-any-return]  # as AutoModel.from_config does
        except Exception as error:  # a class may raise anything on an invalid config
            raise refused(error, "cannot be built", architecture.options["config"], where) from error

    def locate(self, name: str, *, weights: bool = True) -> tuple[Architecture, Path | None]:
        """Return a class by its name, or the architecture in ``config.json`` of a repository or folder.

        The repository ``ORG/NAME[@REVISION]`` is read from huggingface_hub's cache, or downloaded into it. A folder is
        given by its path (``./folder``, ``/a/folder``); a folder without weights is an architecture. For an artifact,
        the architecture is the one before surgery, which its manifest names.
        """
        if "/" not in name and name in self.names():
            return Architecture(scheme=self.scheme, name=name), None
        if name.startswith((".", "/", "~")):
            folder, weights = _local(name, weights=weights)
        else:
            try:
                folder = _snapshot(name, weights=weights)
            except CheckpointError as error:
                if "/" not in name and (near := suggest(name, self.names())):
                    error.hint = f"{error.hint}     {near}"
                raise
        if weights and (architecture := _before_surgery(folder / MANIFEST)) is not None:
            return architecture, folder
        config = _read_config(folder / CONFIG)
        return self.of_config(config, f"hf:{name}"), folder if weights else None

    def of_config(
        self, config: dict[str, Any], where: str, shapes: Sequence[tuple[int, ...]] | None = None
    ) -> Architecture:
        """Return the class that a ``config.json`` names, or the base class if it names none.

        Args:
            config: The config as plain data.
            where: The location of the config.
            shapes: The shapes of the tensors in the weights beside it.

        Raises:
            ArchitectureError: The config needs code from outside transformers, or the weights are quantised.
        """
        if config.get("quantization_config"):
            quantised = config["quantization_config"]
            method = (quantised if isinstance(quantised, dict) else {}).get("quant_method", "an unknown method")
            raise ArchitectureError(
                f"its weights are quantised ({method}), and cannot be edited",
                where=where,
                hint="use the unquantised original",
            )
        loaded = _config(config, where, shapes)
        named = config.get("architectures") or []
        if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
            raise ArchitectureError(f"architectures: {named!r} is not a list of class names", where=where)
        name = named[0] if named else _base_class(loaded, where)
        self._class(name, where)
        return Architecture(scheme=self.scheme, name=name, options={"config": _plain(loaded)})

    def of_module(self, module: nn.Module) -> Architecture | None:
        """Return the class and config of a module if they build the same tree."""
        transformers = sys.modules.get("transformers")
        if transformers is None or not isinstance(module, transformers.PreTrainedModel):
            return None
        from surgeon.architectures.identify import build
        from surgeon.architectures.same_structure import same_structure

        cls = type(module)
        if getattr(transformers, cls.__name__, None) is not cls:
            return None
        architecture = Architecture(scheme=self.scheme, name=cls.__name__, options={"config": _plain(module.config)})
        try:
            skeleton = build(self, architecture)
            _attend_alike(skeleton, module)
            return architecture if same_structure(module, skeleton, mutable=MUTABLE) else None
        except ArchitectureError:  # the edited config cannot be built
            return None

    def identify(self, checkpoint: Checkpoint) -> Match | None:
        """Match the ``config.json`` beside the weights."""
        from surgeon.architectures.identify import match

        if checkpoint.config is None or "model_type" not in checkpoint.config:
            return None
        architecture = self.of_config(checkpoint.config, checkpoint.location, _shapes(checkpoint))
        return match(self, architecture, checkpoint)

    def complete(self, architecture: Architecture, checkpoint: Checkpoint) -> list[Architecture]:
        """Return the config beside the weights, for a class given without one."""
        if "config" in architecture.options or checkpoint.config is None:
            return [architecture]
        config = _plain(_config(checkpoint.config, checkpoint.location, _shapes(checkpoint)))
        return [architecture.model_copy(update={"options": {"config": config}})]

    def namings(self, skeleton: nn.Module, names: Iterable[str]) -> Iterator[dict[str, str]]:
        """Yield names with the base model's prefix added or removed, then with transformers' renamings too."""
        from surgeon.architectures.hf_conversion import renamed

        names = list(names)
        prefix: str = skeleton.base_model_prefix  # type: ignore[assignment]
        tensors = skeleton.state_dict()
        yield {name: _placed(name, prefix, tensors) for name in names}
        if (renamings := renamed(skeleton, names)) is not None:
            yield renamings

    def harmless(self, skeleton: nn.Module) -> re.Pattern[str]:
        """Match buffers that are now computed, names that the class ignores, and heads that it does not have."""
        prefix: str = skeleton.base_model_prefix  # type: ignore[assignment]
        base = getattr(skeleton, prefix, skeleton) if prefix else skeleton
        tops = {prefix, *dict(skeleton.named_children()), *dict(base.named_children())} - {""}
        other_heads = rf"^(?!(?:{'|'.join(map(re.escape, sorted(tops)))})\.)"
        ignored = sorted(skeleton._keys_to_ignore_on_load_unexpected or ())  # type: ignore[arg-type]
        saved = skeleton.state_dict()
        computed = [f"^{re.escape(name)}$" for name, _ in skeleton.named_buffers() if name not in saved]
        return re.compile("|".join(f"(?:{pattern})" for pattern in (*COMPUTED, *computed, *ignored, other_heads)))

    def computed(self, skeleton: nn.Module) -> re.Pattern[str] | None:
        """Match what the class leaves out of its files, such as Marian's sinusoids."""
        patterns = getattr(skeleton, "_keys_to_ignore_on_save", None) or ()
        return re.compile("|".join(f"(?:{pattern})" for pattern in sorted(patterns))) if patterns else None

    def leftovers(self, architecture: Architecture, names: Iterable[str]) -> set[str]:
        """Find poolers and heads that other classes of the same model type have and this one does not."""
        from surgeon.architectures.hf_leftovers import of_siblings

        return of_siblings(self, architecture, _classes(), names)

    def convert(self, skeleton: nn.Module, checkpoint: Checkpoint) -> Checkpoint | None:
        """Convert tensors as transformers does on loading (fused experts, split projections); read them lazily."""
        from surgeon.architectures.hf_conversion import rearranged

        return rearranged(skeleton, checkpoint)

    def _class(self, name: str, where: str) -> Any:
        import transformers

        cls = getattr(transformers, name, None)
        if cls is None or not hasattr(cls, "_from_config"):
            raise ArchitectureError(
                f"transformers {transformers.__version__} has no class {name!r}",
                where=where,
                hint=suggest(name, self.names()) or "install another release of transformers",
            )
        return cls


def _classes() -> dict[str, set[str]]:
    """Return the model classes in the auto mappings by model type; some belong to another type."""
    from transformers.models.auto import modeling_auto

    classes: dict[str, set[str]] = {}
    for key, table in vars(modeling_auto).items():
        if key.endswith("_MAPPING_NAMES"):
            for model_type, names in table.items():
                classes.setdefault(model_type, set()).update([names] if isinstance(names, str) else names)
    return classes


def _shapes(checkpoint: Checkpoint) -> list[tuple[int, ...]]:
    return [entry.shape for entry in checkpoint.entries.values()]


def _config(values: dict[str, Any], where: str, shapes: Sequence[tuple[int, ...]] | None = None) -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if not isinstance(values, dict):
        raise ArchitectureError(f"its config is {type(values).__name__}, not a mapping", where=where)
    model_type = values.get("model_type")
    if model_type is not None and not isinstance(model_type, str):
        raise ArchitectureError(f"model_type: {model_type!r} is not a name", where=where)
    if model_type not in CONFIG_MAPPING:
        if "auto_map" in values:
            raise ArchitectureError(
                f"model type {model_type!r} needs code from its own repository, which surgeon never runs",
                where=where,
                hint="build it with your own function: --arch python:package.module:function",
            )
        if model_type is None:
            raise ArchitectureError("its config has no model_type, so it is not a transformers config", where=where)
        raise ArchitectureError(
            f"unknown model type {model_type!r}", where=where, hint=suggest(str(model_type), CONFIG_MAPPING)
        )
    check_config(values, where, shapes)  # before anything walks through a million labels
    if remote := next(_remote(values), None):
        raise ArchitectureError(
            f"its config names code or files on the hub ({remote}), which surgeon does not download",
            where=where,
            hint="remove the key from config.json to use transformers' own code",
        )
    try:
        return CONFIG_MAPPING[model_type].from_dict(_with_floats(values))
    except Exception as error:  # a class may raise anything on an invalid config
        raise refused(error, "its config is refused by transformers", values, where) from error


def _remote(values: Any) -> Iterator[str]:
    """Yield config values that make a library download code or files: hub kernels, timm's ``hf-hub:`` names."""
    if isinstance(values, list):
        for item in values:
            yield from _remote(item)
    if not isinstance(values, dict):
        return
    for key, value in values.items():
        texts = [text for text in (value.values() if isinstance(value, dict) else [value]) if isinstance(text, str)]
        kernels = "_implementation" in str(key) and any("/" in text for text in texts)
        if kernels or any(text.startswith(("hf-hub:", "hf_hub:", "local-dir:")) for text in texts):
            yield f"{key}: {', '.join(texts)}"
        yield from _remote(value)


def _attend_alike(skeleton: nn.Module, module: nn.Module) -> None:
    """Set the attention type of BigBird, which switches to full attention after a short text."""
    for name, submodule in module.named_modules():
        if hasattr(submodule, "set_attention_type"):
            skeleton.get_submodule(name).set_attention_type(submodule.attention_type)  # type: ignore[operator]


def _with_floats(value: Any) -> Any:
    """Convert transformers' ``{"__float__": "Infinity"}``, which stands for values that JSON does not have."""
    if isinstance(value, list):
        return [_with_floats(item) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"__float__"}:
        return float(value["__float__"])
    return {key: _with_floats(item) for key, item in value.items()}


def _plain(config: Any) -> dict[str, Any]:
    """Return a config as JSON-able data, without keys about a file or machine."""
    values: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return {key: value for key, value in values.items() if key not in BESIDE_CONFIG}


def _base_class(config: Any, where: str) -> str:
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    named = MODEL_MAPPING_NAMES.get(config.model_type)
    if named is None:
        raise ArchitectureError(
            f"its config does not name a class, and model type {config.model_type!r} has no base class",
            where=where,
            hint="name the class: --arch hf/CLASS",
        )
    return named if isinstance(named, str) else str(named[0])


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"is not a config: {error}", where=str(path)) from error
    return values if isinstance(values, dict) else {}


def _placed(name: str, prefix: str, tensors: dict[str, Any]) -> str:
    for candidate in (name, name.removeprefix(f"{prefix}."), f"{prefix}.{name}"):
        if candidate in tensors:
            return candidate
    return name


def _local(name: str, *, weights: bool) -> tuple[Path, bool]:
    """Return a folder with a config, and whether its weights are requested and present."""
    from surgeon.checkpoint.folder import holds_weights

    folder = Path(name).expanduser()
    if not any((folder / file).is_file() for file in (CONFIG, MANIFEST)):
        raise CheckpointError("has no config.json", where=f"hf:{name}", hint="give a folder that has one")
    return folder, weights and holds_weights(folder)


def _before_surgery(manifest: Path) -> Architecture | None:
    """Return the architecture in an artifact's manifest; None if there is no manifest or it has none."""
    from surgeon.checkpoint.jsonfiles import read_object  # imports torch

    content = read_object(manifest) or {}
    record = content.get("record")
    named = record.get("architecture") if isinstance(record, dict) else None
    if named is None:
        return None
    try:
        return Architecture.model_validate(named)
    except ValidationError as error:
        raise CheckpointError("is damaged: its architecture is invalid", where=str(manifest)) from error


def _snapshot(name: str, *, weights: bool) -> Path:
    """Return a repository's folder in the hub's cache: config, weights in one format, and companions."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    repository, _, revision = name.partition("@")

    def fetch(patterns: list[str], ignored: list[str] | None = None) -> Path:
        allowed = [CONFIG, *patterns]
        return Path(
            snapshot_download(
                repository, revision=revision or None, allow_patterns=allowed, ignore_patterns=ignored or IGNORED
            )
        )

    try:
        folder = fetch([*SAFETENSORS, *DOWNLOADS, MANIFEST, RECIPE] if weights else [])
        if weights and not any(folder.glob("*.safetensors")):
            folder = fetch(BIN)
        if weights:
            fetch([*FOLDER_DOWNLOADS], ["*/*/*"])
    except (HFValidationError, OSError, ValueError) as error:  # network, absent and gated repositories are OSErrors
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"cannot be loaded from the Hugging Face hub: {reason}",
            where=f"hf:{name}",
            hint=f"for the local folder, write ./{repository}"
            if Path(repository).is_dir()
            else "check the name and HF_TOKEN, or download it elsewhere and give the folder",
        ) from error
    if not any((folder / file).is_file() for file in (CONFIG, MANIFEST)):
        raise CheckpointError("has no config.json", where=f"hf:{name}", hint="give its weights file and --arch")
    return folder
