"""Read what belongs beside the weights of a folder: tokenizers, processors, templates, licence. Bytes only, no torch.

:data:`KINDS` is the one list of what belongs there. Whatever is not in it stays behind: other weights, optimizer
states, logs, caches, code.
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
        # what every tokenizer of transformers has, then the vocabularies of each kind
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
"""What belongs beside the weights: a kind as people call it, and the names of its files."""

PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("chat template", re.compile(r"^additional_chat_templates/[^/]+\.jinja$")),
    ("tokenizer", re.compile(rf"^\w*tokenizer/(?:{'|'.join(map(re.escape, KINDS['tokenizer']))})$")),
    ("tokenizer", re.compile(r"^language_model/[^/]+\.(?:arpa|bin|json|txt|binary)$")),
    ("sentence-transformers modules", re.compile(r"^sentence_\w+_config\.json$")),
    ("licence", re.compile(r"^licen[cs]e(?:[-_.]\w+)*$", re.IGNORECASE)),
)
"""What is recognised by the form of its name, relative to the folder."""

MODULES = "modules.json"
"""sentence-transformers' list of modules: each lies in a folder of its own beside the weights."""
CARD, BASE_CARD = "README.md", "README.base.md"
"""A model's card, and the name under which it travels: it describes the base model, not what surgery made of it."""
DOWNLOADS = (
    *(name for names in KINDS.values() for name in names if name != BASE_CARD),
    *("sentence_*_config.json", "LICEN*", "licen*"),
)
"""What to fetch of a repository beside its weights, as patterns for the hub."""
FOLDER_DOWNLOADS = (
    *("additional_chat_templates/*.jinja", "*tokenizer/*.json", "*tokenizer/*.txt", "*tokenizer/*.model"),
    *("[0-9]_*/*.json", "[0-9]_*/*.safetensors", "[0-9]_*/*.bin"),
)
"""The same in folders of the repository."""
POINTER = b"version https://git-lfs.github.com/spec/"
"""How the file begins that git leaves in the place of a large one, where git-lfs was not installed."""


@dataclass(frozen=True)
class Companion:
    """A file that belongs beside the weights.

    Attributes:
        name: Its path in the folder, with slashes: ``1_Pooling/config.json``.
        kind: A key of :data:`KINDS`.
        data: Its bytes.
    """

    name: str
    kind: str
    data: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        """The digest of its bytes."""
        return hashlib.sha256(self.data).hexdigest()

    def fact(self) -> dict[str, Any]:
        """What the manifest says of it."""
        return {"kind": self.kind, "bytes": len(self.data), "sha256": self.sha256}

    def json(self) -> dict[str, Any]:
        """The object that it holds; ``{}`` where it holds another value.

        Raises:
            CheckpointError: It is not JSON.
        """
        value = _parsed(self.data, self.name)
        return value if isinstance(value, dict) else {}

    def with_json(self, value: Any) -> Companion:
        """The file with another content, written as transformers writes it."""
        text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        return Companion(self.name, self.kind, text.encode())


def read_companions(folder: Path, *, check: bool = True) -> list[Companion]:
    """Read what belongs beside the weights in ``folder``, in order of name.

    The card travels as ``README.base.md``, unless the folder has one of that name from an earlier surgery.

    Args:
        folder: A folder with weights.
        check: Also look whether JSON and texts are whole.

    Raises:
        CheckpointError: A file is damaged or unreadable; it names the file.
    """
    companions: dict[str, Companion] = {}
    for name, kind in sorted(_listed(folder)):
        name_in_result = BASE_CARD if name == CARD else name
        if name == CARD and (folder / BASE_CARD).exists():
            continue
        companions[name_in_result] = Companion(name_in_result, kind, _read(folder / name, check))
    return [companions[name] for name in sorted(companions)]


def summarise(companions: Iterable[Companion]) -> str:
    """List kinds in one line, with the number of files where there are several: ``tokenizer (3 files), licence``."""
    counts = Counter(companion.kind for companion in companions)
    return ", ".join(
        f"{kind} ({counts[kind]} files)" if counts[kind] > 1 else kind for kind in KINDS if counts.get(kind)
    )


def write_companions(folder: Path, companions: Sequence[Companion]) -> None:
    """Write ``companions`` into ``folder``, each under its name."""
    for companion in companions:
        path = folder / companion.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(companion.data)


def _listed(folder: Path) -> Iterator[tuple[str, str]]:
    """The names of the companions that lie in ``folder``, with their kinds; module folders included."""
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
    """The files of ``folder`` and of the folders in it, also links that lead nowhere, with slashes."""
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if entry.name.endswith("tokenizer") or entry.name in ("additional_chat_templates", "language_model"):
                yield from (f"{entry.name}/{inner.name}" for inner in os.scandir(entry) if not inner.is_dir())
        else:
            yield entry.name


def _module_folders(folder: Path) -> list[str]:
    """The folders of sentence-transformers' modules; that of the network itself, ``""``, is left out."""
    path = folder / MODULES
    modules = _parsed(_read(path), str(path))
    folders = []
    for module in modules if isinstance(modules, list) else [None]:
        name = module.get("path") if isinstance(module, dict) else None
        if not isinstance(name, str):
            raise CheckpointError("is no list of modules with a path each", where=str(path), hint=_HINT)
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts:
            raise CheckpointError(f"names the folder {name!r}, which lies outside", where=str(path), hint=_HINT)
        if name and not (folder / name).is_dir():
            if (folder / name).exists():
                raise CheckpointError(f"names {name!r}, which is a file", where=str(path), hint=_HINT)
            continue  # a module without settings, such as Normalize, has no files on the hub
        if inside.parts:
            folders.append(str(inside))
    return folders


_HINT = "restore it, or remove it if it does not belong to the model"


def _read(path: Path, check: bool = True) -> bytes:
    """The bytes of a file."""
    if path.is_symlink() and not path.exists():
        raise CheckpointError(f"is a link to {os.readlink(path)}, which does not exist", where=str(path), hint=_HINT)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror or error}", where=str(path), hint=_HINT) from error
    if not check:
        return data
    if data.startswith(POINTER):
        raise CheckpointError("is a pointer of git-lfs, not the file", where=str(path), hint="git lfs pull fetches it")
    if path.suffix == ".json":
        _parsed(data, str(path))
    elif path.suffix in (".txt", ".jinja", ".md"):
        try:
            data.decode()
        except UnicodeDecodeError as error:
            if path.suffix != ".md":
                message = f"is damaged: byte {error.start} is no UTF-8"
                raise CheckpointError(message, where=str(path), hint=_HINT) from error
    elif not data and path.suffix in (".model", ".spm", ".tiktoken", ".safetensors", ".bin"):
        raise CheckpointError("is empty", where=str(path), hint=_HINT)
    return data


def _parsed(data: bytes, where: str) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise CheckpointError(f"is damaged: it is no JSON ({error})", where=where, hint=_HINT) from error
