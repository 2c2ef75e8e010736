"""``python -m prunus`` is the command line."""

from prunus.cli import main

main()
