"""The gate's reasons as sentences, in English and in Russian."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from embedline.gate.decision import Verdict
from embedline.gate.default_rules import MAX_COSINE, MIN_SHARE
from embedline.gate.reason import Code, Reason, ScoreName, Spread
from embedline.markdown import cell


class Sentence(NamedTuple):
    """The same text in English and in Russian."""

    en: str
    ru: str


# A new code needs one entry here. {score} names the score ({Score} at the start of a sentence), {against} the
# other model, {Without} the models that have no score; {candidate}, {other} and {bar} are numbers, {change}
# and {allowed} are phrases made of them; {spread} describes the vectors.
SENTENCES: dict[Code, Sentence] = {
    Code.GATE_OFF: Sentence("The gate is off.", "Проверка отключена."),
    Code.NO_RULES: Sentence(
        "No rule about scores was checked: the candidate is not judged.",
        "Ни одно правило по метрикам не проверялось: вердикт по кандидату не вынесен.",
    ),
    Code.NO_SETS: Sentence(
        "No evaluation set was scored: the candidate is not judged.",
        "Ни на одном наборе нет оценок: вердикт по кандидату не вынесен.",
    ),
    Code.SWITCHED_OFF: Sentence("Switched off by gate.without.", "Отключено настройкой gate.without."),
    Code.NOT_A_NUMBER: Sentence(
        "The candidate's score on {set} is not a number.", "Оценка кандидата на {set} не является числом."
    ),
    Code.ALREADY_CHAMPION: Sentence(
        "The candidate is already champion: there is nothing to compare.",
        "Кандидат уже является чемпионом: сравнивать не с чем.",
    ),
    Code.NO_MODEL: Sentence(
        "There is no {against} to compare with: not applicable.",
        "Нет {against}, сравнивать не с чем: правило неприменимо.",
    ),
    Code.MIN: Sentence(
        "{Score} of the candidate is {candidate:.4f}; at least {bar:.4f} is required.",
        "{Score}: у кандидата {candidate:.4f}, требуется не меньше {bar:.4f}.",
    ),
    Code.MIN_WITHOUT_SCORE: Sentence(
        "The candidate has no score for {score}; {bar:.4f} is required.",
        "{Score}: у кандидата нет оценки, требуется не меньше {bar:.4f}.",
    ),
    Code.MAX_DROP: Sentence(
        "{Score} of the candidate is {candidate:.4f} and of {the_other} {other:.4f}: {change}, {allowed}.",
        "{Score}: у кандидата {candidate:.4f}, у {against} {other:.4f}; {change}, {allowed}.",
    ),
    Code.MIN_GAIN: Sentence(
        "{Score} of the candidate is {candidate:.4f} and of {the_other} {other:.4f}: {change}, {allowed}.",
        "{Score}: у кандидата {candidate:.4f}, у {against} {other:.4f}; {change}, {allowed}.",
    ),
    Code.BASELINE: Sentence(
        "{Score} of the candidate is {candidate:.4f} and of {the_other} {other:.4f}: {change}.",
        "{Score}: у кандидата {candidate:.4f}, у {against} {other:.4f}; {change}.",
    ),
    Code.NO_SCORE: Sentence(
        "{Without} no score for {score}: nothing to compare.",
        "{Score}: нет оценки у {Without}, сравнивать нечего.",
    ),
    Code.NO_COMMON_SET: Sentence(
        "The candidate and {the_other} have no scored set in common{in_metric}: nothing to compare.",
        "У кандидата и {against} нет общих наборов с оценками{in_metric}: сравнивать нечего.",
    ),
    Code.NOT_COLLAPSED: Sentence("The vectors are spread: {spread}.", "Векторы не схлопнулись: {spread}."),
    Code.COLLAPSED: Sentence("The vectors are collapsed: {spread}.", "Векторы схлопнулись: {spread}."),
    Code.TOO_FEW_TEXTS: Sentence(
        "Fewer than {bar:.0f} unrelated texts were embedded: not checked whether the vectors are collapsed.",
        "Получены векторы менее чем {bar:.0f} несвязанных текстов: схлопывание не проверялось.",
    ),
    Code.PARITY_HOLDS: Sentence(
        "The exported models agree with torch.", "Экспортированные модели дают те же результаты, что и torch."
    ),
    Code.PARITY_FAILS: Sentence(
        "The exported models do not agree with torch; parity.json has the numbers.",
        "Результаты экспортированных моделей расходятся с torch; числа в parity.json.",
    ),
    Code.PARITY_NOT_MEASURED: Sentence(
        "The exported models were not compared with torch.",
        "Экспортированные модели не сравнивались с torch.",
    ),
}

_NOTHING = Sentence("", "")
_MODELS = {
    "candidate": Sentence("candidate", "кандидата"),
    "champion": Sentence("champion", "чемпиона"),
    "base": Sentence("base model", "базовой модели"),
    "untrained": Sentence("untrained model", "необученной модели"),
    "bm25": Sentence("BM25", "BM25"),
}


def sentence(reason: Reason) -> Sentence:
    """Write one reason as a sentence with its numbers."""
    template, words = SENTENCES[reason.code], _words(reason)
    numbers = {"candidate": reason.candidate, "other": reason.other, "bar": reason.bar}
    english = {name: phrase.en for name, phrase in words.items()}
    russian = {name: phrase.ru for name, phrase in words.items()}
    return Sentence(template.en.format(**numbers, **english), template.ru.format(**numbers, **russian))


def _words(reason: Reason) -> dict[str, Sentence]:
    """Return the names and phrases that a template may hold."""
    score = reason.score or ScoreName()
    named = _score(score)
    change, allowed = _change(reason)
    return {
        "set": Sentence(score.set, score.set),
        "score": named,
        "Score": named if score.set else _capital(named),  # the name of a set stays as it is
        "in_metric": _details(score),
        "against": _MODELS.get(reason.against, _NOTHING),
        "the_other": Sentence(_the(reason.against), ""),
        "Without": _models(reason.without),
        "change": change,
        "allowed": allowed,
        "spread": _spread(reason.spread or Spread()),
    }


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """Return the content of verdict.json: codes, numbers and names, and the sentences (`text`, `ru`).

    Files written by older versions have no `outcome`, and only `rule`, `passed`, `text` and `ru` in a reason.
    """
    reasons = []
    for reason in verdict.reasons:
        text, ru = sentence(reason)
        reasons.append({**reason.as_json(), "text": text, "ru": ru})
    return {
        "outcome": verdict.outcome.value,
        "passed": verdict.passed,
        "mode": verdict.mode,
        "reasons": reasons,
        "would_pass": verdict.would_pass,
        "already_champion": verdict.already_champion,
    }


def finding(reason: Mapping[str, Any]) -> str:
    """Return the state of a rule by its reason in verdict.json: holds, broken, warning or unchecked."""
    if not reason.get("passed"):
        return "broken"
    return str(reason.get("note") or "holds")


def warnings(verdict: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the warnings among the reasons of verdict.json."""
    return [reason for reason in verdict.get("reasons", []) if finding(reason) == "warning"]


