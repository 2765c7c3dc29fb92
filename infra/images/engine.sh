#!/usr/bin/env bash
# Provide a Docker engine for the commands that need one.
#
#   engine.sh with COMMAND...   run COMMAND with the running engine; without one, with a private engine,
#                               started here (as root, from Debian's docker.io) and stopped afterwards
#   engine.sh stand-in          make the stand-in base images (Debian and Python from packages) for machines that
#                               reach no image registry (needs root, debootstrap and a Debian mirror)
#   engine.sh clean             remove what private engines kept: images, containers, layers
#
# Without any engine, `with` prints the reason and exits with 0; with EMBEDLINE_REQUIRE_DOCKER=1 with 1.
set -euo pipefail

state=${EMBEDLINE_ENGINE:-/var/tmp/embedline-engine}
runtime=embedline-stand-in:runtime
build=embedline-stand-in:build

answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

give_up() {
  echo "no Docker engine: $1" >&2
  if [[ ${EMBEDLINE_REQUIRE_DOCKER:-} == 1 ]]; then exit 1; fi
  echo "skipped: start Docker, name it in DOCKER_HOST, or install docker.io and run this as root." >&2
  exit 0
}

# The engine's data are kept for the next command, so that it finds the images; its process is stopped.
start() {
  [[ $(id -u) == 0 ]] || give_up "none answers, and only root can start one"
  command -v dockerd >/dev/null || give_up "none answers, and dockerd is not installed (Debian: docker.io)"
  mkdir -p "$state"
  exec 9>"$state/lock"
  flock 9 # else this command could use an engine that another command stops
  export DOCKER_HOST=unix://$state/docker.sock
  # No bridge: builds use the host's network, containers of the line have none.
  dockerd --host "$DOCKER_HOST" --data-root "$state/data" --exec-root "$state/exec" \
    --pidfile "$state/docker.pid" --group "$(id -gn)" --bridge none --iptables=false \
    >"$state/dockerd.log" 2>&1 9>&- &
  engine=$!
  trap stop EXIT
  for _ in $(seq 120); do
    if answers; then return; fi
    kill -0 "$engine" 2>/dev/null || break
    sleep 0.5
  done
  tail -n 5 "$state/dockerd.log" >&2
  give_up "dockerd did not come up; its log is $state/dockerd.log"
}

stop() {
  kill "$engine" 2>/dev/null || true
  wait "$engine" 2>/dev/null || true
  unmount
  rm -rf "$state/exec" "$state/docker.sock" "$state/docker.pid"
}

unmount() {
  local point
  { grep -o " $state/[^ ]*" /proc/mounts || true; } | sort -r | while read -r point; do
    umount "$point" 2>/dev/null || true
  done
}

stand_in() {
  if docker image inspect "$runtime" "$build" >/dev/null 2>&1; then return; fi
  command -v debootstrap >/dev/null || { echo "the stand-in base needs debootstrap" >&2; exit 1; }
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  echo "making the stand-in base (Debian bookworm with its Python 3.11)"
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$folder/root" \
    http://deb.debian.org/debian >"$folder/log" 2>&1 || { tail -n 20 "$folder/log" >&2; exit 1; }
  rm -rf "$folder"/root/var/cache/apt/* "$folder"/root/var/lib/apt/lists/* "$folder"/root/usr/share/{doc,man,locale}/*
  tar -C "$folder/root" -c . | docker import --change 'LABEL io.embedline.stand-in=true' \
    --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - "$runtime" >/dev/null

  # Builds use this machine's certificates, and its pip's local folders of wheels.
  mkdir -p "$folder/context/wheels"
  cp "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$folder/context/ca.crt"
  local place
  for place in $("${PYTHON:-python3}" -m pip config list 2>/dev/null | sed -n "s/.*find-links='\(.*\)'/\1/p"); do
    if [[ -d $place ]]; then cp -n "$place"/*.whl "$folder/context/wheels/" 2>/dev/null || true; fi
  done
  cat >"$folder/context/Dockerfile" <<DOCKERFILE
FROM $runtime
COPY ca.crt /etc/ssl/certs/ca-certificates.crt
COPY wheels /wheels
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt PIP_FIND_LINKS=/wheels
DOCKERFILE
  DOCKER_BUILDKIT=0 docker build --quiet --tag "$build" "$folder/context" >/dev/null
}

case ${1:-} in
  with)
    shift
    command -v docker >/dev/null || give_up "there is no docker command"
    answers || start
    "$@" 9>&- # processes that outlive the command must not hold the lock
    ;;
  stand-in) stand_in ;;
  clean)
    mkdir -p "$state"
    exec 9>"$state/lock"
    flock 9
    unmount
    rm -rf "$state"
    ;;
  *)
    sed -n '2,/^set/p' "$0" | sed '/^set/d; s/^# \{0,1\}//' >&2
    exit 2
    ;;
esac
