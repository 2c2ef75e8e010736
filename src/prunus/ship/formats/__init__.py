"""Which formats can a bundle be exported to? Each is one file here, ``to_NAME``, and one line in ``FORMATS``."""

from prunus.core.errors import UnknownNameError, near
from prunus.ship.formats.export_source import BATCHES, ExportSource, by_name, n_rows
from prunus.ship.formats.file_format import Format, Written
from prunus.ship.formats.to_coreml import CoreMl
from prunus.ship.formats.to_executorch import ExecuTorch
from prunus.ship.formats.to_hf import Hf
from prunus.ship.formats.to_litert import LiteRt
from prunus.ship.formats.to_mnn import Mnn
from prunus.ship.formats.to_onnx import Onnx
from prunus.ship.formats.to_openvino import OpenVino
from prunus.ship.formats.to_torch import Torch

__all__ = ["BATCHES", "FORMATS", "ExportSource", "Format", "Written", "by_name", "format_of", "n_rows"]

FORMATS: dict[str, Format] = {
    each.name: each for each in (Onnx(), OpenVino(), Torch(), Mnn(), Hf(), ExecuTorch(), LiteRt(), CoreMl())
}
"""By what ``prunus export --to`` calls them."""


def format_of(name: str) -> Format:
    """Return the format of that name.

    Raises:
        UnknownNameError: it names the near ones.
    """
    if name not in FORMATS:
        raise UnknownNameError(f"unknown format {name!r}: {near(name, FORMATS)}")
    return FORMATS[name]
