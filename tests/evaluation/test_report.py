import re
from html.parser import HTMLParser

import pytest

from embedline.artifacts.scores import ScoreRow
from embedline.config.gate import GateConfig
from embedline.dag import STEPS
from embedline.evaluation.charts import bar_chart, line_chart, nice_ticks
from embedline.evaluation.compare import HEADS, all_columns
from embedline.evaluation.labels import LABELS, label
from embedline.evaluation.reasons import verdict_json
from embedline.evaluation.report import ReportData, render_report
from embedline.gate.decision import decide

EVIL = "<script>alert('ё')</script>\"'><img src=x onerror=alert(1)>{{ 7 * 7 }}"


def score(model, value, **more):
    usual = {
        "set": EVIL,
        "kind": "retrieval",
        "metric": "ndcg@10",
        "main": True,
        "dim": 64,
        "runtime": "torch",
    }
    interval = {"low": value - 0.1, "high": value + 0.1, "count": 1200}
    return ScoreRow(model=model, value=value, **(usual | interval | more))


FULL = ReportData(
    EVIL,
    EVIL,
    EVIL,
    EVIL,
    verdict={"passed": True, "reasons": [{"rule": EVIL, "passed": True, "text": EVIL, "ru": EVIL + "?"}]},
    promotion={"name": EVIL, "version": 3, "aliases": {EVIL: 3}, "moved": True},
    scores=[
        score("candidate", 0.71),
        score("candidate", 0.6, dim=16),
        score("bm25", 0.4, dim=0, low=None, high=None),
    ],
    funnel={EVIL: {EVIL: {"rows_in": 10, "rows_out": 7, "rejected": {EVIL: 3}}}},
    mining={"all": {"mined": 70, "mined_rank": 4, "mined_score": 0.25}, EVIL: {"mined": 7}},
    curves={EVIL: {"loss": [(1, 2.0), (2, 1.5), (3, 1.4)], EVIL: [(1, 2.0), (2, 1.5)]}},
    parity={"passed": False, "texts": 9, "variants": {EVIL: {"worst_cosine": 0.9, "passed": False}}},
    steps=[{"step": EVIL, "status": "done", "seconds": 1.5, "peak_memory_mb": 200.0, "cache_hit": True}],
)


class Page(HTMLParser):
    """Collects tags and checks that they are closed in order."""

    VOID = frozenset({"meta", "input", "img", "link", "br"})

    def __init__(self, page):
        super().__init__()
        self.open, self.seen, self.words = [], [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data.strip())


@pytest.mark.parametrize("data", [FULL, ReportData("n", "r", "t")])
def test_the_page_is_well_formed_and_needs_nothing_from_outside(data):
    page = render_report(data)
    seen = Page(page).seen
    assert not {tag for tag, _ in seen} & {"script", "link", "img", "iframe", "object"}
    for tag, attributes in seen:
        assert not {name for name in attributes if name.startswith("on") or name in ("src", "href")}, tag
    assert not re.search(r"url\(|@import|https?:", page)


def test_text_from_data_is_shown_as_text():
    page = render_report(FULL)
    assert not re.search("<script|<img", page)
    assert page.count("&lt;script&gt;") >= 12
    assert "{{ 7 * 7 }}" in page
    assert EVIL in Page(page).words


def test_numbers_of_every_part_are_there():
    words = " ".join(Page(render_report(FULL)).words)
    for expected in (
        "0.710",
        "0.610 – 0.810".replace(" ", ""),
        "0.600",
        "0.400",
        "1\u202f200",
        "0.9000",
        "70 %",
    ):
        assert expected in words, expected


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        ({"passed": True, "would_pass": True}, "passed"),
        ({"passed": False, "would_pass": False}, "refused"),
        ({"passed": True, "would_pass": False, "mode": "dry_run"}, "would_refuse"),
        ({}, "no_verdict"),
    ],
)
def test_the_verdict_stands_at_the_top(verdict, expected):
    page = render_report(ReportData("n", "r", "t", verdict=verdict))
    assert f'class="verdict {expected}"' in page
    for words in LABELS[expected]:
        assert words in page


def test_every_step_column_and_head_has_a_label():
    names = {*STEPS, *all_columns(), *(f"head_{head}" for head in HEADS), "preflight", "finish"}
    assert names <= set(LABELS)


