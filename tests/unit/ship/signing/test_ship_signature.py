"""What was signed passes with the signer's key or root, and with nothing else; no byte, name, file or version can be changed."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from prunus.core.errors import BundleError, RecipeError
from prunus.ship import SignWith, VerifyPolicy, save_bundle, sign_bundle, verify_bundle
from ship_stand_ins import build, made, network, options, pruned
from signing_stand_ins import certified, pair, signed_by_hand, write_pair

__all__ = ["build", "made", "options", "pruned"]

SIGNED_FILES = (
    "README.md",
    "bom.cdx.json",
    "graph.json",
    "manifest.json",
    "model.safetensors",
    "model.sig",
    "release.json",
)


@pytest.fixture
def signer(tmp_path):
    return pair(tmp_path)


@pytest.fixture
def signed(made, signer):
    """A bundle that was signed as version 1.4.0, and the policy that lets it in."""
    sign_bundle(made.folder, SignWith(signer.private), version="1.4.0")
    return made.folder, VerifyPolicy(signer.public)


def refused(folder, policy, *words):
    with pytest.raises(BundleError) as caught:
        verify_bundle(folder, policy=policy)
    said = str(caught.value)
    assert "\n" not in said
    for word in words:
        assert word in said, said
    return said


def test_what_was_signed_passes_and_proves_who_signed_and_as_which_version(made, signer):
    of_writer = sign_bundle(made.folder, SignWith(signer.private), version="1.4.0")
    found = verify_bundle(made.folder, policy=VerifyPolicy(signer.public))
    assert found.signed == of_writer.signed
    assert found.files == of_writer.files
    assert found.signed.signer == hashlib.sha256(signer.public.read_bytes()).hexdigest()
    assert (found.version, found.sha256) == ("1.4.0", made.sha256)
    assert sorted(path.name for path in made.folder.iterdir()) == list(SIGNED_FILES)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_every_curve_of_the_library_signs(made, tmp_path, curve):
    own = pair(tmp_path, curve=curve)
    sign_bundle(made.folder, SignWith(own.private))
    assert verify_bundle(made.folder, policy=VerifyPolicy(own.public)).signed.method == "key"


@pytest.mark.parametrize("name", SIGNED_FILES)
def test_no_byte_of_any_file_can_be_changed(signed, name):
    folder, policy = signed
    content = (folder / name).read_bytes()
    places = sorted({0, 1, *range(7, len(content), max(1, len(content) // 150)), len(content) - 1})
    passed = []
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1
        (folder / name).write_bytes(changed)
        try:
            verify_bundle(folder, policy=policy)
            passed.append(place)
        except BundleError as error:
            assert "\n" not in str(error)
    assert passed == [], content[max(0, passed[0] - 20) : passed[0] + 20]


@pytest.mark.parametrize("name", SIGNED_FILES)
def test_no_file_can_be_removed_cut_off_or_made_longer(signed, name):
    folder, policy = signed
    content = (folder / name).read_bytes()
    for changed in (b"", content[: len(content) // 2], content + b"x", content * 2):
        (folder / name).write_bytes(changed)
        refused(folder, policy)
    (folder / name).unlink()
    refused(folder, policy)


def test_a_white_space_more_in_a_signed_file_is_refused(signed):
    """Its own hash doesn't notice: that is of what the manifest means. The signature is of its bytes."""
    folder, policy = signed
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes() + b" ")
    verify_bundle(folder)
    refused(folder, policy, "manifest.json was changed after it was signed")


def test_no_file_can_be_added_and_none_renamed(signed):
    folder, policy = signed
    (folder / "more.json").write_text("{}")
    refused(folder, policy, "more.json")
    (folder / "more.json").unlink()
    (folder / "graph.json").rename(folder / "Graph.json")
    refused(folder, policy)


def test_two_files_cannot_take_each_others_name(signed):
    folder, policy = signed
    (folder / "graph.json").rename(folder / "kept")
    (folder / "manifest.json").rename(folder / "graph.json")
    (folder / "kept").rename(folder / "manifest.json")
    refused(folder, policy)


def test_a_manifest_that_was_resealed_is_refused(signed, made):
    folder, policy = signed
    made.rewrite(lambda tree: tree.update(class_names=["b", "a", "c"]))
    verify_bundle(folder)
    refused(folder, policy, "manifest.json was changed after it was signed")


