"""Find the file of a tag's weights, downloaded as timm does if it is not in the cache."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from surgeon import ArchitectureError, CheckpointError

FILES = ("model.safetensors", "pytorch_model.bin")


def require_tag(name: str, tag: str) -> str:
    """Return the tag of weights that ``tag`` names: itself, or the default one for ``DEFAULT``.

    Raises:
        ArchitectureError: The builder has no such tag, or no weights at all.
    """
    from timm.models._registry import get_arch_pretrained_cfgs

    configs = get_arch_pretrained_cfgs(name)
    tags = [full.removeprefix(name).removeprefix(".") for full in configs]
    if tag == "DEFAULT" and tags:
        return tags[0]
    if tag in tags:
        return tag
    near = get_close_matches(tag, tags, n=1)
    hint = f"did you mean timm/{name}.{near[0]}?" if near else f"it has: {', '.join(tags) or 'none'}"
    raise ArchitectureError(f"timm/{name} has no weights {tag!r}", hint=hint)


def cached(config: Any) -> Path:
    """Return the file of weights of a ``PretrainedCfg``.

    Raises:
        CheckpointError: It has none, they are in a format of another library, or they cannot be downloaded.
    """
    name = f"timm/{config.architecture}{f'.{config.tag}' if config.tag else ''}"
    if config.custom_load:
        raise CheckpointError(f"the weights of {name} are not PyTorch's", hint="load them with timm, then save_for_hf")
    if config.file:
        return Path(config.file)
    try:
        if config.hf_hub_id:
            return _from_hub(config)
        if config.url:
            from timm.models._hub import download_cached_file

            return Path(download_cached_file(config.url))
    except Exception as error:  # the hub's client and urllib raise many kinds
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"the weights of {name} cannot be downloaded: {reason}", hint=_by_hand(config)) from error
    raise CheckpointError(f"timm has no weights for {name}", hint=f"without the tag: timm/{config.architecture}")


def _from_hub(config: Any) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    repository, _, revision = config.hf_hub_id.partition("@")
    files = (config.hf_hub_filename,) if config.hf_hub_filename else FILES
    for number, file in enumerate(files):
        try:
            return Path(hf_hub_download(repository, file, revision=revision or None))
        except EntryNotFoundError as error:
            last = number == len(files) - 1
            if last or isinstance(error, LocalEntryNotFoundError):
                raise
    raise AssertionError  # the last iteration returns or raises


def _by_hand(config: Any) -> str:
    if config.hf_hub_id:
        return f"download the folder {config.hf_hub_id} from the hub and give its path"
    return f"download {config.url} and give its path"
