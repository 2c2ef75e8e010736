"""Which signatures does somebody craft? Some are truly signed, by the key that is trusted: what they say is checked as well."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import load_pem_private_key

from hostile_loaders import CASES, Prepare, json_cases, write
from signing_stand_ins import enveloped, signed_by_hand, statement

Change = Callable[[dict[str, Any]], Any]

CASES["verify"] |= {
    "an executable file beside": write("run/bundle/model.pt2", b"PK\x03\x04"),
    "a pickle beside": write("run/bundle/model.pkl", b"cos\nsystem\n(S'touch ran'\ntR."),
    "a folder beside": lambda folder: (folder / "run/bundle/more").mkdir(),
    "a link beside": lambda folder: (folder / "run/bundle/more").symlink_to("/etc"),
    "a file of a name that steers": write("run/bundle/\x1b[2J\n", b""),
}


def _key(folder: Path) -> Any:
    return load_pem_private_key((folder / "signer.pem").read_bytes(), None)


def _said(change: Change) -> Prepare:
    """Change the signature file itself: what isn't signed."""

    def prepare(folder: Path) -> None:
        path = folder / "signed/model.sig"
        tree = json.loads(path.read_text())
        change(tree)
        path.write_text(json.dumps(tree))

    return prepare


def _truly(change: Change) -> Prepare:
    """Change what is signed, and sign it with the trusted key."""

    def prepare(folder: Path) -> None:
        tree = signed_by_hand(folder / "signed", _key(folder), change)
        (folder / "signed/model.sig").write_text(json.dumps(tree))

    return prepare


def _payload(content: bytes, kind: str = "application/vnd.in-toto+json") -> Prepare:
    def prepare(folder: Path) -> None:
        tree = enveloped(content, _key(folder), kind=kind)
        (folder / "signed/model.sig").write_text(json.dumps(tree))

    return prepare


def _honest_payload(change: Callable[[bytes], bytes], kind: str = "application/vnd.in-toto+json") -> Prepare:
    def prepare(folder: Path) -> None:
        files = {path.name: path for path in (folder / "signed").iterdir() if path.name != "model.sig"}
        digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
        _payload(change(json.dumps(statement(digests)).encode()), kind)(folder)

    return prepare


def _release(**changed: Any) -> Prepare:
    def prepare(folder: Path) -> None:
        path = folder / "signed/release.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
        _truly(lambda tree: None)(folder)

    return prepare


def _named(*names: str) -> Prepare:
    """Name further files, truly signed."""

    def change(tree: dict[str, Any]) -> None:
        more = [{"name": name, "algorithm": "sha256", "digest": hashlib.sha256(b"").hexdigest()} for name in names]
        tree["predicate"]["resources"] += more
        joined = b"".join(bytes.fromhex(one["digest"]) for one in tree["predicate"]["resources"])
        tree["subject"][0]["digest"]["sha256"] = hashlib.sha256(joined).hexdigest()

    return _truly(change)


def _linked(name: str) -> Prepare:
    """Leave a link to the honest file, which lies outside of the bundle."""

    def prepare(folder: Path) -> None:
        (folder / "signed" / name).rename(folder / name)
        (folder / "signed" / name).symlink_to(folder / name)

    return prepare


def _material(**parts: Any) -> Prepare:
    return _said(lambda tree: tree.update(verificationMaterial={"tlogEntries": [], **parts}))


