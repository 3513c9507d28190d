"""Make configs of peft from a recipe's keys, and say which methods cannot be part of a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from surgeon.errors import OperationError, suggest

if TYPE_CHECKING:
    from peft import PeftConfig

ADAPTER = "default"
"""The name of the adapter in peft's layers."""

ALIASES: dict[str, tuple[str, dict[str, Any]]] = {
    "dora": ("lora", {"use_dora": True}),
    "rslora": ("lora", {"use_rslora": True}),
}
"""Methods that are a setting of another one."""

KEYS_OF_OUR_OWN = {
    "target_modules": "name the modules with targets:",
    "exclude_modules": "leave modules out with a selector: targets: '**.query, !encoder.layer[0].**'",
    "layers_to_transform": "choose blocks with a selector: targets: 'encoder.layer[-2:].**.query'",
    "layers_pattern": "choose blocks with a selector: targets: 'encoder.layer[-2:].**.query'",
    "modules_to_save": "name the modules with modules_to_save: beside config:",
    "peft_type": "name the method with method:",
    "task_type": "leave it out: an exported adapter names the class of its base model instead",
    "inference_mode": "leave it out: adapters train, and freeze: freezes them",
    "base_model_name_or_path": "leave it out: surgeon export-adapter --base writes it",
    "revision": "leave it out: the model is the one that the recipe is applied to",
    "auto_mapping": "leave it out: an exported adapter gets it",
    "peft_version": "leave it out",
    "target_parameters": "name modules with targets: adapters of single parameters are not supported",
    "trainable_token_indices": "train the embeddings with modules_to_save: '@embeddings'",
    "runtime_config": "leave it out",
    "layer_replication": "duplicate blocks with an operation before this one",
    "megatron_config": "leave it out",
    "megatron_core": "leave it out",
}

OUTSIDE = {
    "ADALORA": "its ranks are moved between layers by calls that only a training loop of its own makes",
    "ADAPTION_PROMPT": "it replaces whole attention layers of a few model types by layers of its own",
    "POLY": "its forward needs the number of a task with every batch",
    "XLORA": "it mixes adapters that were trained before, and runs the network twice",
}
"""Methods that are more than layers in a network, and why surgeon does not attach them."""

PROMPTS = "it adds virtual tokens to the inputs, which only peft's own wrapper around the network does"
WRITES_BASE = ("pissa", "olora", "corda", "eva", "loftq", "lora_ga")
"""Ways to initialise LoRA that change the base's weights or need data."""


def methods() -> dict[str, type[PeftConfig]]:
    """Return the config classes of peft's registry, by the names that recipes use."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    return {str(kind.value).lower(): config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}


def make_config(method: str, values: Mapping[str, Any]) -> PeftConfig:
    """Make the config of a method.

    Args:
        method: Its name in peft's registry, in lower case, or one of :data:`ALIASES`.
        values: Fields of the config class.

    Raises:
        ValueError: The method or a field is unknown, or peft refuses a value; the message says what to do.
    """
    name, preset = ALIASES.get(method, (method, {}))
    classes = methods()
    if name not in classes:
        near = suggest(method, [*classes, *ALIASES])
        raise ValueError(f"peft has no method {method!r}     {near or 'it has: ' + ', '.join(sorted(classes))}")
    cls = classes[name]
    available = [field.name for field in fields(cls) if field.init and field.name not in KEYS_OF_OUR_OWN]
    for key in values:
        if key in KEYS_OF_OUR_OWN:
            raise ValueError(f"config.{key} is not set here: {KEYS_OF_OUR_OWN[key]}")
        if key not in available:
            near = suggest(key, available)
            raise ValueError(
                f"{cls.__name__} has no field {key!r}     {near or 'it has: ' + ', '.join(sorted(available))}"
            )
    reason = why_not(name)
    if reason:
        raise ValueError(f"{method} cannot be attached: {reason}")
    chosen = {**preset, **values}
    init = str(chosen.get("init_lora_weights", "")).lower()
    if init.startswith(WRITES_BASE):
        raise ValueError(
            f"init_lora_weights: {init!r} changes the base's weights or needs data, and the base stays as it is; "
            "use true, gaussian or orthogonal"
        )
    try:
        return cls(**chosen)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{cls.__name__}: {' '.join(str(error).split())}") from error


def recorded(config: PeftConfig) -> dict[str, Any]:
    """Return every field of a config as plain data that :func:`restored` reads, those at their defaults included."""
    values: dict[str, Any] = {"peft_type": kind_of(config)}
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, (set, frozenset)):
            value = sorted(value)
        unset = field.name in KEYS_OF_OUR_OWN and field.name not in ("target_modules", "modules_to_save")
        if field.init and not unset and _is_plain(value):
            values[field.name] = value
    return values


def restored(values: Mapping[str, Any]) -> PeftConfig:
    """Make a config of what :func:`recorded` returned.

    Raises:
        OperationError: The installed peft has no such method or field any more.
    """
    name = str(values["peft_type"]).lower()
    cls = methods().get(name)
    names = {field.name for field in fields(cls) if field.init} if cls is not None else set()
    lost = [key for key in values if key not in names and key != "peft_type"]
    if cls is None or lost:
        raise OperationError(
            f"the installed peft has no {name if cls is None else f'field {lost[0]!r} of {name}'}, which was recorded",
            hint="install the release of peft that it was attached with",
        )
    return cls(**{key: value for key, value in values.items() if key != "peft_type"})


def kind_of(config: PeftConfig) -> str:
    """Return the name of a config's method in peft's registry."""
    return str(getattr(config.peft_type, "value", config.peft_type))


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (str, int, float))


def why_not(name: str) -> str | None:
    """Say why a method of the registry cannot be attached; None if it can be, as far as its name tells."""
    from peft import PromptLearningConfig

    cls = methods()[name]
    if issubclass(cls, PromptLearningConfig):
        return PROMPTS
    return OUTSIDE.get(name.upper())
