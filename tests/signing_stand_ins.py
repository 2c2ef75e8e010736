"""Keys and certificates that a test makes for itself, and a statement in the form of ``model_signing`` that it signs by hand."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Pair:
    """A private key and its public half, in files."""

    key: ec.EllipticCurvePrivateKey
    private: Path
    public: Path


def pair(folder: Path, name: str = "signer", *, curve=None, password: bytes | None = None) -> Pair:
    key = ec.generate_private_key(curve or ec.SECP256R1())
    return write_pair(folder, name, key, password=password)


def write_pair(folder: Path, name: str, key, *, password: bytes | None = None) -> Pair:
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden))
    private.chmod(0o600)
    public.write_bytes(public_pem(key))
    return Pair(key, private, public)


def public_pem(key) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form)


@dataclass(frozen=True)
class Certified:
    """A certificate, and the key that goes with it."""

    pair: Pair
    certificate: x509.Certificate
    path: Path


def certified(
    folder: Path,
    name: str,
    *,
    issuer: Certified | None = None,
    authority: bool = False,
    days: tuple[float, float] = (-1, 30),
    signs: bool = True,
) -> Certified:
    """Return a certificate for ``name``, by ``issuer`` or by itself, valid between two days from now."""
    own = pair(folder, name)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=signs, content_commitment=False, key_encipherment=not signs, data_encipherment=False,
        key_agreement=False, key_cert_sign=authority, crl_sign=authority, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(own.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .sign((own if issuer is None else issuer.pair).key, hashes.SHA256())
    )
    path = folder / f"{name}.crt"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return Certified(own, made, path)


def statement(digests: dict[str, str]) -> dict:
    """Return what is signed for files of these hashes."""
    resources = [{"name": name, "algorithm": "sha256", "digest": digests[name]} for name in sorted(digests)]
    root = hashlib.sha256(b"".join(bytes.fromhex(one["digest"]) for one in resources)).hexdigest()
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "m", "digest": {"sha256": root}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False},
            "resources": resources,
        },
    }


def enveloped(payload: bytes, key, *, kind: str = "application/vnd.in-toto+json") -> dict:
    """Return a signature file over ``payload``, truly signed with ``key``, whatever the payload is."""
    bound = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    own = base64.b64encode(key.sign(bound, ec.ECDSA(hashes.SHA256()))).decode()
    return {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {
            "publicKey": {"hint": hashlib.sha256(public_pem(key)).hexdigest()},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": kind,
            "signatures": [{"sig": own, "keyid": ""}],
        },
    }


def signed_by_hand(folder: Path, key, change=lambda tree: None) -> dict:
    """Return a signature file over what lies in ``folder``, whose statement was changed before it was signed."""
    digests = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != "model.sig"
    }
    tree = statement(digests)
    change(tree)
    return enveloped(json.dumps(tree).encode(), key)