json_cases("signature", "signed/model.sig", prefix="signature: ")
json_cases("signature", "signed/release.json", prefix="release: ")
CASES["signature"] |= {
    "another media type": _said(lambda tree: tree.update(mediaType="application/vnd.dev.sigstore.bundle+json;version=0.1")),
    "no media type": _said(lambda tree: tree.pop("mediaType")),
    "a media type that is a list": _said(lambda tree: tree.update(mediaType=["x"] * 1000)),
    "a payload of another type": _honest_payload(lambda content: content, "text/plain"),
    "a payload whose type is called another": _said(lambda tree: tree["dsseEnvelope"].update(payloadType="text/plain")),
    "a payload that is no JSON": _payload(b"\x80\x04\x95cos\nsystem\n."),
    "a payload nested a hundred thousand times": _payload(b"[" * 100_000),
    "a payload nested in objects": _payload(b'{"a":' * 5_000 + b"1" + b"}" * 5_000),
    "a payload of half a million values": _payload(b"[" + b"0," * 250_000 + b"0]"),
    "a payload with a key twice": _honest_payload(
        lambda content: content.replace(b'"predicateType"', b'"predicateType": "x", "predicateType"', 1)
    ),
    "a payload of a gigabyte, as it says": _said(lambda tree: tree["dsseEnvelope"].update(payload="A" * 4_000_000)),
    "a payload that isn't base64": _said(lambda tree: tree["dsseEnvelope"].update(payload="%%%%")),
    "a payload whose base64 has a line break": _said(
        lambda tree: tree["dsseEnvelope"].update(payload=tree["dsseEnvelope"]["payload"] + "\n")
    ),
    "no payload": _said(lambda tree: tree["dsseEnvelope"].pop("payload")),
    "no envelope": _said(lambda tree: tree.pop("dsseEnvelope")),
    "another message beside the envelope": _said(
        lambda tree: tree.update(messageSignature={"messageDigest": {}, "signature": ""})
    ),
    "the field twice in another spelling": _said(lambda tree: tree.update(media_type=tree["mediaType"])),
    "no signature in it": _said(lambda tree: tree["dsseEnvelope"].update(signatures=[])),
    "two signatures in it": _said(lambda tree: tree["dsseEnvelope"].update(signatures=tree["dsseEnvelope"]["signatures"] * 2)),
    "a hundred thousand signatures": _said(
        lambda tree: tree["dsseEnvelope"].update(signatures=tree["dsseEnvelope"]["signatures"] * 100_000)
    ),
    "an empty signature": _said(lambda tree: tree["dsseEnvelope"]["signatures"][0].update(sig="")),
    "a signature of zeros": _said(
        lambda tree: tree["dsseEnvelope"]["signatures"][0].update(sig=base64.b64encode(bytes(70)).decode())
    ),
    "a signature that both numbers of are zero": _said(
        lambda tree: tree["dsseEnvelope"]["signatures"][0].update(sig=base64.b64encode(b"0\x06\x02\x01\x00\x02\x01\x00").decode())
    ),
    "a signature of a megabyte": _said(lambda tree: tree["dsseEnvelope"]["signatures"][0].update(sig="A" * 700_000)),
    "a key that steers the terminal": _said(lambda tree: tree["dsseEnvelope"]["signatures"][0].update(keyid="\x1b[2J\n")),
    "no key named": _material(),
    "a key without its hash": _material(publicKey={}),
    "a key whose hash is null": _material(publicKey={"hint": None}),
    "a key of its own brought along": _material(publicKey={"hint": "0" * 64, "rawBytes": "AAAA"}),
    "certificates that are none": _material(x509CertificateChain={"certificates": [{"rawBytes": "AAAA"}]}),
    "certificates in place of the key": _material(x509CertificateChain={"certificates": []}),
    "a hundred thousand certificates": _material(x509CertificateChain={"certificates": [{"rawBytes": "AAAA"}] * 50_000}),
    "an entry of a log": _said(lambda tree: tree["verificationMaterial"].update(tlogEntries=[{"logIndex": "1"}])),
    "another statement": _truly(lambda tree: tree.update(_type="https://in-toto.io/Statement/v0.1")),
    "another predicate": _truly(lambda tree: tree.update(predicateType="https://slsa.dev/provenance/v1")),
    "the predicate of an older library": _truly(lambda tree: tree.update(predicateType="https://model_signing/Digests/v0.1")),
    "two subjects": _truly(lambda tree: tree.update(subject=tree["subject"] * 2)),
    "another root of all hashes": _truly(lambda tree: tree["subject"][0]["digest"].update(sha256="0" * 64)),
    "links are let in": _truly(lambda tree: tree["predicate"]["serialization"].update(allow_symlinks=True)),
    "hashes of shards": _truly(lambda tree: tree["predicate"]["serialization"].update(method="shards", shard_size=1)),
    "another hash": _truly(lambda tree: tree["predicate"]["serialization"].update(hash_type="blake2")),
    "paths to ignore without end": _truly(
        lambda tree: tree["predicate"]["serialization"].update(ignore_paths=["model.safetensors"] * 1000)
    ),
    "a hash by a name that isn't known": _truly(lambda tree: tree["predicate"]["resources"][0].update(algorithm="md5")),
    "a file that is above the folder": _named("../signer.pem"),
    "a file anywhere": _named("/etc/hostname"),
    "a file in a folder": _named("a/b"),
    "a file of no name": _named(""),
    "a file of a name with a null": _named("a\0b"),
    "a file that isn't there": _named("missing"),
    "the signature itself": _named("model.sig"),
    "a file named twice": _named("release.json"),
    "three thousand files": _named(*(f"f{number}" for number in range(3000))),
    "no files": _truly(lambda tree: tree["predicate"].update(resources=[])),
    "a file left out": _truly(lambda tree: tree["predicate"]["resources"].pop(0)),
    "files that are one number": _truly(lambda tree: tree["predicate"].update(resources=7)),
    "weights that aren't what was signed": lambda folder: _one_more_zero(folder / "signed/graph.json"),
    "the signature is a link": _linked("model.sig"),
    "the release is a link": _linked("release.json"),
    "the weights are a link": _linked("model.safetensors"),
    "a version that is none": _release(version="latest"),
    "a version without end": _release(version="9" * 3000),
    "the version of another bundle": _release(bundle="0" * 64),
    "a release that says more": _release(run="os:system"),
    "a release of another format": _release(format=2),
}  # fmt: skip


def _one_more_zero(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"0")
