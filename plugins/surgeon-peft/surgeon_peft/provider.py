"""Open an adapter folder of peft together with its base model: ``peft:FOLDER``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgeon import Architecture, ArchitectureError, ArchitectureProvider, CheckpointError

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn

    from surgeon.architectures.source import Source
    from surgeon.checkpoint.contents import Checkpoint

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


class AdapterFolder(ArchitectureProvider):
    """Build base models with an adapter: ``peft:FOLDER``, where ``adapter_config.json`` names the base model.

    The base is a path (relative to the working folder, as for peft), or any other reference that surgeon opens:
    ``torchvision/resnet18@DEFAULT``, ``hf:ORG/NAME``. Nothing is downloaded.
    """

    scheme = "peft"

    def names(self) -> list[str]:
        """Return nothing: the names are folders."""
        return []

    def locate(self, name: str, *, weights: bool = True) -> tuple[Architecture, Path | None]:
        """Read the folder ``name``, and find the architecture of its base.

        Raises:
            ArchitectureError: The config is none that surgeon can attach, or the base cannot be identified.
            CheckpointError: The folder has no config or weights.
        """
        folder = Path(name).expanduser()
        values = read_config(folder)
        source = open_base(values["base_model_name_or_path"], folder)
        assert source.architecture is not None
        config_of(values, folder)
        _check_class(values, source.architecture, folder)
        options = {
            "base": source.architecture.model_dump(mode="json"),
            "reference": str(values["base_model_name_or_path"]),
            "config": values,
        }
        architecture = Architecture(scheme=self.scheme, name=folder.name, options=options)
        return architecture, weights_of(folder) if weights else None

    def build(self, architecture: Architecture) -> nn.Module:
        """Build the base and let peft attach its layers.

        Raises:
            ArchitectureError: The base cannot be built, or the adapter does not suit it.
        """
        from surgeon_peft.injection import NotInjectedError, inject

        model = build_base(architecture)
        config = config_of(architecture.options["config"], Path(architecture.name))
        try:
            inject(model, config)
        except NotInjectedError as error:
            raise ArchitectureError(
                f"the adapter does not suit its base model: {error}", where=str(architecture)
            ) from error
        return model

    def convert(self, skeleton: nn.Module, checkpoint: Checkpoint) -> Checkpoint | None:
        """Put the tensors of the base beside those of the adapter, under the names of the network.

        Raises:
            CheckpointError: The adapter is not one for this base.
        """
        from surgeon_peft.entries import joined

        folder = checkpoint.files[0].parent if checkpoint.files else None
        if folder is None or not (folder / CONFIG).is_file():
            return None
        values = read_config(folder)
        return joined(skeleton, checkpoint, open_base(values["base_model_name_or_path"], folder), values, folder)


def read_config(folder: Path) -> dict[str, Any]:
    """Read ``adapter_config.json``.

    Raises:
        CheckpointError: It is missing or damaged, or names no base model.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise CheckpointError(f"no {CONFIG}", where=str(folder), hint="give a folder that peft's save_pretrained wrote")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{CONFIG} cannot be read: {error}", where=str(folder)) from error
    if not isinstance(values, dict) or not isinstance(values.get("peft_type"), str):
        raise CheckpointError(f"{CONFIG} names no peft_type", where=str(folder))
    if not values.get("base_model_name_or_path"):
        raise CheckpointError(
            f"{CONFIG} does not say which base model the adapter is for",
            where=str(folder),
            hint="write the base's folder into base_model_name_or_path",
        )
    return values


def weights_of(folder: Path) -> Path:
    """Return the file with the adapter's tensors.

    Raises:
        CheckpointError: There is none.
    """
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"it has neither {WEIGHTS[0]} nor {WEIGHTS[1]}", where=str(folder), hint="copy it there")


def config_of(values: dict[str, Any], folder: Path) -> PeftConfig:
    """Make peft's config of what ``adapter_config.json`` says, for an adapter that trains.

    Raises:
        ArchitectureError: The method is unknown or cannot be attached, or peft refuses the config.
    """
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    from surgeon_peft.config import methods, why_not

    name = str(values["peft_type"]).lower()
    classes = methods()
    if name not in classes:
        raise ArchitectureError(f"the installed peft has no method {name!r}", where=str(folder), hint="update peft")
    if reason := why_not(name):
        raise ArchitectureError(f"{name} cannot be attached: {reason}", where=str(folder))
    cls = next(cls for kind, cls in PEFT_TYPE_TO_CONFIG_MAPPING.items() if str(kind.value).lower() == name)
    try:
        config: PeftConfig = cls.from_peft_type(**{**values, "inference_mode": False})  # type: ignore[no-untyped-call]
    except (TypeError, ValueError) as error:
        raise ArchitectureError(f"{CONFIG}: {' '.join(str(error).split())}", where=str(folder)) from error
    return config


def open_base(reference: str, folder: Path) -> Source:
    """Open the base model of an adapter, without reading its weights.

    Args:
        reference: What the adapter's config calls it.
        folder: The adapter's folder, for messages, and to look for the base beside it.

    Raises:
        CheckpointError: It does not exist.
        ArchitectureError: It cannot be identified, or was edited by surgeon.
    """
    from surgeon import load_plugins
    from surgeon.architectures.source import open_source

    path = Path(reference).expanduser()
    beside = folder / path
    if not path.exists() and beside.exists():
        reference = str(beside)
    try:
        source = open_source(reference, plugins=load_plugins())
    except CheckpointError as error:
        error.at(f"{folder / CONFIG}: base_model_name_or_path")
        error.hint = error.hint or "write the path of the base model there, or hf:ORG/NAME"
        raise
    if source.surgeries:
        raise ArchitectureError(
            f"the base {reference} is an artifact of surgeon",
            where=str(folder),
            hint=f"export it first: surgeon export {reference} --to hf -o FOLDER",
        )
    if source.checkpoint is None or source.architecture is None:
        raise CheckpointError(f"the base {reference} has no weights", where=str(folder), hint="name a checkpoint")
    return source


def build_base(architecture: Architecture) -> nn.Module:
    """Build the base model of an architecture of this provider.

    Raises:
        ArchitectureError: Nothing builds it.
    """
    from surgeon import load_plugins

    base = Architecture.model_validate(architecture.options["base"])
    providers = load_plugins().architectures()
    if base.scheme not in providers:
        raise ArchitectureError(f"nothing builds {base}", where=str(architecture), hint="install its plugin")
    return providers[base.scheme].build(base)


def _check_class(values: dict[str, Any], base: Architecture, folder: Path) -> None:
    """Refuse an adapter of another class of networks."""
    mapping = values.get("auto_mapping")
    named = mapping.get("base_model_class") if isinstance(mapping, dict) else None
    if named and base.scheme == "hf" and named != base.name:
        raise ArchitectureError(
            f"the adapter is for {named}, and its base {values['base_model_name_or_path']} is {base.name}",
            where=str(folder),
            hint="write the folder of the right base into base_model_name_or_path",
        )