def test_a_signature_cannot_be_moved_to_another_bundle(signed, build, options, tmp_path):
    folder, policy = signed
    torch.manual_seed(1)
    save_bundle(tmp_path / "other", network(width=5), **options)
    for name in ("model.sig", "release.json"):
        shutil.copy(folder / name, tmp_path / "other" / name)
    refused(tmp_path / "other", policy, "was changed after it was signed")


def test_a_release_cannot_be_moved_to_another_bundle_even_by_the_signer(signed, signer, build, options, tmp_path):
    folder, _ = signed
    torch.manual_seed(1)
    save_bundle(tmp_path / "other", network(width=5), **options)
    shutil.copy(folder / "release.json", tmp_path / "other" / "release.json")
    with pytest.raises(BundleError, match="belongs to another bundle"):
        sign_bundle(tmp_path / "other", SignWith(signer.private))
    sign_bundle(tmp_path / "other", SignWith(signer.private), version="2")
    verify_bundle(tmp_path / "other", policy=VerifyPolicy(signer.public, min_version="2"))


def test_only_the_key_that_signed_lets_it_in(signed, tmp_path):
    folder, _ = signed
    refused(folder, VerifyPolicy(pair(tmp_path, "other").public), "signed with another key")


def test_a_signature_with_another_key_that_claims_this_one_is_refused(signed, signer, tmp_path):
    folder, policy = signed
    other = pair(tmp_path, "other")
    forged = signed_by_hand(folder, other.key)
    forged["verificationMaterial"]["publicKey"]["hint"] = hashlib.sha256(signer.public.read_bytes()).hexdigest()
    (folder / "model.sig").write_text(json.dumps(forged))
    refused(folder, policy, "wasn't made with the key")


def test_a_bundle_without_a_signature_is_refused_where_one_is_required(made, signer):
    refused(made.folder, VerifyPolicy(signer.public), "a signature is required", "model.sig")
    assert verify_bundle(made.folder).signed is None


def test_a_signature_that_nobody_looked_at_is_said(signed):
    folder, _ = signed
    assert any("wasn't looked at" in note for note in verify_bundle(folder).notes)


VERSIONS = [("1.3.9", True), ("1.4", True), ("1.4.0.0", True), ("1.4.1", False), ("1.10", False), ("2", False)]


@pytest.mark.parametrize(("least", "passes"), VERSIONS)
def test_an_old_version_is_refused(signed, signer, least, passes):
    folder, _ = signed
    policy = VerifyPolicy(signer.public, min_version=least)
    if passes:
        assert verify_bundle(folder, policy=policy).version == "1.4.0"
    else:
        refused(folder, policy, "version 1.4.0", least)


def test_a_newer_version_cannot_be_claimed(signed, signer):
    folder, _ = signed
    text = (folder / "release.json").read_text()
    (folder / "release.json").write_text(text.replace("1.4.0", "9.4.0"))
    refused(folder, VerifyPolicy(signer.public, min_version="2"), "release.json was changed after it was signed")


def test_signed_without_a_version_no_least_one_is_reached(made, signer):
    sign_bundle(made.folder, SignWith(signer.private))
    assert verify_bundle(made.folder, policy=VerifyPolicy(signer.public)).version is None
    refused(made.folder, VerifyPolicy(signer.public, min_version="0"), "without a version")


def test_signed_anew_it_keeps_its_version_and_the_old_signature_is_gone(signed, tmp_path):
    folder, policy = signed
    other = pair(tmp_path, "other")
    assert sign_bundle(folder, SignWith(other.private)).version == "1.4.0"
    assert verify_bundle(folder, policy=VerifyPolicy(other.public)).version == "1.4.0"
    refused(folder, policy)


@pytest.mark.parametrize("version", ["", "1.", "v1", "1.2.3.4.5", "1.0-rc1", "-1", "１", "1\n", "9" * 10])
def test_what_is_no_version_is_refused(made, signer, version):
    with pytest.raises(RecipeError, match="a version is"):
        sign_bundle(made.folder, SignWith(signer.private), version=version)
    with pytest.raises(RecipeError, match="a version is"):
        VerifyPolicy(signer.public, min_version=version)
    assert not (made.folder / "model.sig").exists()


