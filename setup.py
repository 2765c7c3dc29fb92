"""Find the packages: those below src/, and what stands at the top of a checkout and travels in the wheel."""

from setuptools import find_packages, setup

OUTSIDE = {"components": "components", "images": "infra/images", "pipelines": "pipelines"}

packages = find_packages("src")
package_dir = {"embedline": "src/embedline"}
for name, folder in OUTSIDE.items():
    packages += [f"embedline.{name}", *(f"embedline.{name}.{inner}" for inner in find_packages(folder))]
    package_dir[f"embedline.{name}"] = folder

setup(packages=packages, package_dir=package_dir)
