"""Which formulas make a saliency of evidence? One file per kind of evidence; importing this package registers them all."""

from prunus.core.code.registry import import_all

import_all(__name__, __path__)
