"""Sign artifacts, and check who signed them, with the library and in the format of sigstore's model-signing.

The signature lies in the artifact, as ``model.sig``. It covers the SHA-256 digest of every other file, except git's and
those that a download from the hub leaves. Digests in the manifest show damage; a signature also shows forgery.

Results of surgery on a signed artifact are not signed: they have other bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surgeon.checkpoint.artifact import REPLACE
from surgeon.checkpoint.artifact_files import MANIFEST, SIGNATURE
from surgeon.checkpoint.digests import check_files, check_manifest
from surgeon.checkpoint.formats import open_checkpoint
from surgeon.checkpoint.scratch import appearing
from surgeon.errors import OutputError, SurgeonError, VerificationError, name_nearest_option

DOWNLOADED = ".cache/huggingface"
"""What ``hf download --local-dir`` leaves in a folder."""
UNSIGNED = frozenset({SIGNATURE, DOWNLOADED, ".git", ".gitattributes", ".github", ".gitignore"})
"""What a signature may leave out: files that are no part of a model, and that nobody loads."""
LARGEST = 2**24
"""The size of a signature in bytes from which on it is not read; one of a thousand files has 200 kB."""
WAYS = "sign: --key PRIVATE.pem, --key PRIVATE.pem --certificate CERT.pem, or --keyless"
WHO = "name the signer's public key or root certificate; --identity needs the network"
AGAIN = "restore the files, or get the artifact again from who signed it"


@dataclass(frozen=True)
class SignedBy:
    """Say who must have signed an artifact: the owner of a key, of a certificate, or of an account.

    Attributes:
        key: The public key, a PEM file.
        chain: The certificates that the signer's is traced back to, PEM files.
        identity: The account that signed without a key, such as an address. Checking it needs the network.
        issuer: Who vouches for the account, such as ``https://github.com/login/oauth``.
    """

    key: str | Path | None = None
    chain: Sequence[str | Path] = ()
    identity: str | None = None
    issuer: str | None = None

    def __post_init__(self) -> None:
        ways = [self.key is not None, bool(self.chain), self.identity is not None or self.issuer is not None]
        if sum(ways) != 1 or (self.identity is None) != (self.issuer is None):
            raise VerificationError(
                "a signature is checked against one signer",
                hint="name one: --key PUBLIC.pem, --chain ROOT.pem, or --identity NAME with --issuer URL",
            )

    def __str__(self) -> str:
        if self.key is not None:
            return f"the key {self.key}"
        if self.chain:
            return f"a certificate of {', '.join(map(str, self.chain))}"
        return f"{self.identity} ({self.issuer})"


@name_nearest_option
def sign(
    path: str | Path,
    *,
    key: str | Path | None = None,
    password: str | None = None,
    certificate: str | Path | None = None,
    chain: Sequence[str | Path] = (),
    keyless: bool = False,
    force: bool = False,
) -> Path:
    """Sign an artifact, after its bytes are compared with its digests. The signature is put into it as ``model.sig``.

    Whatever is added to the artifact or changed in it later, a model card too, makes the signature invalid.

    Args:
        path: The artifact, a folder.
        key: A private key of an elliptic curve (P-256, P-384, P-521), a PEM file.
        password: The password of the key, if it has one.
        certificate: The certificate of ``key``, a PEM file; without it, who checks needs the public key.
        chain: The certificates between ``certificate`` and the root that others trust, PEM files.
        keyless: Whether to sign with an account instead of a key, through sigstore: opens a browser, or uses the
            identity of a CI job. Needs the network, and publishes the account and digests in sigstore's log.
        force: Whether to replace an existing signature.

    Returns:
        The path of the signature.

    Raises:
        OutputError: The artifact is signed already, or cannot be signed.
        VerificationError: The artifact is not as it was written.
    """
    if keyless == (key is not None) or (key is None and (password is not None or certificate is not None)):
        raise OutputError("an artifact is signed with a key or with an account (keyless)", hint=WAYS)
    if chain and certificate is None:
        raise OutputError("a chain of certificates needs the certificate that it ends in", hint="add --certificate")
    folder = _folder(path)
    target = folder / SIGNATURE
    if target.exists() and not force:
        raise OutputError(f"{target} exists", hint=REPLACE.partition(";")[0])
    library = _library()
    checkpoint = open_checkpoint(folder)
    check_manifest(checkpoint.manifest or {}, str(folder))
    check_files(checkpoint.manifest or {}, checkpoint.files, folder, all_bytes=True)
    with tempfile.TemporaryDirectory() as beside, _failures(OutputError, "cannot be signed", folder, hint=WAYS):
        config = library.signing.Config().set_hashing_config(_hashing(library))
        if keyless:
            config.use_sigstore_signer(use_ambient_credentials=True)
        elif certificate is not None:
            _without_password(password)
            # The library fails for an empty chain; the certificate itself, once more, changes nothing.
            config.use_certificate_signer(
                private_key=key, signing_certificate=certificate, certificate_chain=chain or [certificate]
            )
        else:
            # The library hands the password on to a function that takes bytes.
            config.use_elliptic_key_signer(private_key=key, password=password and password.encode())
        config.sign(folder, Path(beside) / SIGNATURE)
        data = (Path(beside) / SIGNATURE).read_bytes()
    try:
        with appearing(target, replace=force) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}") from error
    return target


def check_signature(path: str | Path, signer: SignedBy) -> int:
    """Check that ``signer`` signed an artifact as it is now: every file, and no other than those that are there.

    Returns:
        The number of signed files.

    Raises:
        VerificationError: There is no signature, it is another's, or files were changed, added or removed.
    """
    folder = _folder(path)
    signature = folder / SIGNATURE
    if not signature.is_file():
        hint = f"surgeon sign {folder} --key PRIVATE.pem, by who made it"
        raise VerificationError(f"is not signed: it has no {SIGNATURE}", where=str(folder), hint=hint)
    library = _library()
    payload = _payload(signature)
    with _failures(VerificationError, f"cannot be checked against {signer}", signature, hint=WHO):
        config = library.verifying.Config()
        if signer.key is not None:
            config.use_elliptic_key_verifier(public_key=signer.key)
        elif signer.chain:
            config.use_certificate_verifier(certificate_chain=signer.chain)
        else:
            config.use_sigstore_verifier(identity=signer.identity, oidc_issuer=signer.issuer)
    with _failures(VerificationError, f"is not a signature of this artifact by {signer}", signature, hint=AGAIN):
        try:
            config.verify(folder, signature)
        except ValueError as error:
            if str(error).startswith("Signature mismatch") and (changes := _changes(folder)):  # without digests
                raise ValueError("; ".join(changes[:3])) from error
            raise
    if left_out := sorted(set(_ignored(payload)) - UNSIGNED):
        problem = f"leaves out {', '.join(map(repr, left_out[:3]))}, so it does not say what is in there"
        raise VerificationError(problem, where=str(signature), hint=AGAIN)
    return len(signed_files(folder))


def signed_files(folder: Path) -> dict[str, str]:
    """Return the files that an artifact's signature lists, with their SHA-256, without checking the signature.

    Raises:
        VerificationError: The file is not a signature.
    """
    payload = _payload(folder / SIGNATURE)
    try:
        return {str(resource["name"]): str(resource["digest"]) for resource in payload["predicate"]["resources"]}
    except (KeyError, TypeError) as error:
        raise _unreadable(folder / SIGNATURE, error) from error


def sha256(path: Path) -> str:
    """Return the SHA-256 digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _changes(folder: Path) -> list[str]:
    """Return how the files differ from those that the signature lists."""
    signed = signed_files(folder)
    present = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    added = [name for name in present if name not in signed and not any(Path(name).is_relative_to(p) for p in UNSIGNED)]
    changes = [f"{name!r} was removed" for name in signed if name not in present]
    changes += [f"{name!r} was changed" for name in signed if name in present and sha256(present[name]) != signed[name]]
    return changes + [f"{name!r} was added" for name in sorted(added)]


