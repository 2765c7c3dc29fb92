#!/usr/bin/env bash
# get-kubectl.sh FILE: write a kubectl to FILE whose `kustomize` supports the features of infra/kustomize.
# Debian 12's kubectl is from 2020; Debian 13's needs only libc and runs on Debian 12 too. Nothing is installed.
set -euo pipefail
into=$(realpath -m "${1:?usage: get-kubectl.sh FILE}")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | sort -u | sed -n 1p)
[[ -n "$mirror" ]] || { echo "error: apt has no package lists; run apt-get update first" >&2; exit 2; }
keys=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keys] $mirror trixie main" > "$folder/sources.list"
mkdir -p "$folder/lists/partial"
options=(
  -qq -o "Dir::Etc::sourcelist=$folder/sources.list" -o Dir::Etc::sourceparts=-
  -o "Dir::State::lists=$folder/lists" -o Dir::State::status=/dev/null
  -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root
)
apt-get "${options[@]}" update
cd "$folder"
apt-get "${options[@]}" download kubectl
dpkg-deb -x kubectl_*.deb .
install -D -m 755 usr/bin/kubectl "$into"
