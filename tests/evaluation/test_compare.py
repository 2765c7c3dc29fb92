from embedline.evaluation.compare import dims_table, main_table, markdown, stage_comparison


def row(model, value, name="A", **more):
    usual = {"kind": "retrieval", "metric": "ndcg@10", "main": True, "dim": 64, "runtime": "torch"}
    return {"model": model, "set": name, "value": value, **usual, **more}


ROWS = [
    row("candidate", 0.7),
    row("candidate", 0.6, dim=16),
    row("candidate", 0.69, runtime="onnx-int8"),
    row("candidate", 0.9, metric="recall@10", main=False),
    row("bm25", 0.3, dim=0),
    row("pretrain", 0.1),
    row("candidate", 0.5, "B"),
    row("bm25", 0.4, "B", dim=0),
    row("pretrain", 0.2, "B"),
    row("candidate", 0.8, "C"),
    row("candidate", 0.75, "S", kind="sts", metric="spearman"),
]


def test_only_sets_that_every_stage_was_scored_on_are_compared():
    compared = stage_comparison(ROWS)
    assert compared["A"] == {"bm25": 0.3, "pretrain": 0.1, "candidate": 0.7}
    assert compared["mean"] == {"bm25": 0.35, "pretrain": (0.1 + 0.2) / 2, "candidate": 0.6}
    assert set(compared) == {"A", "B", "mean"}


def test_the_table_shows_full_width_and_keeps_onnx_apart():
    cells = main_table(ROWS)["A", "ndcg@10"]
    assert {name: cell["value"] for name, cell in cells.items()} == {
        "candidate": 0.7,
        "onnx-int8": 0.69,
        "bm25": 0.3,
        "pretrain": 0.1,
    }
    assert "| S | spearman |  |  | 0.750 |  |" in markdown(ROWS)


def test_dims_are_listed_from_the_widest():
    assert list(dims_table(ROWS)) == ["A"]
    assert list(dims_table(ROWS)["A"]) == [64, 16]


def test_nothing_to_compare_is_no_error():
    assert [stage_comparison([]), main_table([]), dims_table([])] == [{}, {}, {}]
