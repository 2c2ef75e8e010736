"""Where does a unit lie in one tensor? The smallest part of a group: one dimension of one parameter or buffer.

Groups are made of members, and what tells a group's kind or finds whole modules reads members only.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Member"]


@dataclass(frozen=True)
class Member:
    """One dimension of one parameter or buffer, and where each unit lies along it.

    Shapes:
        ``index`` is ``(units, positions)``, int64.
    """

    tensor: str
    dim: int
    index: Tensor
    is_parameter: bool
