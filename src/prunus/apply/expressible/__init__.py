"""Which cuts can a class's config say, so that ``from_pretrained`` brings the smaller model back?"""

from prunus.apply.expressible.found_joints import expressible

__all__ = ["expressible"]
