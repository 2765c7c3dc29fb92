"""The commit hooks of `make hooks`, in a copy of the checkout: a commit carries what CI requires of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MADE = ("infra/images/images.lock.yaml", "pipelines/retrain/pipeline.yaml")
PARTS = (
    *("src", "components", "pipelines", "infra", ".gitignore"),
    *("Makefile", "pyproject.toml", "constraints.txt", "setup.py", "README.md"),
)
CODE = "src/embedline/errors.py"
# The copy's package instead of the one that is installed here in editable form.
SITE = """\
import sys
from importlib.util import spec_from_file_location

OUTSIDE = {".components": "components", ".images": "infra/images", ".pipelines": "pipelines"}
PARTS = {"": "src/embedline", **OUTSIDE}


class Copy:
    @staticmethod
    def find_spec(name, path=None, target=None):
        part = name.removeprefix("embedline")
        if name.startswith("embedline") and part in PARTS:
            folder = f"ROOT/{PARTS[part]}"
            return spec_from_file_location(name, folder + "/__init__.py", submodule_search_locations=[folder])


sys.meta_path.insert(0, Copy)
"""


class Checkout:
    """A copy of the files that are committed and locked, in a repository of its own, with the hooks on."""

    def __init__(self, folder: Path) -> None:
        self.root, site = folder / "checkout", folder / "site"
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *PARTS]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.root / name)
        venv = self.root / ".venv"
        venv.mkdir()
        for part in ("bin", "lib", "pyvenv.cfg"):  # without pyvenv.cfg, Python finds no installed packages
            (venv / part).symlink_to(Path(sys.prefix) / part)
        for stamp in (".dev", ".demo"):  # as fresh as `make` wants them: nothing is installed
            (venv / stamp).touch()
        site.mkdir()
        (site / "sitecustomize.py").write_text(SITE.replace("ROOT", str(self.root)), encoding="utf-8")
        own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        author = {
            f"GIT_{role}_{what}": "a@b.c" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        self.environment = {**own, **author, "PYTHONPATH": str(site), "GIT_CONFIG_GLOBAL": os.devnull}
        self.git("init", "--quiet")
        self.git("add", "--all")
        self.git("commit", "--quiet", "-m", "Start")
        self.run("make", "--silent", "hooks")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.root, env=self.environment, capture_output=True, text=True, check=False
        )

    def git(self, *arguments: str) -> str:
        found = self.run("git", *arguments)
        assert found.returncode == 0, found.stderr
        return found.stdout

    def commit(self, subject: str = "Say something else") -> subprocess.CompletedProcess[str]:
        return self.run("git", "commit", "--quiet", "-m", subject)

    def append(self, name: str, text: str) -> None:
        with (self.root / name).open("a", encoding="utf-8") as file:
            file.write(text)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    return Checkout(tmp_path)


def test_commit_hook_formats_code_and_refreshes_a_stale_lock(checkout: Checkout) -> None:
    checkout.append(CODE, "\n\nNEW  =  {'a':1}\n")
    checkout.git("add", CODE)
    done = checkout.commit()
    assert done.returncode == 0, done.stderr
    assert set(checkout.git("show", "--name-only", "--format=").split()) == {CODE, *MADE}
    assert 'NEW = {"a": 1}' in checkout.git("show", f"HEAD:{CODE}")
    assert checkout.git("status", "--porcelain", "--untracked-files=no") == ""
    fresh = checkout.run("make", "--silent", "golden")
    assert fresh.returncode == 0, fresh.stdout + fresh.stderr


def test_commit_without_the_hook_is_what_ci_refuses(checkout: Checkout) -> None:
    checkout.append(CODE, "\n\nNEW = 1\n")
    checkout.git("commit", "--quiet", "--no-verify", "--all", "-m", "Say something else")
    stale = checkout.run("make", "--silent", "golden")
    assert stale.returncode != 0
    assert "older than the code" in stale.stderr


def test_commit_hook_leaves_the_lock_alone_when_no_code_changed(checkout: Checkout) -> None:
    checkout.append(CODE, "\n\nNEW = 1\n")  # not staged
    checkout.append("README.md", "\nMore.\n")
    checkout.git("add", "README.md")
    assert checkout.commit().returncode == 0
    assert checkout.git("show", "--name-only", "--format=").split() == ["README.md"]


@pytest.mark.parametrize("other", ["src/embedline/artifacts/store.py", "src/embedline/new.py"])
def test_commit_hook_refuses_code_that_is_not_staged(checkout: Checkout, other: str) -> None:
    checkout.append(CODE, "\n\nNEW = 1\n")
    checkout.git("add", CODE)
    checkout.append(other, "\n\nNEW = 1\n")
    refused = checkout.commit()
    assert refused.returncode != 0
    assert other in refused.stderr


def test_commit_hook_refuses_code_that_ruff_refuses(checkout: Checkout) -> None:
    checkout.append(CODE, "\n\nprint(unknown)\n")
    checkout.git("add", CODE)
    refused = checkout.commit()
    assert refused.returncode != 0
    assert "F821" in refused.stdout + refused.stderr


@pytest.mark.parametrize(("subject", "taken"), [("x" * 72, True), ("x" * 73, False), ("lock", False)])
def test_commit_hook_checks_the_subject(checkout: Checkout, subject: str, taken: bool) -> None:
    checkout.append("README.md", "\nMore.\n")
    checkout.git("add", "README.md")
    assert (checkout.commit(subject).returncode == 0) == taken
