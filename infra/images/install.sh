#!/bin/sh
# install.sh SITE_PACKAGES CODE: install the package's wheel below /code, compiled, if its code is the lock's.
set -eu
/opt/tools/bin/pip --python /opt/embedline/bin/python install --quiet --no-deps --no-index --no-compile \
  --no-cache-dir --no-warn-script-location --root /code /wheel/*.whl
cd "/code$1"
python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash .
found=$(PYTHONPATH=. /opt/embedline/bin/python -c \
  'from embedline.artifacts.code_version import package_digest; print(package_digest())')
if [ "$found" != "$2" ]; then
  echo "the wheel holds code $found, images.lock.yaml names $2: run make lock" >&2
  exit 1
fi
