"""Which files can be read? One file each, called after the ending: ``read_csv.py`` reads ``.csv``."""

from prunus.core.code.registry import import_all

import_all(__name__, __path__)
