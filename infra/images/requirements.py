"""Requirements of some extras, from pyproject.toml: an image's dependency layer needs them without the code.

`python requirements.py pyproject.toml EXTRA...` prints a requirements file.
"""

import sys
import tomllib
from pathlib import Path


def main(file: str, *extras: str) -> None:
    """Print the package's own requirements and those of `extras`, one a line, sorted."""
    project = tomllib.loads(Path(file).read_text(encoding="utf-8"))["project"]
    requirements = set(project["dependencies"])
    for extra in extras:
        requirements.update(project["optional-dependencies"][extra])
    sys.stdout.write("\n".join(sorted(requirements)) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
