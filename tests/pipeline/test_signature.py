"""Signatures of artifacts: they hold for the files as they were signed, by whom they name, and for nothing else."""

from __future__ import annotations

import base64
import datetime
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import families
import pytest
from signing_keys import write_key

import surgeon
from surgeon import SignedBy
from surgeon.cli.app import run
from surgeon.errors import OutputError, SurgeonError, VerificationError
from surgeon.pipeline.signature import check_signature


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with another head, as surgeon writes it."""
    path = tmp_path_factory.mktemp("written") / "net"
    return surgeon.save(surgeon.apply(families.build("bert"), [surgeon.ReplaceHead(classes=4)]), path)


@pytest.fixture
def net(artifact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(artifact, tmp_path / "net"))


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder with the keys of Ann and Ben, and Ann's once more with a password."""
    pytest.importorskip("model_signing", reason="needs the extra [sign]")
    for name in ("ann", "ben"):
        write_key(tmp_path, name)
    write_key(tmp_path, "locked", b"sesame")
    return tmp_path


@pytest.fixture
def signed(net: Path, keys: Path) -> Path:
    """The artifact, signed by Ann."""
    surgeon.sign(net, key=keys / "ann.pem")
    return net


def test_a_signed_artifact_passes_in_python_and_on_the_command_line(
    net: Path, keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["sign", str(net), "--key", str(keys / "ann.pem")]) == 0
    command = ["check", str(net), "--signature", "--key", str(keys / "ann.pub")]
    assert run(command) == 0
    assert "all 4 files are as the key" in " ".join(capsys.readouterr().out.split())
    assert run([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["signed"] == 4
    assert surgeon.check(net, signature=SignedBy(key=keys / "ann.pub")).signed == 4
    assert surgeon.check(net).signed == 0
    surgeon.load(net, verify=True)


def test_the_library_verifies_it_in_a_process_without_surgeon(signed: Path, keys: Path) -> None:
    script = (
        "import sys, model_signing\n"
        "config = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=sys.argv[2])\n"
        "config.verify(sys.argv[1], sys.argv[1] + '/model.sig')\n"
        "assert 'surgeon' not in sys.modules\n"
    )
    for key, code in (("ann", 0), ("ben", 1)):
        process = subprocess.run([sys.executable, "-c", script, str(signed), str(keys / f"{key}.pub")], check=False)
        assert process.returncode == code


def _change(folder: Path) -> None:
    (folder / "config.json").write_bytes((folder / "config.json").read_bytes() + b" ")


def _weights(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-7] ^= 16
    (folder / "model.safetensors").write_bytes(data)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a changed file": (_change, r"'config\.json' was changed"),
    "a changed weight": (_weights, r"'model\.safetensors' was changed"),
    "an added file": (lambda folder: (folder / "more.bin").write_bytes(b"x"), r"'more\.bin' was added"),
    "a removed file": (lambda folder: (folder / "recipe.yaml").unlink(), r"'recipe\.yaml' was removed"),
    "a link": (lambda folder: (folder / "more.json").symlink_to("config.json"), "is a link"),
    "no signature": (lambda folder: (folder / "model.sig").unlink(), "is not signed"),
    "no text": (lambda folder: (folder / "model.sig").write_bytes(b"\xff"), "is not a signature in the format"),
    "no signature but JSON": (lambda folder: (folder / "model.sig").write_text("[]"), "is not a signature"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_after_signing_is_refused(signed: Path, keys: Path, change: str) -> None:
    alter, message = CHANGES[change]
    alter(signed)
    with pytest.raises(VerificationError, match=message):
        surgeon.check(signed, signature=SignedBy(key=keys / "ann.pub"))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("ben.pub", "is not a signature of this artifact by the key .*ben.pub: Key mismatch"),
        ("ann.pem", "cannot be checked against the key"),
        ("none.pub", "cannot be checked against the key"),
    ],
)
def test_another_key_is_refused(signed: Path, keys: Path, key: str, message: str) -> None:
    with pytest.raises(VerificationError, match=message):
        surgeon.check(signed, signature=SignedBy(key=keys / key))


def test_a_signature_of_another_artifact_is_refused(signed: Path, keys: Path, tmp_path: Path) -> None:
    other = surgeon.save(surgeon.apply(families.build("bert"), [surgeon.ReplaceHead(classes=5)]), tmp_path / "other")
    shutil.copy(signed / "model.sig", other / "model.sig")
    with pytest.raises(VerificationError, match="was changed"):
        surgeon.check(other, signature=SignedBy(key=keys / "ann.pub"))


def test_a_signature_whose_bytes_change_ends_in_one_clear_error_or_still_holds(signed: Path, keys: Path) -> None:
    file, dice = signed / "model.sig", random.Random(0)
    data, refused = file.read_bytes(), 0
    envelope = json.loads(data)
    for number in range(150):
        changed = bytearray(data)
        changed[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        file.write_bytes(changed)
        if number % 10 == 0:
            key = dice.choice(["verificationMaterial", "dsseEnvelope", "mediaType"])
            file.write_text(json.dumps(envelope | {key: dice.choice([None, 3, [], {}, "x"])}))
        try:
            check_signature(signed, SignedBy(key=keys / "ann.pub"))
        except VerificationError:
            refused += 1
    assert refused > 130


def test_files_that_a_signature_leaves_out_are_named(net: Path, keys: Path) -> None:
    import model_signing

    hashing = model_signing.hashing.Config().set_ignored_paths(paths=["model.sig", "model.safetensors"])
    signer = model_signing.signing.Config().use_elliptic_key_signer(private_key=keys / "ann.pem")
    signer.set_hashing_config(hashing).sign(net, net / "model.sig")
    with pytest.raises(VerificationError, match=r"leaves out 'model\.safetensors'"):
        surgeon.check(net, signature=SignedBy(key=keys / "ann.pub"))


def test_what_a_download_leaves_beside_the_files_is_no_part_of_them(signed: Path, keys: Path) -> None:
    (signed / ".cache" / "huggingface").mkdir(parents=True)
    (signed / ".cache" / "huggingface" / "model.metadata").write_text("x")
    (signed / ".gitattributes").write_text("*.safetensors filter=lfs")
    assert surgeon.check(signed, signature=SignedBy(key=keys / "ann.pub")).signed == 4


def test_results_of_surgery_on_a_signed_artifact_are_not_signed(signed: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("operations: [{op: freeze, sites: bert.embeddings}]\n")
    assert run(["apply", str(tmp_path / "recipe.yaml"), str(signed), "-o", str(tmp_path / "next"), "-q"]) == 0
    assert run(["export", str(signed), "-o", str(tmp_path / "plain"), "--to", "hf", "-q"]) == 0
    surgeon.save(surgeon.load(signed), tmp_path / "again")
    for name in ("next", "plain", "again"):
        assert (tmp_path / name / "config.json").exists()
        assert not (tmp_path / name / "model.sig").exists()


def test_a_damaged_artifact_is_not_signed(net: Path, keys: Path) -> None:
    _weights(net)
    with pytest.raises(VerificationError, match="has changed since it was written"):
        surgeon.sign(net, key=keys / "ann.pem")
    assert not (net / "model.sig").exists()


def test_a_signature_is_replaced_only_on_request(signed: Path, keys: Path) -> None:
    with pytest.raises(OutputError, match=r"model\.sig exists"):
        surgeon.sign(signed, key=keys / "ben.pem")
    surgeon.sign(signed, key=keys / "ben.pem", force=True)
    assert surgeon.check(signed, signature=SignedBy(key=keys / "ben.pub")).signed == 4
    assert {path.name for path in signed.iterdir()} >= {"model.sig"}
    assert not list(signed.glob(".surgeon-*"))


def test_a_key_with_a_password_takes_it_from_the_environment(
    net: Path, keys: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sign", str(net), "--key", str(keys / "locked.pem")]
    assert run(command) == OutputError.exit_code
    assert "Password was not given" in capsys.readouterr().err
    monkeypatch.setenv("SURGEON_KEY_PASSWORD", "sesame")
    assert run(command) == 0
    assert surgeon.check(net, signature=SignedBy(key=keys / "locked.pub")).signed == 4


def _certificate(folder: Path, name: str, issuer: str | None = None) -> None:
    """Write a key and its certificate: of a root, or signed by one."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    key = write_key(folder, name)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    signer_name, signer = subject, key
    if issuer is not None:
        signer = serialization.load_pem_private_key((folder / f"{issuer}.pem").read_bytes(), None)
        signer_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)])
    day = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    usage = {
        "digital_signature": issuer is not None,
        "key_cert_sign": issuer is None,
        "crl_sign": issuer is None,
        **dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment"), False),
        **dict.fromkeys(("key_agreement", "encipher_only", "decipher_only"), False),
    }
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(day)
        .not_valid_after(day + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
    )
    made = builder.sign(signer, hashes.SHA256())
    (folder / f"{name}.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))


def test_a_certificate_is_traced_back_to_the_root_that_is_named(net: Path, keys: Path) -> None:
    for name, issuer in (("root", None), ("stranger", None), ("maker", "root")):
        _certificate(keys, name, issuer)
    parts = ["--key", str(keys / "maker.pem"), "--certificate", str(keys / "maker.crt")]
    assert run(["sign", str(net), *parts]) == 0
    assert run(["check", str(net), "--signature", "--chain", str(keys / "root.crt"), "-q"]) == 0
    with pytest.raises(VerificationError, match="is not a signature of this artifact by a certificate of"):
        surgeon.check(net, signature=SignedBy(chain=[keys / "stranger.crt"]))


def test_signing_with_an_account_passes_its_failures_on(
    net: Path, keys: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from model_signing.signing import Config

    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("no route to the certificate authority")

    monkeypatch.setattr(Config, "use_sigstore_signer", offline)
    assert run(["sign", str(net), "--keyless"]) == OutputError.exit_code
    assert "no route to the certificate authority" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["net.safetensors", "net.pt"])
def test_single_files_are_refused(artifact: Path, tmp_path: Path, form: str) -> None:
    file = surgeon.save(surgeon.load(artifact), tmp_path / form)
    with pytest.raises(VerificationError, match="only folders are signed"):
        surgeon.sign(file, key="ann.pem")
    with pytest.raises(VerificationError, match="only folders are signed"):
        surgeon.check(file, signature=SignedBy(key="ann.pub"))


MISTAKES: list[tuple[Callable[[Path], object], str]] = [
    (lambda net: surgeon.sign(net), "with a key or with an account"),
    (lambda net: surgeon.sign(net, key="a.pem", keyless=True), "with a key or with an account"),
    (lambda net: surgeon.sign(net, keyless=True, certificate="a.crt"), "with a key or with an account"),
    (lambda net: surgeon.sign(net, key="a.pem", chain=["root.crt"]), "--certificate"),
    (lambda net: surgeon.sign(net / "nowhere", key="a.pem"), "there is no such folder"),
    (lambda net: surgeon.sign(net.parent, key="a.pem"), "not an artifact of surgeon"),
    (lambda _: SignedBy(), "against one signer"),
    (lambda _: SignedBy(key="a.pub", identity="ann", issuer="https://x"), "against one signer"),
    (lambda _: SignedBy(identity="ann"), "--issuer"),
    (lambda net: surgeon.sign(net, ky="a.pem"), "key"),  # type: ignore[call-arg]
]


@pytest.mark.parametrize(("call", "message"), MISTAKES)
def test_mistakes_name_what_is_missing(net: Path, call: Callable[[Path], object], message: str) -> None:
    with pytest.raises((SurgeonError, TypeError), match=message):
        call(net)


def test_a_signer_without_a_request_to_check_is_refused(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", str(net), "--key", "ann.pub"]) == VerificationError.exit_code
    assert "surgeon check ARTIFACT --signature" in capsys.readouterr().err


def test_without_the_extra_the_command_that_installs_it_is_named(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    (net / "model.sig").write_text(json.dumps({"dsseEnvelope": {"payload": base64.b64encode(b"{}").decode()}}))
    calls: list[Callable[[], object]] = [
        lambda: surgeon.sign(net, key="ann.pem", force=True),
        lambda: surgeon.check(net, signature=SignedBy(key="ann.pub")),
    ]
    for call in calls:
        with pytest.raises(VerificationError, match=r"model-signing, which is not installed\n.*surgeon-torch\[sign\]"):
            call()
    assert surgeon.check(net).digests == 3
