#!/bin/sh
# trim.sh SITE_PACKAGES: remove files that only builds and tests of the libraries need, then compile the rest.
set -eu
cd "$1"

# torch: headers, CMake files, test programs; the program that shares tensors between processes is kept.
rm -rf torch/include torch/test torch/share
find torch/bin -type f ! -name torch_shm_manager -delete
rm -rf onnx/backend/test/data numpy/_core/include pyarrow/include pyarrow/src
find . -type d -name tests -prune -exec rm -rf {} +
find . -type f \( -name '*.a' -o -name '*.pxd' -o -name '*.pyx' \) -delete

# Imports take three times as long without bytecode. Sources never change in an image: nothing compares them.
# Templates with the ending .py do not compile; slim bases have no bytecode of the standard library.
stdlib=$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash "$stdlib" . >/dev/null 2>&1 || true
