"""A server doesn't start with a certificate, a key, a port or a pair that can't be used, and speaks https with one that can."""

from __future__ import annotations

import datetime
import io
import json
import logging
import socket
import ssl
import threading
import urllib.request
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from patience import PATIENCE_S
from prunus.core.errors import OutputError, RecipeError
from prunus.serve import ClientLimits, Pair, Promise, ServeSettings
from prunus.serve.start import _check_certificate, _check_pair, listening_socket
from prunus.serve.watch.json_logs import JsonLines
from serve_stand_ins import listening, loaded, small_bundle

__all__ = ["small_bundle"]

NOW = datetime.datetime.now(datetime.UTC)


def certificate(folder, *, days=1, name="localhost", password=None):
    """Write a certificate and its key; return their paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - datetime.timedelta(days=10))
        .not_valid_after(NOW + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(exist_ok=True)
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    how = serialization.NoEncryption() if password is None else serialization.BestAvailableEncryption(password)
    form = serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, how))
    (folder / "key.pem").chmod(0o600)
    return {"certificate": folder / "cert.pem", "certificate_key": folder / "key.pem"}


def test_a_server_with_a_certificate_speaks_https(small_bundle, tmp_path):
    paths = certificate(tmp_path / "a")
    _check_certificate(ServeSettings(**paths))
    context = ssl.create_default_context(cafile=paths["certificate"])
    with listening(small_bundle, **paths) as (_, port):
        with urllib.request.urlopen(f"https://localhost:{port}/v2", context=context) as answer:
            assert json.load(answer)["name"] == "prunus"
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as plain:
            plain.sendall(b"GET /v2 HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert b"200 OK" not in plain.recv(1000)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda paths, folder: certificate(folder, days=-1), "expired on"),
        (lambda paths, folder: paths["certificate_key"].chmod(0o640), "others can read the key"),
        (lambda paths, folder: paths["certificate_key"].write_bytes(b"nothing"), "no certificate with its key"),
        (lambda paths, folder: paths["certificate"].write_bytes(b"nothing"), "no certificate with its key"),
        (lambda paths, folder: paths["certificate"].unlink(), "can't be read: No such file"),
        (lambda paths, folder: certificate(folder, password=b"secret"), "is encrypted"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_said_at_the_start(tmp_path, spoil, said):
    paths = certificate(tmp_path / "a")
    spoil(paths, tmp_path / "a")
    with pytest.raises(RecipeError, match=said) as caught:
        _check_certificate(ServeSettings(**paths))
    assert "\n" not in str(caught.value)


def test_a_key_of_another_certificate_is_none(tmp_path):
    one, other = certificate(tmp_path / "a"), certificate(tmp_path / "b")
    with pytest.raises(RecipeError, match="no certificate with its key"):
        _check_certificate(ServeSettings(certificate=one["certificate"], certificate_key=other["certificate_key"]))


@pytest.mark.parametrize(
    "options",
    [{"port": 70_000}, {"rate": 0.0}, {"drain_s": -1}, {"runtime": "tensorrt"}, {"certificate": "c"}],
)
def test_settings_that_make_no_sense_are_refused(options):
    with pytest.raises(RecipeError, match="--"):
        ServeSettings(**options)


def test_limits_shares_and_margins_are_above_zero():
    with pytest.raises(RecipeError, match="above zero"):
        ClientLimits(batch=0)
    for share in (0.0, 1.5, -1):
        with pytest.raises(RecipeError, match="--canary"):
            Pair(share, Promise())
    for margin in (0.0, 1.0):
        with pytest.raises(RecipeError, match="--max-drop"):
            Promise(max_drop=margin)


def test_a_port_that_is_taken_or_no_address_is_said():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OutputError, match="in use by another program"):
        listening_socket(ServeSettings(port=taken.getsockname()[1]))
    with pytest.raises(RecipeError, match="is no address"):
        listening_socket(ServeSettings(host="no.such.host.invalid"))


def test_dense_and_pruned_must_be_able_to_stand_for_each_other(small_bundle):
    dense = loaded(small_bundle, version="a")
    _check_pair(dense, loaded(small_bundle, version="b"))
    with pytest.raises(RecipeError, match="same bundle"):
        _check_pair(dense, loaded(small_bundle, version="a"))
    with pytest.raises(RecipeError, match="the classes"):
        _check_pair(dense, loaded(small_bundle, version="b", class_names=("x",)))
    with pytest.raises(RecipeError, match="the inputs"):
        _check_pair(dense, loaded(small_bundle, version="b", inputs=(replace(dense.spec.inputs[0], name="other"),)))


def test_what_a_client_chose_makes_no_line_of_its_own():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logger = logging.Logger("t")
    logger.addHandler(handler)
    logger.warning("a\nb", extra={"facts": {"path": '/x\r\n{"level": "info"}\x1b[2J', "n": 3}})
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["path"] == '/x\r\n{"level": "info"}\x1b[2J'
    assert "\x1b" not in line


def test_a_stand_in_server_ends_all_its_threads(small_bundle):
    before = threading.active_count()
    with listening(small_bundle):
        pass
    assert threading.active_count() <= before + 1
