#!/bin/sh
# Lists what a Python environment holds, as CycloneDX (pranet.cdx.json) and with its licences (licenses.md):
#   docker/sbom.sh TOOLS PYTHON FOLDER    TOOLS is an environment with requirements/audit.txt
set -eu
tools=$1 python=$2 folder=$3
mkdir -p "$folder"
"$tools/bin/cyclonedx-py" environment --output-reproducible -o "$folder/pranet.cdx.json" "$python"
"$tools/bin/pip-licenses" --python="$python" --order=name --with-urls --format=markdown \
    --output-file="$folder/licenses.md"
