#!/bin/sh
# check_wheel.sh PYTHON: build the wheel, install it into a new environment, and run the demo there, away from the repository.
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"$1" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir "$place" "$top"
wheel=$(ls "$place"/prunus-*.whl)
"$1" -m venv "$place/env"
"$place/env/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$top/requirements.lock" \
    "$wheel[sklearn,images,report,onnx]"
cp "$top/examples/digits.yaml" "$place/digits.yaml"
cd "$place"
unset PYTHONPATH
env/bin/prunus --version
env/bin/prunus run digits.yaml -q -o output=made
env/bin/prunus predict --help > /dev/null
env/bin/python -c "import prunus, pathlib; assert \"site-packages\" in prunus.__file__; prunus.load_bundle(pathlib.Path(\"made/bundle\"))"
test -s made/report.html
echo "the wheel installs and runs the demo"
