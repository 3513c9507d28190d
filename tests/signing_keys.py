"""Keys to sign with."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def write_key(folder: Path, name: str, password: bytes | None = None) -> Any:
    """Write a new private key to ``NAME.pem`` and its public key to ``NAME.pub``, and return it."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    lock = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    (folder / f"{name}.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, lock))
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub").write_bytes(public)
    return key
