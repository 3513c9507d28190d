"""Check trackers (``report_to``) before training: that they are installed, and that their service has a key."""

from __future__ import annotations

import configparser
import netrc
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from surgeon.data.requirements import EXTRAS, install_command
from surgeon.errors import TrainingError, suggest

WHERE = "train.arguments.report_to"
PACKAGES = {"azure_ml": "azureml-mlflow", "comet_ml": "comet-ml", "flyte": "flytekit"}
"""The packages of trackers without an extra of ours, where they are called otherwise."""
EXTRA_OF = {"comet_ml": "comet"}
"""The extra of a tracker, where it is called otherwise."""


@dataclass(frozen=True)
class Key:
    """Where a tracker's service looks for the key of an account.

    Attributes:
        variables: The variables of the environment that hold it.
        modes: Variables that say how the tracker works, with the values in which it needs no key.
        address: The variable that names another server, and the server where it is not set; looked up in ``.netrc``.
        file: A file that holds it, in the home folder, with its section and key.
        log_in: The command that keeps one.
    """

    variables: tuple[str, ...]
    modes: tuple[tuple[str, tuple[str, ...]], ...]
    log_in: str
    address: tuple[str, str] | None = None
    file: tuple[str, str, str] | None = None


KEYS = {
    "wandb": Key(
        ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"),
        (("WANDB_MODE", ("offline", "disabled", "dryrun")), ("WANDB_DISABLED", ("true", "1", "yes"))),
        "wandb login",
        address=("WANDB_BASE_URL", "https://api.wandb.ai"),
    ),
    "comet_ml": Key(
        ("COMET_API_KEY",),
        (("COMET_START_ONLINE", ("0", "false")), ("COMET_MODE", ("offline", "disabled"))),
        "comet login",
        file=(".comet.config", "comet", "api_key"),
    ),
    "neptune": Key(("NEPTUNE_API_TOKEN",), (("NEPTUNE_MODE", ("offline", "debug", "read-only")),), "neptune init"),
}
"""The trackers that send to an account of their service."""


def tracker_problems(report_to: Any) -> list[TrainingError]:
    """Make an error for each tracker that transformers does not know, or that is not installed.

    Args:
        report_to: The argument ``report_to``.
    """
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    names = _names(report_to)
    installed = _installed() if any(name not in ("none", "all") for name in names) else []
    problems = []
    for name in names:
        if name in ("none", "all", *installed):
            continue
        if name in INTEGRATION_TO_CALLBACK:
            extra = EXTRA_OF.get(name, name)
            package = f"python -m pip install {PACKAGES.get(name, name)}"
            message = f"{name} is not installed"
            hint = f"{install_command(extra) if extra in EXTRAS else package}, or report_to: none"
        else:
            message = f"transformers does not support the tracker {name!r}"
            hint = suggest(str(name), INTEGRATION_TO_CALLBACK) or f"supported: {', '.join(INTEGRATION_TO_CALLBACK)}"
        problems.append(TrainingError(message, where=WHERE, hint=hint))
    return problems


def key_problems(report_to: Any) -> list[TrainingError]:
    """Make an error for each installed tracker whose service has no key of an account here.

    Args:
        report_to: The argument ``report_to``.
    """
    names = _names(report_to)
    if "all" in names:
        names = _installed()
    problems = []
    for name in names:
        key = KEYS.get(name)
        if key is None or _needs_none(key) or _has_key(key):
            continue
        modes = " or ".join(f"{variable}={values[0]}" for variable, values in key.modes[:1])
        hint = f"{key.log_in} keeps one, {key.variables[0]}=… gives one, {modes} does without; or report_to: none"
        problems.append(TrainingError(f"{name} has no key of an account", where=WHERE, hint=hint))
    return problems


def _names(report_to: Any) -> list[str]:
    return [report_to] if isinstance(report_to, str) else list(report_to or ())


def _installed() -> list[str]:
    from transformers.integrations.integration_utils import get_available_reporting_integrations

    flyte = ["flyte"] if find_spec("flytekit") is not None else []
    return [*get_available_reporting_integrations(), *flyte]


def _needs_none(key: Key) -> bool:
    return any(os.environ.get(variable, "").lower() in values for variable, values in key.modes)


def _has_key(key: Key) -> bool:
    return any(os.environ.get(name, "").strip() for name in key.variables) or any(_in_files(key))


def _in_files(key: Key) -> Iterator[bool]:
    """Look into the files in which a log-in leaves a key; one that cannot be read is the tracker's to complain of."""
    if key.address is not None:
        variable, usual = key.address
        host = urlsplit(os.environ.get(variable) or usual).hostname or ""
        for path in _netrc_files():
            try:
                yield netrc.netrc(str(path)).authenticators(host) is not None
            except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
                yield path.exists()
    if key.file is not None:
        name, section, option = key.file
        parser = configparser.ConfigParser()
        try:
            parser.read([Path.home() / name, Path(name)])
            yield parser.has_option(section, option)
        except (configparser.Error, UnicodeDecodeError):
            yield True


def _netrc_files() -> Iterable[Path]:
    named = os.environ.get("NETRC")
    return [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]
