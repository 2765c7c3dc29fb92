#!/usr/bin/env bash
# build.sh [TARGET]: build the image that images.lock.yaml names, and write its SBOM to build/images/.
# EMBEDLINE_STAND_IN=1 uses a stand-in base where no image registry is reachable. Called by `make images`.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${1:-cpu}
python=${EMBEDLINE_PYTHON:-.venv/bin/python}
largest=2800000000 # bytes, of the cpu image

lock() { "$python" -m embedline.orchestration.image_lock "$@"; }
lock --check
image=$(lock --show "$target")
if [[ $image == *@* && ${EMBEDLINE_STAND_IN:-} != 1 ]]; then
  docker pull "$image" # published: components refer to this image
  exit
fi
[[ $image != *@* ]] || image=$(lock --show tag)
arguments=(
  --build-arg "IMAGE=$image" --build-arg "CODE=$(lock --show code)"
  --build-arg "VERSION=$("$python" -c 'import embedline; print(embedline.__version__)')"
  --build-arg "REVISION=$(git describe --always --dirty --abbrev=40 --exclude '*' 2>/dev/null || true)"
)
if [[ ${EMBEDLINE_STAND_IN:-} == 1 ]]; then
  infra/images/engine.sh stand-in
  arguments+=(
    --build-arg CPU_BASE=embedline-stand-in:runtime --build-arg CPU_BUILD_BASE=embedline-stand-in:build
    --build-arg TORCH_INDEX= --network host
  )
fi
# The Containerfile uses mounts and needs BuildKit: from the buildx plugin, or from an older client.
client=docker
if ! docker buildx version >/dev/null 2>&1; then
  export DOCKER_BUILDKIT=1
  client=/usr/bin/docker # Debian's docker.io 20.10; another client may come first in PATH
  [[ $("$client" --version 2>/dev/null) == *" 20.10."* ]] || {
    echo "building needs BuildKit: install Docker's buildx plugin, or Debian's docker.io" >&2
    exit 1
  }
fi
started=$SECONDS
"$client" build --progress plain "${arguments[@]}" --file infra/images/Containerfile --target "$target" --tag "$image" .
size=$(docker image inspect --format '{{.Size}}' "$image")
echo "$image: $((size / 1000000)) MB, built in $((SECONDS - started)) s"
if [[ $target == cpu ]] && ((size > largest)); then
  echo "the image is larger than $((largest / 1000000)) MB: see what it gained (docker history $image)" >&2
  exit 1
fi
mkdir -p build/images
docker run --rm --network none "$image" cat /usr/share/embedline/sbom.cdx.json >"build/images/$target.cdx.json"
echo "SBOM: build/images/$target.cdx.json"
