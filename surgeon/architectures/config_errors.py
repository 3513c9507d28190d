"""Report errors of untrusted transformers configs, with the suspicious fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from surgeon.errors import ArchitectureError


def refused(error: Exception, attempt: str, values: Mapping[str, Any], where: str) -> ArchitectureError:
    """Return the error for a config that transformers cannot read or build a network from.

    Args:
        error: The exception of transformers.
        attempt: The attempt that failed.
        values: The config as plain data.
        where: The location of the config.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    unusual = _unusual_fields(values)
    hint = f"check {'; '.join(unusual[:3])}" if unusual else "check the fields of config.json that you changed"
    return ArchitectureError(f"{attempt}: {type(error).__name__}: {lines[0]}", where=where, hint=hint)


def _unusual_fields(values: Mapping[str, Any]) -> list[str]:
    """Return fields whose values differ from the class's defaults in type, or in being positive."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    try:
        usual = CONFIG_MAPPING[values.get("model_type")]().to_dict()
    except Exception:  # some classes have no defaults
        return []
    return [
        f"{key}: {str(value)[:40]} (usually {usual[key]!r})"
        for key, value in values.items()
        if _is_unusual(key, value, usual)
    ]


def _is_unusual(key: str, value: Any, usual: Mapping[str, Any]) -> bool:
    default = usual.get(key)
    if default is None or value is None:
        return False
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) is not isinstance(value, bool)
    if isinstance(default, (int, float)) and isinstance(value, (int, float)):
        return default > 0 >= value
    return type(default) is not type(value) and not {type(default), type(value)} <= {list, tuple}