def test_every_label_has_both_languages():
    for key, (english, russian) in LABELS.items():
        assert english
        if english != russian:
            assert re.search("[а-яё]", russian, re.IGNORECASE), key
    assert label("mean") == (
        '<span class="en" lang="en">mean</span><span class="ru" lang="ru">среднее</span>'
    )
    assert label("<b>") == "&lt;b&gt;"


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.31, 0.32), (3, 3), (0, 0), (-2, 9000), (1e-7, 2e-7)])
def test_ticks_are_round_and_cover_the_range(low, high):
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low <= high <= ticks[-1]
    assert 2 <= len(ticks) == len(set(ticks)) <= 7


def test_charts_of_odd_data():
    assert "<polyline" in line_chart([(5, 1.0)])
    assert line_chart([]) == ""
    long = line_chart([(i, i % 7) for i in range(10_000)])
    assert len(long) < 10_000
    assert 'width="0.0"' in bar_chart([(label("bm25"), -0.1, False), (label("mean"), 0.5, True)])


def test_report_shows_heads_only_when_there_are_several():
    rows = [score("candidate", 0.5, set="Faq")]
    dense = {"measure": "worst_cosine", "value": 0.99, "threshold": 0.95, "passed": True}
    variant = {"worst_cosine": 0.99, "threshold": 0.95, "passed": True, "heads": {"dense": dense}}

    def page():
        return render_report(
            ReportData("n", "r", "c", scores=rows, parity={"passed": True, "variants": {"int8": variant}})
        )

    assert label("heads") not in page()
    assert label("measured") not in page()
    rows += [score("candidate", 0.625, set="Faq", head="hybrid", dim=0)]
    variant["heads"]["lexical"] = {
        "measure": "worst_difference",
        "value": 0.125,
        "threshold": 0.1,
        "passed": False,
    }
    shown = page()
    Page(shown)
    assert label("heads") in shown
    assert label("head_hybrid") in shown
    assert "0.625" in shown
    assert shown.index("0.1250") < shown.index("≤ 0.1000")
    assert shown.count(label("broken")) == 1


def test_report_shows_curves_and_time_shares_of_a_training():
    curves = {
        "loss": [(1, 3.0), (2, 2.0)],
        "in_batch_accuracy": [(1, 0.25), (2, 0.5)],
        "lexical_loss": [(1, 3.0), (2, 2.0)],
        "tokens_per_second": [(1, 1000.0), (2, 3000.0)],
        "share_of_peak": [(1, 0.2), (2, 0.25)],
        "step_seconds": [(1, 2.0), (2, 4.0)],
        "forward_seconds": [(1, 0.5), (2, 1.0)],
        "logging_seconds": [(1, 0.0), (2, 0.03)],
    }
    page = render_report(ReportData("r", "r", "now", curves={"train_supervised": curves}))
    assert page.count("<polyline") == 3  # loss, accuracy, speed
    for expected in (
        "in-batch accuracy",
        "точность внутри батча",
        "2\u202f000",
        "22.5%",
        "25.0%",
        "0.5%",
    ):
        assert expected in page, expected
    assert "lexical_loss" not in page


def test_a_candidate_that_was_not_judged_is_called_so_in_both_languages():
    for config in (GateConfig(), GateConfig(mode="off")):
        verdict = decide([], True, config, champion_present=True, base_present=False)
        page = render_report(ReportData("n", "r", "t", verdict=verdict_json(verdict)))
        assert '<section class="verdict not_judged">' in page
        assert "Not judged: the candidate is registered, and no alias moves by itself" in page
        assert "Вердикт не вынесен: кандидат зарегистрирован, алиасы сами не переносятся" in page
        assert "The gate passed" not in page
        assert "Кандидат прошёл" not in page
    assert "The gate is off." in page
    assert "Проверка отключена." in page


def test_warnings_and_the_spread_of_the_vectors_are_shown_in_both_languages():
    rows = [score("candidate", 0.5, set="docs"), score("bm25", 0.6, set="docs", dim=0)]
    for metric, value in {"mean_cosine": 0.8327, "effective_rank": 31.25}.items():
        rows.append(
            score("candidate", value, set="unrelated texts", kind="spread", metric=metric, main=False)
        )
    verdict = verdict_json(decide(rows, True, GateConfig(), False, False))
    page = render_report(ReportData("n", "r", "t", verdict=verdict, scores=rows))
    assert page.count('<p class="warning">') == 1
    assert "of BM25 0.6000: a drop of 0.1000." in page
    assert "у BM25 0.6000; падение на 0.1000." in page
    words = [word for word in Page(page).words if word]
    assert {"Spread of the vectors", "Разброс векторов", "0.833", "31.2 / 64"} <= set(words)
    assert "effective rank 31.2 of 64, 49 %" in page
    assert "эффективный ранг 31.2 из 64, 49 %" in page