def _folder(path: str | Path) -> Path:
    folder = Path(path)
    if folder.is_file():
        hint = f'surgeon.save(surgeon.load("{folder}"), "{folder.with_suffix("")}") makes a folder of it'
        raise VerificationError("is a file, and only folders are signed", where=str(folder), hint=hint)
    if not (folder / MANIFEST).is_file():
        problem = (
            f"has no {MANIFEST}: it is not an artifact of surgeon" if folder.is_dir() else "there is no such folder"
        )
        hint = "a signature is of an artifact on this computer: hf download ORG/NAME --local-dir FOLDER gets one"
        raise VerificationError(problem, where=str(folder), hint=hint)
    if link := next((path for path in folder.rglob("*") if path.is_symlink()), None):
        hint = f"make files of its links: cp -rL {folder} COPY"
        raise VerificationError("is a link, and a signature is of files", where=str(link), hint=hint)
    return folder


def _library() -> Any:
    try:
        import model_signing
    except ImportError as error:
        wrong = "is not installed" if error.name == "model_signing" else f"cannot be imported: {error}"
        raise VerificationError(
            f"signatures are made and checked by model-signing, which {wrong}",
            hint="python -m pip install 'surgeon-torch[sign]'",
        ) from error
    return model_signing


def _hashing(library: Any) -> Any:
    return library.hashing.Config().set_ignored_paths(paths=[SIGNATURE, DOWNLOADED], ignore_git_paths=True)


