"""What preflight refuses although each setting alone is fine: unknown names, and batches nothing can fill."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedline.config.load import load_config, preset_names, validate_config
from embedline.config.schema import RunConfig
from embedline.errors import InputError
from embedline.planning.checks.batch_sizes import require_enough
from embedline.planning.checks.references import require_known_names

DATA: dict[str, Any] = {
    "sources": [{"path": "pairs.jsonl"}, {"path": "more.csv", "name": "faq"}],
    "evaluation": [{"path": "eval/SupportQA"}, {"path": "eval/x", "name": "SupportSTS", "kind": "sts"}],
}


def config(**sections: Any) -> RunConfig:
    data = {**DATA, **sections.pop("data", {})}
    return validate_config({"name": "tiny", "data": data, **sections}, where="test")


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"evaluate": {"stage_sets": ["SuportQA"]}}, r"evaluate\.stage_sets\.0: .*mean 'SupportQA'"),
        ({"evaluate": {"onnx_sets": ["other"]}}, r"evaluate\.onnx_sets\.0: .*Known: SupportQA, SupportSTS"),
        ({"gate": {"rules": [{"set": "SupportST", "min": 0.5}]}}, r"gate\.rules\.0\.set: .*'SupportSTS'"),
        ({"data": {"hold_out": {"sources": ["faqs"]}}}, r"data\.hold_out\.sources\.0: .*mean 'faq'"),
        ({"data": {"hold_out": {"sources": ["faq"], "name": "SupportQA"}}}, r"data\.hold_out\.name"),
        (
            {"data": {"sources": [{"path": "a/pairs.jsonl"}, {"path": "b/pairs.jsonl.gz"}]}},
            r"sources\.1\.name: a/pairs.jsonl and b/pairs.jsonl.gz are both called 'pairs'",
        ),
        (
            {"data": {"corpus": [{"path": "a/x.csv"}, {"path": "b", "name": "x"}]}},
            r"corpus\.1\.name: .* both called 'x'",
        ),
        (
            {"data": {"evaluation": [{"path": "a", "name": "a/b"}]}},
            r"evaluation\.0\.name: 'a/b' is not a name",
        ),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(sections: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        require_known_names(config(**sections))


def test_known_names_are_accepted() -> None:
    rules = [{"set": name, "min": 0.1} for name in ("*", "SupportQA", "SupportSTS", "held_out", "Needle@64")]
    require_known_names(
        config(
            data={"hold_out": {"sources": ["pairs", "faq"]}},
            evaluate={"stage_sets": ["held_out"], "onnx_sets": ["SupportSTS"], "needle_depths": [64]},
            gate={"rules": rules},
        )
    )


def test_an_unknown_mteb_task_is_refused() -> None:
    with pytest.raises(InputError, match=r"evaluate\.mteb_tasks: mteb .* has no task 'RuSTSBenchmark'"):
        require_known_names(config(evaluate={"mteb_tasks": ["RUParaPhraserSTS", "RuSTSBenchmark"]}))


@pytest.mark.parametrize("name", preset_names())
def test_shipped_presets_refer_to_known_names(name: str) -> None:
    require_known_names(load_config(name))


def _rows(count: int) -> list[dict[str, Any]]:
    return [{"query": f"q {i}", "pos": [f"p {i}"]} for i in range(count)]


def _write(path: Path, count: int) -> None:
    rows = _rows(count)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(lines.encode()))
    elif path.suffix == ".csv":
        path.write_text("query,pos\n" + "".join(f"{row['query']},{row['pos'][0]}\n" for row in rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text(lines)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "a.parquet"])
def test_a_batch_larger_than_every_source_is_refused(tmp_path: Path, name: str) -> None:
    _write(tmp_path / name, 8)
    stages: dict[str, Any] = {"unsupervised": {"batch": 8}, "supervised": {"batch": 8}}
    data = {"sources": [{"path": name}], "evaluation": []}
    require_enough(config(data=data, **stages), tmp_path)
    with pytest.raises(InputError, match=r"unsupervised\.batch: the largest source has 8 rows, .* needs 9"):
        require_enough(config(data=data, **{**stages, "unsupervised": {"batch": 9}}), tmp_path)
    with pytest.raises(InputError, match=r"supervised\.batch: the largest source has 5 rows"):
        require_enough(config(data={**data, "sources": [{"path": name, "limit": 5}]}, **stages), tmp_path)


def test_only_the_sources_and_stages_that_take_part_count(tmp_path: Path) -> None:
    _write(tmp_path / "small.jsonl", 4)
    _write(tmp_path / "large.jsonl", 40)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("text")
    sources = [
        {"path": "small.jsonl", "stages": ["supervised"]},
        {"path": "large.jsonl", "stages": ["unsupervised"]},
    ]
    data: dict[str, Any] = {"sources": sources, "evaluation": [], "corpus": [{"path": "texts"}]}
    require_enough(config(data=data, unsupervised={"batch": 40}, supervised={"batch": 4}), tmp_path)
    require_enough(config(data=data, unsupervised={"batch": 40}, supervised={"enabled": False}), tmp_path)
    with pytest.raises(InputError, match=r"supervised\.batch: the largest source has 4 rows"):
        require_enough(config(data=data, unsupervised={"batch": 40}, supervised={"batch": 5}), tmp_path)
    data["corpus"] = [{"path": "small.jsonl", "text": "query"}]
    with pytest.raises(
        InputError, match=r"pretrain\.batch: the largest source has 4 rows, one batch needs 64"
    ):
        require_enough(config(data=data, unsupervised={"batch": 4}, supervised={"batch": 4}), tmp_path)
