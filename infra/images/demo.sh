#!/usr/bin/env bash
# demo.sh WORK: build the image and run the shortened demo in its containers, with WORK as the steps' volume.
# Called by `make demo-docker`.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p "$1"
work=$(cd "$1" && pwd)
infra/images/build.sh cpu
# Containers run as the folder's owner, and never as root.
if [[ $(stat -c %u "$work") == 0 ]]; then chown -R 10001:10001 "$work"; fi
if [[ ${EMBEDLINE_STAND_IN:-} == 1 ]]; then # also when the lock names a published image, which is not reachable
  EMBEDLINE_STEP_IMAGE=$(.venv/bin/python -m embedline.orchestration.image_lock --show tag)
  export EMBEDLINE_STEP_IMAGE
fi
.venv/bin/embedline run demo-short --runner docker --work "$work"
