"""What does each kind of operation say about its axes? Importing this package registers the rules of every file in it."""

from prunus.core.code.registry import import_all

import_all(__name__, __path__)
