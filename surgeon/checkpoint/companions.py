"""Read the companions of the weights in a folder: tokenizer, processor, templates, licence. Bytes only, no torch.

:data:`KINDS` is the complete list. Other files are left out: other weights, optimizer states, logs, caches, code.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from surgeon.errors import CheckpointError

KINDS: dict[str, tuple[str, ...]] = {
    "tokenizer": (
        # files of every transformers tokenizer, then vocabularies by kind
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
        *("vocab.json", "vocab.txt", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "sentencepiece.model"),
        *("tokenizer.model", "tokenizer.model.v3", "spm.model", "spm_char.model", "source.spm", "target.spm"),
        *("bpe.codes", "vocab-src.json", "vocab-tgt.json", "target_vocab.json", "dict.txt", "entity_vocab.json"),
        *("word_shape.json", "word_pronunciation.json", "prophetnet.tokenizer", "emoji.json", "normalizer.json"),
        *("byte_maps.json", "tiktoken.model", "qwen.tiktoken", "vocab.tiktoken", "tekken.json", "alphabet.json"),
    ),
    "chat template": ("chat_template.jinja", "chat_template.json"),
    "processor": (
        *("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"),
        *("audio_tokenizer_config.json", "feature_extractor_config.json", "speaker_embeddings_path.json"),
    ),
    "generation settings": ("generation_config.json",),
    "sentence-transformers modules": ("modules.json", "config_sentence_transformers.json"),
    "licence": ("NOTICE", "NOTICE.txt", "NOTICE.md", "COPYING", "COPYING.txt", "USE_POLICY.md"),
    "base model's card": ("README.md", "README.base.md"),
}
"""Companions of the weights: a kind, as messages call it, and the names of its files."""

PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("chat template", re.compile(r"^additional_chat_templates/[^/]+\.jinja$")),
    ("tokenizer", re.compile(rf"^\w*tokenizer/(?:{'|'.join(map(re.escape, KINDS['tokenizer']))})$")),
    ("tokenizer", re.compile(r"^language_model/[^/]+\.(?:arpa|bin|json|txt|binary)$")),
    ("sentence-transformers modules", re.compile(r"^sentence_\w+_config\.json$")),
    ("licence", re.compile(r"^licen[cs]e(?:[-_.]\w+)*$", re.IGNORECASE)),
)
"""Companions that a pattern of their path in the folder identifies."""

MODULES = "modules.json"
"""sentence-transformers' list of modules, each in a subfolder."""
CARD, BASE_CARD = "README.md", "README.base.md"
"""A model card and its name in the artifact: it describes the base model, not the result of surgery."""
DOWNLOADS = (
    *(name for names in KINDS.values() for name in names if name != BASE_CARD),
    *("sentence_*_config.json", "LICEN*", "licen*"),
)
"""Patterns of the companions to download from a hub repository."""
FOLDER_DOWNLOADS = (
    *("additional_chat_templates/*.jinja", "*tokenizer/*.json", "*tokenizer/*.txt", "*tokenizer/*.model"),
    *("[0-9]_*/*.json", "[0-9]_*/*.safetensors", "[0-9]_*/*.bin"),
)
"""Patterns of the companions in subfolders of the repository."""
POINTER = b"version https://git-lfs.github.com/spec/"
"""The first bytes of a git-lfs pointer, which stands in for a large file that was not fetched."""


@dataclass(frozen=True)
class Companion:
    """A companion file of the weights.

    Attributes:
        name: Its path in the folder, with forward slashes: ``1_Pooling/config.json``.
        kind: A key of :data:`KINDS`.
        data: Its bytes.
    """

    name: str
    kind: str
    data: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        """The SHA-256 digest of its bytes."""
        return hashlib.sha256(self.data).hexdigest()

    def fact(self) -> dict[str, Any]:
        """Return its entry in the manifest."""
        return {"kind": self.kind, "bytes": len(self.data), "sha256": self.sha256}

    def json(self) -> dict[str, Any]:
        """Return its JSON object; ``{}`` if it is another JSON value.

        Raises:
            CheckpointError: The file is not JSON.
        """
        value = _parsed(self.data, self.name)
        return value if isinstance(value, dict) else {}

    def with_json(self, value: Any) -> Companion:
        """Return the file with ``value`` as its content, formatted as transformers does."""
        text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        return Companion(self.name, self.kind, text.encode())


