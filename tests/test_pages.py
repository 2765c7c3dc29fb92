"""The presets, settings and commands that the project's pages show are valid."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from embedline.cli.app import app
from embedline.config.load import load_config
from embedline.orchestration.compile import compile_pipeline

ROOT = Path(__file__).parents[1]
OPERATOR = ROOT / "infra" / "README.md"
PAGES = {
    str(page.relative_to(ROOT)): page.read_text(encoding="utf-8")
    for page in (
        ROOT / "README.md",
        OPERATOR,
        ROOT / "infra" / "images" / "README.md",
        ROOT / ".github" / "workflows" / "README.md",
        *sorted((ROOT / "pipelines" / "retrain").rglob("*.md")),
    )
}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_every_preset_on_a_page_is_valid(page: str, tmp_path: Path) -> None:
    for shown in blocks(PAGES[page], "yaml"):
        (tmp_path / "shown.yaml").write_text(shown, encoding="utf-8")
        load_config(str(tmp_path / "shown.yaml"))


def test_the_operators_first_preset_names_objects_of_the_cluster(tmp_path: Path) -> None:
    """And with the one line more that trains on two nodes, as the page says."""
    (shown,) = blocks(PAGES["infra/README.md"], "yaml")
    (line,) = re.findall(r"one more line, `([^`]+)`", PAGES["infra/README.md"])
    (tmp_path / "demo-dev.yaml").write_text(shown + line + "\n", encoding="utf-8")
    config = load_config(str(tmp_path / "demo-dev.yaml"))
    assert config.train_job.nodes == 2
    _, platform = yaml.safe_load_all(compile_pipeline(str(tmp_path / "demo-dev.yaml")))
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    base = ROOT / "infra" / "kustomize" / "base"
    named = {
        document["metadata"]["name"]
        for file in ("accounts.yaml", "workspace.yaml", "training-runtime.yaml")
        for document in yaml.safe_load_all((base / file).read_text(encoding="utf-8"))
    }
    named |= {made["name"] for made in _yaml(base / "kustomization.yaml")["configMapGenerator"]}
    used = {mount["constant"] for task in executors.values() for mount in task["pvcMount"]}
    used |= {source["configMapName"] for task in executors.values() for source in task["configMapAsEnv"]}
    used |= {config.cluster.service_account, config.train_job.runtime, config.train_job.claim}
    assert used == {
        "embedline-workspace",
        "embedline-tracking",
        "embedline-runner",
        "embedline-torch",
    }
    assert used <= named


def _yaml(path: Path) -> dict[str, list[dict[str, str]]]:
    value: dict[str, list[dict[str, str]]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return value


def lines(text: str) -> list[str]:
    """The lines of a page's shell blocks and indented blocks."""
    shell = [line for block in blocks(text, "sh") for line in block.replace("\\\n", " ").splitlines()]
    return shell + [line for line in text.splitlines() if line.startswith("    ")]


def words(shown: list[str]) -> list[list[str]]:
    """The words after `embedline` in each call."""
    calls = [found[1] for line in shown if (found := re.search(r"(?:^|\s)embedline (.+)", line))]
    return [shlex.split(call, comments=True) for call in calls]


def command(call: list[str]) -> tuple[Any, list[str]]:
    """The command that is called, and its arguments."""
    found, rest = get_command(app), call
    while hasattr(found, "commands"):
        assert rest[0] in found.commands, call
        found, rest = found.commands[rest[0]], rest[1:]
    return found, rest


def test_every_command_line_on_a_page_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its options, its arguments, their number and their types."""
    monkeypatch.setenv("KFP_HOST", "https://kfp.example.org")
    shown = [call for text in PAGES.values() for call in words(lines(text))]
    assert len(shown) > 5
    for call in shown:
        found, rest = command([{"PRESET": "demo", "FOLDER": "runs"}.get(word, word) for word in call])
        found.make_context("embedline", rest)


def test_every_option_that_a_page_names_exists() -> None:
    shown = [call for text in PAGES.values() for call in words(re.findall(r"`(embedline [^`\n]+)`", text))]
    assert len(shown) > 10
    for call in shown:
        found, rest = command(call)
        options = {
            option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)
        }
        assert {word.partition("=")[0] for word in rest if word.startswith("-")} <= options, call
