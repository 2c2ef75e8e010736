"""What lies in a protobuf message, read without building it?

Fields are read one after the other from a view of the bytes; nothing is copied, and no length that a file claims is believed before
it was compared with the bytes that there are. How many fields are read in all is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator

from prunus.core.errors import WeightsError

__all__ = ["BYTES", "VARINT", "Fields", "signed", "varints"]

VARINT, BYTES = 0, 2
_FIXED = {1: 8, 5: 4}


class Fields:
    """Reads the fields of messages, at most ``most`` of them in all.

    Raises:
        WeightsError: the bytes are no such message.
    """

    def __init__(self, most: int) -> None:
        self.left = self.most = most

    def of(self, message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
        """Yield the number, the kind and the value of each field: a whole number, or the bytes of it."""
        place, end = 0, len(message)
        while place < end:
            self.left -= 1
            if self.left < 0:
                raise WeightsError(f"it has more than {self.most} fields")
            key, place = _varint(message, place)
            number, kind = key >> 3, key & 7
            if kind == VARINT:
                value, place = _varint(message, place)
                yield number, kind, value
                continue
            if kind == BYTES:
                size, place = _varint(message, place)
            elif kind in _FIXED:
                size = _FIXED[kind]
            else:
                raise WeightsError(f"it is no protobuf: a field of kind {kind}")
            if size > end - place:
                raise WeightsError(f"it is cut off, or no protobuf: a field claims {size} bytes of {end - place}")
            yield number, kind, message[place : place + size]
            place += size


def varints(packed: memoryview, most: int) -> list[int]:
    """Return the whole numbers of a packed field, as signed ones of 64 bits; at most ``most``.

    >>> varints(memoryview(bytes([1, 172, 2])), 9)
    [1, 300]
    """
    found: list[int] = []
    place = 0
    while place < len(packed):
        if len(found) == most:
            raise WeightsError(f"a list holds more than {most} numbers")
        value, place = _varint(packed, place)
        found.append(signed(value))
    return found


def signed(value: int) -> int:
    """Return a number of 64 bits as the signed one that it stands for."""
    return value - 2**64 if value >= 2**63 else value


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    for place in range(place, min(place + 10, len(message))):  # noqa: B020 - it goes on where it was
        byte = message[place]
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (2**64 - 1), place + 1
        shift += 7
    raise WeightsError("it is cut off, or no protobuf: a number has no end")
