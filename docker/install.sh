#!/bin/sh
# Installs the service from this bundle, without a network:
#   ./install.sh [FOLDER]    FOLDER is /opt/pranet by default; PYTHON=python3.12 takes another Python
set -eu
umask 022  # the service runs as another user than the one that installs it
folder=$(realpath -m "${1:-/opt/pranet}")
python=${PYTHON:-python3}
cd "$(dirname "$0")"
sha256sum --check --quiet SHA256SUMS
made_for=$(cat python-version)
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ "$version" != "$made_for" ]; then
    echo "This bundle is for Python $made_for, and $python is $version: PYTHON=python$made_for ./install.sh" >&2
    exit 2
fi
"$python" -m venv "$folder"
install() {
    "$folder/bin/python" -m pip --isolated --quiet --disable-pip-version-check install --no-index --find-links wheels "$@"
}
install -r requirements/torch.txt
install --no-deps --require-hashes -r requirements/image.txt
install --no-deps --force-reinstall pranet-service  # builds of one version differ
echo "Installed. Start it: $folder/bin/pranet serve"
