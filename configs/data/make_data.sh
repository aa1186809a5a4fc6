#!/usr/bin/env bash
# Makes digits.h5 and climate.h5 again from their sources (see README.md beside it):
#   make_data.sh DIGITS.csv.gz COADS_CLIMATOLOGY.cdf
# LOCKSTEP names the program; by default the one that jobs/quickstart built.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
lockstep=${LOCKSTEP:-$here/../../build/release/bin/lockstep}
if [ $# -ne 2 ]; then
  echo "usage: make_data.sh DIGITS.csv.gz COADS_CLIMATOLOGY.cdf" >&2
  exit 2
fi
columns=$(mktemp -d)
trap 'rm -rf "$columns"' EXIT

# Column 65 is the digit; the others are the 64 pixels.
"$lockstep" convert --overwrite --compress 9 --header no --targets 65 "$1" "$here/digits.h5"

python3 "$here/make_climate.py" "$2" "$columns"
"$lockstep" convert --overwrite --compress 9 "$columns"/*.npy "$here/climate.h5"
