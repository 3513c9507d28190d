"""Push an artifact to the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from surgeon.architectures.trust import TrustCode
from surgeon.checkpoint.artifact_files import CONFIG, MANIFEST, RECIPE, SIGNATURE
from surgeon.checkpoint.companions import BASE_CARD, CARD
from surgeon.errors import CheckpointError, HubError, name_nearest_option
from surgeon.pipeline.api import verify
from surgeon.pipeline.publishing.facts import facts_of
from surgeon.pipeline.publishing.hub_errors import OFFLINE, TOKENS, hub_errors
from surgeon.pipeline.publishing.model_card import make_card
from surgeon.pipeline.signature import sha256, signed_files
from surgeon.plugins import Plugins

OURS = re.compile(
    rf"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?|{re.escape(CONFIG)}|{re.escape(RECIPE)}|{re.escape(BASE_CARD)}"
    rf"|{re.escape(SIGNATURE)}"
)
"""Files of an earlier push that would be taken for this one's if they stayed; everything else stays."""


@dataclass(frozen=True)
class Pushed:
    """What :func:`push` did.

    Attributes:
        repository: ``ORG/NAME``.
        url: Where people see it.
        commit: The commit that holds it.
        files: What was pushed.
        removed: Files of an earlier push that this artifact does not have.
        left_out: Files in the folder that are not part of the artifact, and were not pushed.
        card: Whether the card was made from the manifest (``made``), or lay in the artifact (``found``).
    """

    repository: str
    url: str
    commit: str
    files: tuple[str, ...]
    removed: tuple[str, ...]
    left_out: tuple[str, ...]
    card: str


@name_nearest_option
def push(
    artifact: str | Path,
    repository: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    message: str | None = None,
    token: str | None = None,
    trust_code: TrustCode = (),
    plugins: Plugins | Sequence[str] | None = None,
    step: Callable[[str], None] | None = None,
) -> Pushed:
    """Push an artifact with a model card to the Hugging Face hub, as one commit.

    First the token is tried, then the artifact is verified to the byte, then the repository is made where it does not
    exist, and at last everything is sent. A ``README.md`` in the artifact is its card; else one is made from the
    manifest. Files in the folder that are not part of the artifact are not pushed, and are named. A signature is pushed
    too, if it is of what is pushed: the files as they are, and their card.

    Args:
        artifact: The folder that surgeon wrote.
        repository: ``ORG/NAME``.
        private: Who may see a repository that is made: its owners only, or everybody; as the account says if left out.
        revision: The branch; ``main`` if left out. It is made where it does not exist.
        message: What the commit says.
        token: A token of the hub; the one of ``HF_TOKEN`` or ``hf auth login`` if left out.
        trust_code: Modules that the manifest names and that may run, to verify the artifact.
        plugins: The plugins, or files and modules to load beside the built-in and installed ones.
        step: Called with what is being done now.

    Raises:
        HubError: There is no token, it may not write there, or the hub cannot be reached.
        CheckpointError: The artifact is not a folder that surgeon wrote.
        VerificationError: The artifact is not as it was written, or its signature cannot be read.
    """
    folder, say = Path(artifact), step or (lambda _: None)
    _check_name(repository)
    _check_folder(folder)
    api = HfApi(token=token, library_name="surgeon")
    say("checking the token")
    _check_token(api, repository)
    say("verifying the artifact")
    verify(folder, trust_code=trust_code, plugins=plugins)
    facts = facts_of(folder)
    names = sorted({MANIFEST, *facts.manifest.get("files", {})})
    has_card = (folder / CARD).is_file()
    if (folder / SIGNATURE).is_file():
        _check_signed(folder, {*names, CARD} if has_card else set(names))
        names.append(SIGNATURE)
    additions = [CommitOperationAdd(name, folder / name) for name in names]
    card = folder / CARD if has_card else make_card(facts, repository).encode()
    additions.append(CommitOperationAdd(CARD, card))
    pushed = {*names, CARD}
    branch = revision or "main"
    say("making the repository")
    with hub_errors("making the repository", repository):
        api.create_repo(repository, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        present = api.list_repo_files(repository, revision=branch)
    removed = sorted(name for name in present if OURS.fullmatch(name) and name not in pushed)
    say("sending the files")
    with hub_errors("sending the files", repository):
        commit = api.create_commit(
            repository,
            [*additions, *(CommitOperationDelete(name) for name in removed)],
            commit_message=message or f"Push {folder.resolve().name} by surgeon",
            revision=branch,
        )
    return Pushed(
        repository,
        f"{api.endpoint}/{repository}" + (f"/tree/{revision}" if revision else ""),
        commit.oid,
        tuple(sorted(pushed)),
        tuple(removed),
        tuple(sorted(_files(folder) - pushed)),
        "found" if has_card else "made",
    )


def _check_name(repository: str) -> None:
    """Refuse a name that is not ``ORG/NAME``."""
    if repository.count("/") != 1:
        raise HubError(
            "a repository is named ORG/NAME", where=repository, hint=f"as in: your-name/{Path(repository).name}"
        )
    with hub_errors("reading the name", repository):
        validate_repo_id(repository)


def _check_folder(folder: Path) -> None:
    """Refuse anything but a folder with a manifest."""
    if folder.is_file():
        hint = f'surgeon.save(surgeon.load("{folder}"), "{folder.with_suffix("")}") makes a folder of it'
        raise CheckpointError("a file, and surgeon pushes folders", where=str(folder), hint=hint)
    if not (folder / MANIFEST).is_file():
        problem = f"has no {MANIFEST}: it is not an artifact of surgeon" if folder.is_dir() else "no such folder"
        raise CheckpointError(problem, where=str(folder), hint="hf upload ORG/NAME FOLDER sends any other folder")


def _check_signed(folder: Path, pushed: set[str]) -> None:
    """Refuse a signature that would not hold for the repository: of other files, or of files that have changed since.

    Raises:
        HubError: The signature does not fit.
    """
    signed = signed_files(folder)
    problem = "are signed and not sent" if (differing := sorted(signed.keys() - pushed)) else "are sent and not signed"
    differing = differing or sorted({*pushed, CARD} - signed.keys())
    if not differing:
        differing, problem = (
            [name for name, digest in signed.items() if sha256(folder / name) != digest],
            "have changed since",
        )
    if differing:
        raise HubError(
            f"its signature does not fit: {', '.join(differing[:3])} {problem}",
            where=str(folder),
            hint=f"surgeon card {folder} -o {folder / CARD}, look it over, and surgeon sign {folder} --force --key …",
        )


def _check_token(api: HfApi, repository: str) -> None:
    """Ask the hub whose token it is, before any other work.

    Raises:
        HubError: There is none, it may only read, or the hub cannot be asked.
    """
    if constants.HF_HUB_OFFLINE:
        raise HubError("huggingface_hub is set to work offline", where=repository, hint=OFFLINE)
    with hub_errors("checking the token", repository):
        user = api.whoami()
    role = ((user.get("auth") or {}).get("accessToken") or {}).get("role")
    if role == "read":
        raise HubError(f"the token of {user.get('name')} may only read", where=repository, hint=TOKENS)


def _files(folder: Path) -> set[str]:
    """Everything in a folder, with slashes; hidden files too."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
