"""The corruptions of each kind of input; importing this registers them."""

from prunus.evaluate.robustness.corruptions import (
    image_corruptions,
    sequence_corruptions,
    table_corruptions,
    token_corruptions,
)
from prunus.evaluate.robustness.corruptions.corruption import CORRUPTIONS, SEVERITIES, Corruption, InputFacts, Kind

__all__ = [
    "CORRUPTIONS",
    "SEVERITIES",
    "Corruption",
    "InputFacts",
    "Kind",
    "image_corruptions",
    "sequence_corruptions",
    "table_corruptions",
    "token_corruptions",
]
