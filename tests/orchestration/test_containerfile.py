"""Rules for the Containerfile. Its gpu target is only linted: its base is not available to the tests."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from embedline.orchestration.image_lock import TARGETS

ROOT = Path(__file__).parents[2]
FILE = ROOT / "infra" / "images" / "Containerfile"
PINNED = re.compile(r"^docker\.io/[a-z/]+:[\w.\-]+@sha256:[0-9a-f]{64}$")
COMPILERS = re.compile(r"\b(gcc|g\+\+|clang|build-essential|python3-dev|nvcc|-devel)\b")


@dataclass
class Stage:
    """One stage: its base, and its instructions with continuation lines joined."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, word: str) -> list[str]:
        return [rest for instruction, rest in self.steps if instruction == word]


def parse(text: str) -> tuple[dict[str, str], dict[str, Stage]]:
    """Return the arguments before the first stage, and the stages by name."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, name = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()  # type: ignore[union-attr]
            stage = stages[name] = Stage(name, base)
        elif stage is None:
            assert word == "ARG", line
            name, _, value = rest.partition("=")
            arguments[name] = value
        else:
            stage.steps.append((word, " ".join(rest.split())))
    return arguments, stages


ARGUMENTS, STAGES = parse(FILE.read_text(encoding="utf-8"))


def _root(stage: Stage) -> str:
    """Return the external image at the root of a stage."""
    while stage.base in STAGES:
        stage = STAGES[stage.base]
    value = stage.base
    while found := re.fullmatch(r"\$\{(\w+)\}", value):
        value = ARGUMENTS[found.group(1)]
    return value


def _layers(target: str) -> list[Stage]:
    """Return the stages whose layers are in a target."""
    found = [STAGES[target]]
    while found[-1].base in STAGES:
        found.append(STAGES[found[-1].base])
    return found


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_every_stage_has_a_base_pinned_by_digest(stage: Stage) -> None:
    assert PINNED.match(_root(stage)), _root(stage)
    assert ":latest" not in _root(stage)


@pytest.mark.parametrize("target", TARGETS)
def test_targets_run_as_a_numeric_user_other_than_root(target: str) -> None:
    last = STAGES[target].all("USER")[-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last)
    after = [word for word, _ in STAGES[target].steps]
    assert "RUN" not in after, "the last stage copies, and runs nothing"


@pytest.mark.parametrize("target", TARGETS)
def test_no_compiler_and_no_tool_reaches_a_targets_layers(target: str) -> None:
    assert "-devel" not in _root(STAGES[target])
    for stage in _layers(target):
        for run in stage.all("RUN"):
            commands = re.sub(r"--mount=\S+", "", run)
            assert not COMPILERS.search(commands), commands
        copied = " ".join(stage.all("COPY"))
        assert "/opt/tools" not in copied
        assert "/wheels" not in copied


@pytest.mark.parametrize("target", TARGETS)
def test_code_is_copied_last_and_dependencies_do_not_use_it(target: str) -> None:
    *_, last = STAGES[target].all("COPY")
    assert last == f"--from={target}-code /code/ /"
    for stage in _layers(target)[1:]:
        text = " ".join(rest for _, rest in stage.steps)
        assert not re.search(
            r"source=(src|components|pipelines)|COPY (src|components|pipelines)|\bCODE\b", text
        )
    # the requirements alone decide: pyproject.toml as a whole goes no further than a stage of its own
    dependencies = STAGES[f"{target}-dependencies"]
    assert not any("pyproject.toml" in rest for _, rest in dependencies.steps)


@pytest.mark.parametrize("target", TARGETS)
def test_image_installs_the_extras_of_the_lock_with_constraints(target: str) -> None:
    (run,) = STAGES[f"{target}-requirements"].all("RUN")
    assert f"pyproject.toml {' '.join(TARGETS[target])} >" in run
    (installs,) = STAGES[f"{target}-dependencies"].all("RUN")
    assert "--constraint /build/constraints.txt" in installs
    assert "pip --python /opt/embedline/bin/python check" in installs
    assert "trim.sh" in installs


@pytest.mark.parametrize("target", TARGETS)
def test_image_has_labels(target: str) -> None:
    labels = " ".join(STAGES[target].all("LABEL"))
    for name in ("title", "description", "version", "revision", "licenses", "base.name"):
        assert f"org.opencontainers.image.{name}=" in labels
    assert "io.embedline.code=" in labels
    environment = " ".join(STAGES[target].all("ENV"))
    assert "EMBEDLINE_IMAGE=${IMAGE}" in environment
    assert any("/usr/share/embedline/sbom.cdx.json" in copied for copied in STAGES[target].all("COPY"))


def test_only_package_managers_download_and_no_secret_is_used() -> None:
    for stage in STAGES.values():
        words = {word for word, _ in stage.steps}
        assert words <= {"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "LABEL", "RUN", "USER", "WORKDIR"}
        for word, rest in stage.steps:
            assert not re.search(r"\b(curl|wget|git clone)\b", rest)
            assert not re.search(r"(?i)(password|secret|token|api_?key)\s*=", rest.replace("TOKENIZERS_", ""))
            if word == "COPY":
                assert "://" not in rest
            if "apt-get install" in rest:
                assert "--no-install-recommends" in rest
                assert "rm -rf /var/lib/apt/lists/*" in rest
            if "pip install" in rest:
                assert "-r /build/" in rest or "--constraint" in rest or "--requirement" in rest
    assert "gpu" not in {stage.base.split("-")[0] for stage in _layers("cpu")}, "cpu needs no CUDA"


def test_image_has_no_entry_point() -> None:
    assert STAGES["gpu"].all("ENTRYPOINT") == ["[]"], "the CUDA base has one"
    assert not STAGES["cpu"].all("ENTRYPOINT")


def test_tools_and_gpu_packages_are_pinned() -> None:
    for name in ("tools.txt", "gpu.txt"):
        lines = (FILE.parent / name).read_text(encoding="utf-8").splitlines()
        pins = [line for line in lines if line and not line.startswith("#")]
        assert pins
        assert all(re.fullmatch(r"[\w.\-]+==[\w.]+", pin) for pin in pins), pins


@pytest.mark.parametrize("script", sorted(FILE.parent.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_parse_and_stop_at_the_first_error(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    shell = "bash" if "bash" in text.splitlines()[0] else "sh"
    subprocess.run([shell, "-n", str(script)], check=True)
    assert re.search(r"^set -eu", text, re.MULTILINE)
    assert script.stat().st_mode & 0o111
