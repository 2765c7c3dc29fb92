"""The report's words in both of its languages."""

from __future__ import annotations

from markupsafe import Markup

# key: (English, Russian)
LABELS: dict[str, tuple[str, str]] = {
    "run": ("Run", "Прогон"),
    "created": ("Written", "Составлен"),
    "passed": ("The gate passed the candidate", "Кандидат допущен"),
    "refused": ("The gate refused the candidate", "Кандидат не допущен"),
    "would_refuse": ("Dry run: the gate would have refused", "Пробный режим: кандидат не был бы допущен"),
    "no_verdict": ("No verdict was reached", "Вердикт не вынесен"),
    "rule": ("Rule", "Правило"),
    "holds": ("holds", "выполнено"),
    "broken": ("broken", "нарушено"),
    "reason": ("Reason", "Обоснование"),
    "version": ("Registered version", "Версия в реестре"),
    "aliases": ("Aliases", "Псевдонимы"),
    "moved": ("moved by this run", "переставлен этим прогоном"),
    "not_moved": ("not moved by this run", "этим прогоном не переставлен"),
    "already": ("already champion", "уже чемпион"),
    "none": ("none", "нет"),
    "stages": ("What every stage adds", "Что даёт каждая стадия"),
    "stages_note": (
        "nDCG@10 on held-out questions, beside BM25 and the model before training; bars: mean over the sets.",
        "nDCG@10 на отложенных вопросах рядом с BM25 и моделью до обучения; столбцы — среднее по наборам.",
    ),
    "scores": ("Scores", "Оценки"),
    "scores_note": (
        "Main score of every set at full width; below the candidate's its 95 % confidence interval.",
        "Основная оценка каждого набора при полной ширине; у кандидата — с 95 % доверительным интервалом.",
    ),
    "set": ("Set", "Набор"),
    "mean": ("mean", "среднее"),
    "dims": ("Matryoshka dims", "Размерности «матрёшки»"),
    "dims_note": (
        "The candidate's vectors cut to fewer dimensions.",
        "Векторы кандидата, урезанные до меньшей размерности.",
    ),
    "heads": ("Heads", "Головы модели"),
    "heads_note": (
        "The candidate's main score by each head, and by their weighted sum.",
        "Основная оценка кандидата по каждой голове и по их взвешенной сумме.",
    ),
    "head": ("Head", "Голова"),
    "head_dense": ("dense", "вектор"),
    "head_lexical": ("lexical", "лексика"),
    "head_multi_vector": ("multi-vector", "векторы токенов"),
    "head_hybrid": ("hybrid", "сумма"),
    "data": ("What cleaning kept", "Что осталось после очистки"),
    "data_note": (
        "Rows by source, and by the rule that rejected them.",
        "Строки по источникам и по правилам, которые их отсеяли.",
    ),
    "records": ("Pairs and triplets", "Пары и тройки"),
    "corpus": ("Passages", "Фрагменты"),
    "source": ("Source", "Источник"),
    "rows_in": ("in", "на входе"),
    "rows_out": ("out", "на выходе"),
    "kept": ("kept", "доля"),
    "total": ("total", "всего"),
    "mining": ("Hard negatives", "Трудные отрицательные примеры"),
    "mining_off": ("Mining was off.", "Поиск отрицательных примеров отключён."),
    "mined": ("negatives", "примеров"),
    "mined_records": ("records with negatives", "записей с ними"),
    "mined_rank": ("median rank", "медианный ранг"),
    "mined_score": ("mean score of a negative", "средняя близость отрицательного"),
    "mined_positive": ("mean score of its positive", "средняя близость положительного"),
    "curves": ("Training curves", "Кривые обучения"),
    "curves_note": (
        "By optimizer step; the table says where the time went, as shares of a step's. All curves are in the "
        "tracker.",
        "По шагам оптимизатора; в таблице — на что ушло время, в долях шага. Все кривые — в трекере.",
    ),
    "loss": ("loss", "функция потерь"),
    "in_batch_accuracy": ("accuracy in the batch", "точность внутри батча"),
    "alignment": ("alignment", "близость пар (alignment)"),
    "uniformity": ("uniformity", "равномерность (uniformity)"),
    "grad_norm": ("norm of the gradient", "норма градиента"),
    "tokens_per_second": ("tokens/s", "токенов/с"),
    "step_seconds": ("s a step", "с на шаг"),
    "share_of_peak": ("share of peak", "доля пика"),
    "padding_share": ("padding", "заполнение"),
    "data_share": ("data", "данные"),
    "forward_share": ("forward", "прямой проход"),
    "backward_share": ("backward", "обратный проход"),
    "optimizer_share": ("optimiser", "оптимизатор"),
    "logging_share": ("logging", "журнал"),
    "curves_none": (
        "No stage trained in this run: their models were found in the store.",
        "В этом прогоне ничего не обучалось: модели найдены в хранилище.",
    ),
    "onnx": ("ONNX export", "Экспорт в ONNX"),
    "onnx_note": ("Compared with torch fp32 on {} texts.", "Сравнение с torch fp32 на {} текстах."),
    "variant": ("Variant", "Вариант"),
    "parity": ("Parity", "Совпадение"),
    "worst_cosine": ("worst cosine", "худший косинус"),
    "worst_difference": ("largest difference of a weight", "наибольшее расхождение веса"),
    "measured": ("measured", "измерено"),
    "needed": ("needed", "требуется"),
    "mean_cosine": ("mean cosine", "средний косинус"),
    "top10": ("same top 10", "общих из топ-10"),
    "megabytes": ("MB", "МБ"),
    "text_ms": ("ms a text", "мс на текст"),
    "tokens_per_s": ("tokens/s", "токенов/с"),
    "torch_text_ms": ("torch: ms a text", "torch: мс на текст"),
    "torch_tokens_per_s": ("torch: tokens/s", "torch: токенов/с"),
    "steps": ("Steps", "Шаги"),
    "step": ("Step", "Шаг"),
    "status": ("Status", "Состояние"),
    "seconds": ("Seconds", "Секунды"),
    "memory": ("Peak memory, MB", "Пик памяти, МБ"),
    "fresh": ("done", "выполнен"),
    "cached": ("from the store", "из хранилища"),
    "passed_through": ("switched off", "отключён"),
    "failed": ("failed", "ошибка"),
    "killed": ("killed", "прерван"),
    "running": ("running", "выполняется"),
    "bm25": ("BM25", "BM25"),
    "untrained": ("untrained", "до обучения"),
    "base": ("base model", "исходная модель"),
    "pretrain": ("pretraining", "предобучение"),
    "train_unsupervised": ("unsupervised", "обучение без разметки"),
    "train_supervised": ("supervised", "обучение с разметкой"),
    "candidate": ("candidate", "кандидат"),
    "champion": ("champion", "чемпион"),
    "onnx-fp32": ("ONNX fp32", "ONNX fp32"),
    "onnx-int8": ("ONNX int8", "ONNX int8"),
    "preflight": ("preflight", "проверка перед запуском"),
    "ingest": ("ingest", "загрузка данных"),
    "clean": ("clean", "очистка"),
    "prune_before": ("prune before", "прореживание до обучения"),
    "mine": ("mine", "поиск негативов"),
    "prune_after": ("prune after", "прореживание после обучения"),
    "export": ("export", "экспорт"),
    "evaluate": ("evaluate", "оценка"),
    "gate": ("gate", "проверка допуска"),
    "promote": ("promote", "продвижение"),
    "finish": ("finish", "завершение"),
    "empty": ("empty", "пусто"),
    "query_too_short": ("query too short", "короткий запрос"),
    "positive_too_short": ("positive too short", "короткий ответ"),
    "too_short": ("too short", "слишком короткие"),
    "exact_duplicate": ("exact duplicate", "точные повторы"),
    "near_duplicate": ("near duplicate", "почти повторы"),
    "evaluation_query": ("evaluation query", "запрос из оценки"),
    "evaluation_answer": ("evaluation answer", "ответ из оценки"),
    "evaluation_sentence": ("evaluation sentence", "фраза из оценки"),
    "inconsistent": ("inconsistent", "несогласованные"),
    "rule_language": ("language", "язык"),
}


def label(key: str, *values: object, tag: str = "span") -> Markup:
    """A label in both languages, one of which the style sheet hides; an unknown key stands for itself."""
    english, russian = LABELS.get(key, (key, key))
    if values:
        english, russian = english.format(*values), russian.format(*values)
    return bilingual(english, russian, tag=tag)


def bilingual(english: str, russian: str, *, tag: str = "span") -> Markup:
    """A text in both languages, one of which the style sheet hides."""
    if english == russian:
        return Markup.escape(english)
    both = (("en", english), ("ru", russian))
    return Markup("").join(
        Markup(f'<{tag} class="{name}" lang="{name}">{{}}</{tag}>').format(text) for name, text in both
    )