def _without_password(password: str | None) -> None:
    if password is not None:
        raise OutputError(
            "model-signing reads keys with a password only without a certificate",
            hint="write the key without one: openssl pkey -in KEY.pem -out PLAIN.pem",
        )


@contextmanager
def _failures(kind: type[SurgeonError], message: str, where: Path, *, hint: str) -> Iterator[None]:
    """Turn whatever the library raises for keys, files and signatures of others into one error.

    What it prints goes to standard error: standard output may be JSON.
    """
    try:
        with redirect_stdout(sys.stderr):
            yield
    except SurgeonError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise kind(f"{message}: {reason[:300]}", where=str(where), hint=hint) from error


def _payload(signature: Path) -> dict[str, Any]:
    """Return what a signature says. Names that another reader might take for these are refused."""
    try:
        if signature.stat().st_size > LARGEST:
            raise ValueError(f"it has {signature.stat().st_size} bytes")
        bundle = json.loads(signature.read_bytes())
        envelope = bundle["dsseEnvelope"]
        if unknown := {*bundle, *envelope} - {*_BUNDLE, *_ENVELOPE}:
            raise ValueError(f"unknown keys: {sorted(unknown)[:3]}")
        payload = json.loads(base64.b64decode(envelope["payload"]))
        if not isinstance(payload, dict):
            raise ValueError("its payload is not an object")
        return payload
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _unreadable(signature, error) from error


_BUNDLE = ("mediaType", "verificationMaterial", "dsseEnvelope")
_ENVELOPE = ("payload", "payloadType", "signatures")


def _ignored(payload: dict[str, Any]) -> list[str]:
    """Return the paths that a signature leaves out."""
    serialization = payload.get("predicate", {}).get("serialization", {})
    return [str(path) for path in serialization.get("ignore_paths", [])]


def _unreadable(signature: Path, error: Exception) -> VerificationError:
    reason = str(error).partition("\n")[0][:200]
    problem = f"is not a signature in the format of model-signing ({type(error).__name__}: {reason})"
    return VerificationError(problem, where=str(signature), hint=AGAIN)