def test_a_broken_bundle_is_not_signed(made, signer):
    (made.folder / "graph.json").write_text("{}")
    with pytest.raises(BundleError, match=r"graph\.json"):
        sign_bundle(made.folder, SignWith(signer.private), version="1")
    assert not (made.folder / "model.sig").exists()
    assert not (made.folder / "release.json").exists()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o660, 0o666])
def test_a_key_that_others_can_use_signs_nothing(made, signer, mode):
    signer.private.chmod(mode)
    with pytest.raises(
        RecipeError, match=re.escape(f"{signer.private}: others can use this private key (its mode is {mode:04o})")
    ):
        sign_bundle(made.folder, SignWith(signer.private))
    assert not (made.folder / "model.sig").exists()


def test_what_is_no_key_is_said_in_one_line(made, signer, tmp_path):
    wrong = [tmp_path / "nothing", tmp_path, signer.public]
    (tmp_path / "text").write_text("no key")
    (tmp_path / "cut").write_bytes(signer.private.read_bytes()[:60])
    twisted = write_pair(tmp_path, "ed", ed25519.Ed25519PrivateKey.generate())
    koblitz = pair(tmp_path, "koblitz", curve=ec.SECP256K1())
    for path in (*wrong, tmp_path / "text", tmp_path / "cut", twisted.private, koblitz.private):
        if path.is_file():
            path.chmod(0o600)
        with pytest.raises(RecipeError) as caught:
            sign_bundle(made.folder, SignWith(path))
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    sign_bundle(made.folder, SignWith(signer.private))
    for path in (
        tmp_path / "nothing",
        signer.private,
        tmp_path / "text",
        tmp_path / "cut",
        twisted.public,
        koblitz.public,
    ):
        with pytest.raises(RecipeError, match=re.escape(str(path))):
            verify_bundle(made.folder, policy=VerifyPolicy(path))


def test_an_encrypted_key_signs_with_its_password_alone(made, tmp_path):
    own = pair(tmp_path, password=b"open")
    for password in (None, "shut"):
        with pytest.raises(RecipeError, match=r"no password was given|the password is wrong"):
            sign_bundle(made.folder, SignWith(own.private, password=password))
    sign_bundle(made.folder, SignWith(own.private, password="open"))
    verify_bundle(made.folder, policy=VerifyPolicy(own.public))


def test_a_key_and_a_chain_or_a_version_alone_make_no_policy(signer):
    with pytest.raises(RecipeError, match="got both"):
        VerifyPolicy(signer.public, (signer.public,))
    with pytest.raises(RecipeError, match="a version is proven by a signature only"):
        VerifyPolicy(min_version="1")