def verdict_markdown(verdict: Mapping[str, Any]) -> str:
    """List the reasons of verdict.json, each with its finding and its rule."""
    words = {"holds": "passed", "broken": "**failed**", "warning": "**warning**", "unchecked": "not checked"}
    return "\n".join(
        f"- {words[finding(reason)]}: {cell(reason['text'])} (`{reason['rule']}`)"
        for reason in verdict["reasons"]
    )


def _score(score: ScoreName) -> Sentence:
    """Name a score: `docs (main score)`, `the mean over 4 retrieval sets (recall@10, lexical head)`."""
    sets, details = Sentence(score.set, score.set) if score.set else _sets(score), _details(score)
    return Sentence(sets.en + details.en, sets.ru + details.ru)


def _details(score: ScoreName) -> Sentence:
    """Name a metric and a head in brackets: ` (recall@10, lexical head)`; nothing when there is neither."""
    parts = [part for part in (_metric(score.metric), _head(score.head)) if part.en]
    return Sentence(*(f" ({', '.join(words)})" for words in zip(*parts, strict=True))) if parts else _NOTHING


def _sets(score: ScoreName) -> Sentence:
    en = f"{score.kind} set".strip()
    if not score.count:
        return Sentence(f"any {en}", "поисковые наборы" if score.kind else "наборы")
    one = score.count % 10 == 1 and score.count % 100 != 11
    adjective = ("поисковому " if one else "поисковым ") if score.kind else ""
    return Sentence(
        f"the mean over {score.count} {en}{'s' if score.count > 1 else ''}",
        f"среднее по {score.count} {adjective}{'набору' if one else 'наборам'}",
    )


def _metric(metric: str) -> Sentence:
    return Sentence("main score", "основная метрика") if metric == "main" else Sentence(metric, metric)


def _head(head: str) -> Sentence:
    if head in ("", "dense"):
        return _NOTHING
    return (
        Sentence("hybrid", "гибридная оценка")
        if head == "hybrid"
        else Sentence(f"{head} head", f"голова {head}")
    )


def _change(reason: Reason) -> tuple[Sentence, Sentence]:
    """Describe the change of the candidate's score and the change that is allowed."""
    size, bar = f"{abs(reason.change):.4f}", f"{abs(reason.bar or 0.0):.4f}"
    moved = Sentence(f"a gain of {size}", f"рост на {size}")
    if reason.change < 0:
        moved = Sentence(f"a drop of {size}", f"падение на {size}")
    if not math.isfinite(reason.change):
        moved = Sentence("not comparable", "сравнить нельзя")
    floor = reason.bar or 0.0
    if (-floor if reason.code is Code.MAX_DROP else floor) > 0:
        return moved, Sentence(f"a gain of at least {bar} is required", f"требуется рост не меньше {bar}")
    return moved, Sentence(f"a drop of {bar} is allowed", f"допускается падение на {bar}")


def _spread(spread: Spread) -> Sentence:
    """Describe mean cosine and effective rank with their limits."""
    cosine, rank = f"{spread.mean_cosine:.4f}", f"{spread.effective_rank:.1f}"
    share, least = f"{100 * spread.share:.0f}", f"{100 * MIN_SHARE:.0f}"
    return Sentence(
        f"mean cosine {cosine} over {spread.texts} unrelated texts (at most {MAX_COSINE} is allowed), "
        f"effective rank {rank} of {spread.dims}, {share} % (at least {least} % is required)",
        f"средний косинус {cosine} по {spread.texts} несвязанным текстам "
        f"(допускается не больше {MAX_COSINE}), "
        f"эффективный ранг {rank} из {spread.dims}, {share} % (требуется не меньше {least} %)",
    )


def _models(names: tuple[str, ...]) -> Sentence:
    """Name models: `The candidate and the champion have`; in Russian in the genitive."""
    english = " and ".join(map(_the, names))
    verb = "has" if len(names) == 1 else "have"
    return Sentence(f"{english[:1].upper()}{english[1:]} {verb}", " и ".join(_MODELS[n].ru for n in names))


def _the(name: str) -> str:
    return "BM25" if name == "bm25" else f"the {_MODELS[name].en}" if name in _MODELS else name


def _capital(phrase: Sentence) -> Sentence:
    return Sentence(*(text[:1].upper() + text[1:] for text in phrase))
