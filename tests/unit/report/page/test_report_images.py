import base64
import io
import struct
import zlib

import numpy as np
import pytest

from prunus.report import png_data_uri


def decoded(uri):
    """Return the pixels (height, width, channels) of a PNG, read as the standard says."""
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"), validate=True)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length]) == (zlib.crc32(kind + body),)
        chunks[kind] = body
        at += 12 + length
    width, height, depth, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert depth == 8
    channels = {0: 1, 2: 3}[colour]
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, 1 + width * channels)
    assert (rows[:, 0] == 0).all()
    return rows[:, 1:].reshape(height, width, channels)


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 5), (3, 4, 8)])
def test_pixels_come_back_stretched_to_black_and_white(shape):
    pixels = np.random.default_rng(0).normal(size=shape)
    found = decoded(png_data_uri(pixels, side=1))
    expected = pixels.reshape(-1, *shape[-2:]).transpose(1, 2, 0)
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    np.testing.assert_allclose(found / 255, expected, atol=1 / 255)
    assert (found.min(), found.max()) == (0, 255)


def test_a_small_picture_is_enlarged_in_whole_pixels():
    found = decoded(png_data_uri([[0.0, 1.0], [1.0, 0.0]], side=7))[:, :, 0]
    np.testing.assert_array_equal(found, np.kron([[0, 255], [255, 0]], np.ones((3, 3))))


def test_a_flat_picture_is_black():
    assert decoded(png_data_uri(np.full((1, 4, 4), 7.0), side=4)).max() == 0


def test_pillow_reads_the_same():
    image = pytest.importorskip("PIL.Image")
    uri = png_data_uri(np.random.default_rng(1).random((3, 6, 9)), side=1)
    with image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as read:
        np.testing.assert_array_equal(np.asarray(read), decoded(uri))


def test_the_same_pixels_give_the_same_text():
    pixels = np.random.default_rng(2).random((3, 8, 8))
    assert png_data_uri(pixels) == png_data_uri(pixels.copy())