class TestCertificates:
    @pytest.fixture
    def root(self, tmp_path):
        return certified(tmp_path, "root", authority=True)

    def sign(self, folder, own, *between):
        chain = tuple(one.path for one in between)
        return sign_bundle(folder, SignWith(own.pair.private, own.path, chain), version="1")

    def test_a_certificate_of_the_root_signs_and_its_subject_is_proven(self, made, root, tmp_path):
        between = certified(tmp_path, "between", issuer=root, authority=True)
        own = certified(tmp_path, "maker", issuer=between)
        self.sign(made.folder, own, between)
        found = verify_bundle(made.folder, policy=VerifyPolicy(certificate_chain=(root.path,)))
        assert found.signed.method == "certificate"
        assert "CN=maker" in found.signed.signer
        assert found.signed.expires == own.certificate.not_valid_after_utc.isoformat()

    def test_another_root_does_not_let_it_in(self, made, root, tmp_path):
        self.sign(made.folder, certified(tmp_path, "maker", issuer=root), root)
        other = certified(tmp_path / "..", "root", authority=True)
        refused(made.folder, VerifyPolicy(certificate_chain=(other.path,)), "doesn't come from")

    def test_a_signer_without_what_lies_between_is_refused(self, made, root, tmp_path):
        between = certified(tmp_path, "between", issuer=root, authority=True)
        self.sign(made.folder, certified(tmp_path, "maker", issuer=between), root)
        refused(made.folder, VerifyPolicy(certificate_chain=(root.path,)), "doesn't come from")

    def test_an_expired_certificate_signs_nothing_and_lets_nothing_in(self, made, root, tmp_path, monkeypatch):
        own = certified(tmp_path, "maker", issuer=root, days=(-20, -1))
        with pytest.raises(RecipeError, match=r"CN=maker.*expired on"):
            self.sign(made.folder, own, root)
        monkeypatch.setattr("prunus.ship.signing.keys.check_valid", lambda *_: None)  # it was signed when it was good
        self.sign(made.folder, own, root)
        monkeypatch.undo()
        refused(made.folder, VerifyPolicy(certificate_chain=(root.path,)), "CN=maker", "expired on")

    def test_an_expired_root_and_an_expired_one_between_let_nothing_in(self, made, tmp_path):
        old = certified(tmp_path, "old root", authority=True, days=(-20, -1))
        own = certified(tmp_path, "maker", issuer=old)
        sign_bundle(made.folder, SignWith(own.pair.private, own.path))
        refused(made.folder, VerifyPolicy(certificate_chain=(old.path,)), "CN=old root", "expired on")

    def test_a_certificate_that_is_not_valid_yet_lets_nothing_in(self, made, root, tmp_path):
        own = certified(tmp_path, "maker", issuer=root, days=(2, 20))
        with pytest.raises(RecipeError, match="valid only from"):
            self.sign(made.folder, own, root)

    def test_a_certificate_that_is_not_for_signing_lets_nothing_in(self, made, root, tmp_path):
        self.sign(made.folder, certified(tmp_path, "maker", issuer=root, signs=False), root)
        with pytest.warns(DeprecationWarning, match="warn"):  # of the library, which says that there is no other usage
            refused(made.folder, VerifyPolicy(certificate_chain=(root.path,)), "cannot be used for signing")

    def test_a_certificate_issued_by_one_that_is_no_authority_lets_nothing_in(self, made, root, tmp_path):
        somebody = certified(tmp_path, "somebody", issuer=root)
        self.sign(made.folder, certified(tmp_path, "forged", issuer=somebody), somebody)
        refused(made.folder, VerifyPolicy(certificate_chain=(root.path,)), "doesn't come from")

    def test_the_certificate_of_another_key_signs_nothing(self, made, root, tmp_path):
        own, other = certified(tmp_path, "maker", issuer=root), certified(tmp_path, "other", issuer=root)
        with pytest.raises(RecipeError, match="of another key"):
            sign_bundle(made.folder, SignWith(own.pair.private, other.path, (root.path,)))

    def test_a_key_and_a_certificate_are_not_mistaken_for_each_other(self, made, root, signer, tmp_path):
        sign_bundle(made.folder, SignWith(signer.private))
        refused(made.folder, VerifyPolicy(certificate_chain=(root.path,)), "give the public key")
        self.sign(made.folder, certified(tmp_path, "maker", issuer=root), root)
        refused(made.folder, VerifyPolicy(signer.public), "give the certificate chain")

    def test_what_is_no_certificate_is_said_in_one_line(self, made, signer, tmp_path):
        with pytest.raises(RecipeError, match="no certificate"):
            sign_bundle(made.folder, SignWith(signer.private, signer.public))


def test_what_prunus_signs_the_command_of_model_signing_verifies(signed, signer):
    folder, _ = signed
    words = [
        sys.executable,
        "-m",
        "model_signing",
        "verify",
        "key",
        str(folder),
        "--signature",
        str(folder / "model.sig"),
    ]
    command = [*words, "--public_key", str(signer.public)]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    (folder / "graph.json").write_bytes(b"{}")
    assert subprocess.run(command, check=False, capture_output=True).returncode != 0


def test_what_model_signing_signs_prunus_verifies(made, signer):
    import model_signing

    ignored = model_signing.hashing.Config().set_ignored_paths(paths=["model.sig"])
    config = model_signing.signing.Config().use_elliptic_key_signer(private_key=signer.private)
    config.set_hashing_config(ignored).sign(made.folder, made.folder / "model.sig")
    assert verify_bundle(made.folder, policy=VerifyPolicy(signer.public)).signed.method == "key"


def test_what_the_tests_sign_by_hand_is_what_the_library_signs(signed, signer):
    """Else the crafted signatures would be refused for another reason than the one that they are made for."""
    folder, policy = signed
    (folder / "model.sig").write_text(json.dumps(signed_by_hand(folder, signer.key)))
    assert verify_bundle(folder, policy=policy).version == "1.4.0"