def read_companions(folder: Path, *, check: bool = True) -> list[Companion]:
    """Read the companions in ``folder``, sorted by name.

    The model card becomes ``README.base.md``, unless an earlier surgery has left that name in the folder.

    Args:
        folder: A folder with weights.
        check: Whether to check that JSON and text files are valid.

    Raises:
        CheckpointError: A file is damaged or unreadable.
    """
    companions: dict[str, Companion] = {}
    for name, kind in sorted(_listed(folder)):
        name_in_result = BASE_CARD if name == CARD else name
        if name == CARD and (folder / BASE_CARD).exists():
            continue
        companions[name_in_result] = Companion(name_in_result, kind, _read(folder / name, check))
    return [companions[name] for name in sorted(companions)]


def summarise(companions: Iterable[Companion]) -> str:
    """Join kinds in one line, with the number of files if there are several: ``tokenizer (3 files), licence``."""
    counts = Counter(companion.kind for companion in companions)
    return ", ".join(
        f"{kind} ({counts[kind]} files)" if counts[kind] > 1 else kind for kind in KINDS if counts.get(kind)
    )


def write_companions(folder: Path, companions: Sequence[Companion]) -> None:
    """Write ``companions`` into ``folder`` under their names."""
    for companion in companions:
        path = folder / companion.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(companion.data)


def _listed(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the names and kinds of the companions in ``folder``, with those in module folders."""
    kinds = {name: kind for kind, names in KINDS.items() for name in names}
    for name in _names(folder):
        kind = kinds.get(name) or next((kind for kind, pattern in PATTERNS if pattern.match(name)), None)
        if kind is not None:
            yield name, kind
    if (folder / MODULES).exists():
        for module in _module_folders(folder):
            for path in sorted((folder / module).iterdir()):
                if path.is_file() or path.is_symlink():
                    yield f"{module}/{path.name}", "sentence-transformers modules"


def _names(folder: Path) -> Iterator[str]:
    """Yield the files of ``folder`` and of relevant subfolders, broken links included, with forward slashes."""
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if entry.name.endswith("tokenizer") or entry.name in ("additional_chat_templates", "language_model"):
                yield from (f"{entry.name}/{inner.name}" for inner in os.scandir(entry) if not inner.is_dir())
        else:
            yield entry.name


def _module_folders(folder: Path) -> list[str]:
    """Return the folders of sentence-transformers' modules, without ``""``, the folder of the network itself."""
    path = folder / MODULES
    modules = _parsed(_read(path), str(path))
    folders = []
    for module in modules if isinstance(modules, list) else [None]:
        name = module.get("path") if isinstance(module, dict) else None
        if not isinstance(name, str):
            raise CheckpointError("is not a list of modules with paths", where=str(path), hint=_HINT)
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts:
            raise CheckpointError(f"names the folder {name!r}, outside the model's folder", where=str(path), hint=_HINT)
        if name and not (folder / name).is_dir():
            if (folder / name).exists():
                raise CheckpointError(f"names {name!r}, which is a file", where=str(path), hint=_HINT)
            continue  # a module without settings, such as Normalize, has no files on the hub
        if inside.parts:
            folders.append(str(inside))
    return folders


_HINT = "restore it, or remove it if it does not belong to the model"


def _read(path: Path, check: bool = True) -> bytes:
    """Read a file and, if ``check``, refuse damaged content."""
    if path.is_symlink() and not path.exists():
        raise CheckpointError(f"is a link to {os.readlink(path)}, which does not exist", where=str(path), hint=_HINT)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror or error}", where=str(path), hint=_HINT) from error
    if not check:
        return data
    if data.startswith(POINTER):
        raise CheckpointError("is a pointer of git-lfs, not the file", where=str(path), hint="run: git lfs pull")
    if path.suffix == ".json":
        _parsed(data, str(path))
    elif path.suffix in (".txt", ".jinja", ".md"):
        try:
            data.decode()
        except UnicodeDecodeError as error:
            if path.suffix != ".md":
                message = f"is damaged: byte {error.start} is not UTF-8"
                raise CheckpointError(message, where=str(path), hint=_HINT) from error
    elif not data and path.suffix in (".model", ".spm", ".tiktoken", ".safetensors", ".bin"):
        raise CheckpointError("is empty", where=str(path), hint=_HINT)
    return data


def _parsed(data: bytes, where: str) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise CheckpointError(f"is damaged: it is not JSON ({error})", where=where, hint=_HINT) from error
