"""As which version was a bundle signed?

``release.json`` lies beside the manifest, which can't name it: it is written when the bundle is signed, and is among what is
signed. It names the bundle by its hash, so it can't be moved to another one.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from prunus.core.errors import BundleError, RecipeError
from prunus.core.files.json_text import JsonError, parse_json
from prunus.core.text import shown
from prunus.ship.manifest import RELEASE, explain

__all__ = ["LARGEST_RELEASE", "Release", "read_release", "version_parts"]

LARGEST_RELEASE = 4096
_VERSION = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9}){0,3}")


class Release(BaseModel):
    """What ``release.json`` holds; ``bundle`` is the hash of the bundle that it belongs to."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: Literal[1] = 1
    version: str
    bundle: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @field_validator("version")
    @classmethod
    def _is_one(cls, version: str) -> str:
        try:
            version_parts(version)
        except RecipeError as error:
            raise ValueError(str(error)) from error
        return version


def version_parts(version: str) -> tuple[int, int, int, int]:
    """Return a version's numbers, in the order in which versions are compared.

    Raises:
        RecipeError: it isn't one to four whole numbers with dots between.

    >>> version_parts("1.10") > version_parts("1.9.3"), version_parts("2") == version_parts("2.0.0")
    (True, True)
    """
    if not _VERSION.fullmatch(version):
        raise RecipeError(f"a version is one to four whole numbers with dots between, like 1.4.2: got {shown(version)}")
    numbers = [int(part) for part in version.split(".")] + [0, 0, 0]
    return numbers[0], numbers[1], numbers[2], numbers[3]


def read_release(content: bytes, bundle_sha256: str, where: object) -> Release:
    """Return what the bytes of a ``release.json`` say.

    Raises:
        BundleError: it isn't one, or belongs to another bundle.
    """
    try:
        release = Release.model_validate(parse_json(content, max_bytes=LARGEST_RELEASE))
    except JsonError as error:
        raise BundleError(f"{where}: {error}; sign the bundle anew") from error
    except ValidationError as error:
        raise BundleError(f"{where}: {explain(error, RELEASE)}; sign the bundle anew") from error
    if release.bundle != bundle_sha256:
        raise BundleError(
            f"{where} belongs to another bundle: expected {bundle_sha256[:12]}…, got {release.bundle[:12]}…; sign the bundle anew"
        )
    return release
