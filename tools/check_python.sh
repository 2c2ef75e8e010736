#!/bin/sh
# check_python.sh PYTHON: says in one line what to do where there is no Python from 3.11 on.
if [ -z "$1" ]; then
    echo "error: no Python from 3.11 on was found on the PATH: install one, or name it: make demo PYTHON=/path/to/python3.12" >&2
    exit 1
fi
"$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && exit 0
echo "error: $1 is no Python from 3.11 on: name one: make demo PYTHON=/path/to/python3.12" >&2
exit 1
