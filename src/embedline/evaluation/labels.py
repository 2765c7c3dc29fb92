"""The words of the report in both of its languages."""

from __future__ import annotations

from markupsafe import Markup

# key: (English, Russian)
LABELS: dict[str, tuple[str, str]] = {
    "run": ("Run", "Запуск"),
    "created": ("Created", "Создан"),
    "passed": ("The gate passed the candidate", "Кандидат прошёл проверку"),
    "refused": ("The gate refused the candidate", "Кандидат не прошёл проверку"),
    "would_refuse": (
        "Dry run: the gate would have refused the candidate",
        "Пробный режим: кандидат не прошёл бы проверку",
    ),
    "not_judged": (
        "Not judged: the candidate is registered, and no alias moves by itself",
        "Вердикт не вынесен: кандидат зарегистрирован, алиасы сами не переносятся",
    ),
    "already_champion": (
        "The candidate is the champion already; its registered verdict stays",
        "Кандидат уже чемпион; вердикт в реестре не меняется",
    ),
    "no_verdict": ("There is no verdict", "Вердикта нет"),
    "rule": ("Rule", "Правило"),
    "holds": ("holds", "выполнено"),
    "broken": ("fails", "нарушено"),
    "warning": ("warning", "предупреждение"),
    "unchecked": ("not checked", "не проверялось"),
    "reason": ("Reason", "Обоснование"),
    "version": ("Registered version", "Версия в реестре"),
    "aliases": ("Aliases", "Алиасы"),
    "moved": ("moved by this run", "изменены этим запуском"),
    "not_moved": ("not moved by this run", "не изменены этим запуском"),
    "already": ("already champion", "уже чемпион"),
    "none": ("none", "нет"),
    "conflict": ("Not promoted", "Алиас не перенесён"),
    "stages": ("What every stage adds", "Вклад каждого этапа"),
    "stages_note": (
        "nDCG@10 on the held-out sets that every stage was scored on, beside BM25 and the model "
        "before training; bars: mean over these sets.",
        "nDCG@10 на отложенных наборах, на которых измерены все этапы, в сравнении с BM25 и моделью "
        "до обучения; на диаграмме — среднее по этим наборам.",
    ),
    "scores": ("Scores", "Метрики"),
    "scores_note": (
        "Main metric of every set at full vector width; below the candidate's value its 95 % "
        "confidence interval.",
        "Основная метрика каждого набора при полной размерности вектора; под значением кандидата — "
        "95 % доверительный интервал.",
    ),
    "identical_ids_note": (
        "The document with the query's id is no result in: {}.",
        "Документ, id которого совпадает с id запроса, исключён из результатов в наборах: {}.",
    ),
    "set": ("Set", "Набор"),
    "mean": ("mean", "среднее"),
    "dims": ("Matryoshka dimensions", "Размерности Matryoshka"),
    "dims_note": (
        "The candidate's main metric with its vectors cut to fewer dimensions.",
        "Основная метрика кандидата для векторов, усечённых до меньшей размерности.",
    ),
    "heads": ("Heads", "Головы модели"),
    "heads_note": (
        "The candidate's main metric by each head, and by the weighted sum of all heads.",
        "Основная метрика кандидата по каждой голове и по взвешенной сумме всех голов.",
    ),
    "head": ("Head", "Голова"),
    "spread": ("Spread of the vectors", "Разброс векторов"),
    "spread_note": (
        "Cosines of pairs of unrelated texts, and the number of dimensions that the vectors use (effective "
        "rank; the largest possible one is behind it). Collapsed vectors are all alike.",
        "Косинусы пар несвязанных текстов и число измерений, которые используют векторы (эффективный ранг; "
        "за ним наибольшее возможное значение). Схлопнувшиеся векторы почти одинаковы.",
    ),
    "model": ("Model", "Модель"),
    "texts": ("texts", "текстов"),
    "effective_rank": ("effective rank", "эффективный ранг"),
    "head_dense": ("dense", "плотная"),
    "head_lexical": ("lexical", "лексическая"),
    "head_multi_vector": ("multi-vector", "мультивекторная"),
    "head_hybrid": ("hybrid", "гибридная"),
    "data": ("Data after cleaning", "Данные после очистки"),
    "data_note": (
        "Rows by source, and by the rule that rejected them.",
        "Строки по источникам и по правилам, которые их отсеяли.",
    ),
    "records": ("Pairs and triplets", "Пары и триплеты"),
    "corpus": ("Passages", "Пассажи"),
    "source": ("Source", "Источник"),
    "rows_in": ("in", "на входе"),
    "rows_out": ("out", "на выходе"),
    "kept": ("kept", "осталось"),
    "total": ("total", "всего"),
    "mining": ("Hard negatives", "Сложные негативы"),
    "mining_off": ("No negatives were mined.", "Негативы не подбирались."),
    "mined": ("negatives", "негативов"),
    "mined_records": ("records with negatives", "записей с негативами"),
    "mined_rank": ("median rank", "медианный ранг"),
    "mined_score": ("mean score of a negative", "средняя близость негатива"),
    "mined_positive": ("mean score of its positive", "средняя близость позитива"),
    "strategy": ("found by", "чем найдены"),
    "strategy_model": ("current model", "текущая модель"),
    "strategy_bm25": ("BM25", "BM25"),
    "curves": ("Training curves", "Кривые обучения"),
    "curves_note": (
        "By optimizer step; the table shows shares of a step's time. All curves are in the tracker.",
        "По шагам оптимизатора; в таблице — доли времени шага. Все кривые — в трекере.",
    ),
    "loss": ("loss", "функция потерь"),
    "in_batch_accuracy": ("in-batch accuracy", "точность внутри батча"),
    "alignment": ("alignment", "близость пар (alignment)"),
    "uniformity": ("uniformity", "равномерность (uniformity)"),
    "lexical_query_terms": ("active terms of a query", "активных термов в запросе"),
    "lexical_document_terms": ("active terms of a document", "активных термов в документе"),
    "lexical_empty_share": ("share of texts without terms", "доля текстов без термов"),
    "lexical_evenness": ("evenness of lexical weights", "равномерность лексических весов"),
    "grad_norm": ("gradient norm", "норма градиента"),
    "tokens_per_second": ("tokens/s", "токенов/с"),
    "step_seconds": ("s/step", "с/шаг"),
    "share_of_peak": ("share of peak FLOP/s", "доля пика FLOP/s"),
    "padding_share": ("padding", "паддинг"),
    "data_share": ("data", "данные"),
    "forward_share": ("forward", "прямой проход"),
    "backward_share": ("backward", "обратный проход"),
    "optimizer_share": ("optimizer", "оптимизатор"),
    "logging_share": ("logging", "логирование"),
    "curves_none": (
        "Nothing was trained in this run: the models were found in the store.",
        "В этом запуске ничего не обучалось: модели взяты из хранилища.",
    ),
    "onnx": ("ONNX export", "Экспорт в ONNX"),
    "onnx_note": ("Compared with torch fp32 on {} texts.", "Сравнение с torch fp32 на {} текстах."),
    "variant": ("Variant", "Вариант"),
    "parity": ("Parity", "Совпадение с torch"),
    "worst_cosine": ("lowest cosine", "минимальный косинус"),
    "worst_difference": ("largest weight difference", "наибольшее расхождение веса"),
    "measured": ("measured", "измерено"),
    "needed": ("needed", "требуется"),
    "mean_cosine": ("mean cosine", "средний косинус"),
    "top10": ("top-10 overlap", "пересечение топ-10"),
    "batch_cosine": ("alone to batch", "отдельно и в пакете"),
    "int8_note": (
        "“Alone to batch” is the lowest cosine between a text's vector computed alone and in a batch. int8 "
        "scales activations over the input of each call: one text at a time (export.int8_scales: text) gives "
        "vectors that depend on their text alone.",
        "«Отдельно и в пакете» — минимальный косинус между вектором текста, вычисленным отдельно и в составе "
        "пакета. В int8 масштаб активаций вычисляется по всему входу вызова: при подаче текстов по одному "
        "(export.int8_scales: text) вектор зависит только от своего текста.",
    ),
    "megabytes": ("MB", "МБ"),
    "text_ms": ("ms/text", "мс/текст"),
    "tokens_per_s": ("tokens/s", "токенов/с"),
    "torch_text_ms": ("torch: ms/text", "torch: мс/текст"),
    "torch_tokens_per_s": ("torch: tokens/s", "torch: токенов/с"),
    "steps": ("Steps", "Шаги"),
    "step": ("Step", "Шаг"),
    "status": ("Status", "Статус"),
    "seconds": ("Seconds", "Время, с"),
    "memory": ("Peak memory, MB", "Пик памяти, МБ"),
    "fresh": ("done", "выполнен"),
    "cached": ("cached", "из кэша"),
    "passed_through": ("switched off", "отключён"),
    "failed": ("failed", "ошибка"),
    "killed": ("killed", "прерван"),
    "running": ("running", "выполняется"),
    "bm25": ("BM25", "BM25"),
    "untrained": ("untrained", "необученная"),
    "base": ("base model", "базовая модель"),
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
    "prune_before": ("prune before training", "прунинг до обучения"),
    "mine": ("mine negatives", "поиск негативов"),
    "prune_after": ("prune after training", "прунинг после обучения"),
    "export": ("export", "экспорт"),
    "evaluate": ("evaluate", "оценка"),
    "gate": ("gate", "проверка кандидата"),
    "promote": ("promote", "продвижение"),
    "report": ("report", "отчёт"),
    "finish": ("finish", "завершение"),
    "empty": ("empty", "пустые"),
    "query_too_short": ("query too short", "короткий запрос"),
    "positive_too_short": ("positive too short", "короткий ответ"),
    "too_short": ("too short", "слишком короткие"),
    "exact_duplicate": ("exact duplicate", "точные дубликаты"),
    "near_duplicate": ("near duplicate", "почти дубликаты"),
    "evaluation_query": ("query of an evaluation set", "запрос из тестового набора"),
    "evaluation_answer": ("answer of an evaluation set", "ответ из тестового набора"),
    "evaluation_sentence": ("sentence of an evaluation set", "фраза из тестового набора"),
    "evaluation_query_inside": (
        "text with a query of an evaluation set in it",
        "текст, содержащий запрос из тестового набора",
    ),
    "evaluation_answer_inside": (
        "text with an answer of an evaluation set in it",
        "текст, содержащий ответ из тестового набора",
    ),
    "evaluation_sentence_inside": (
        "text with a sentence of an evaluation set in it",
        "текст, содержащий фразу из тестового набора",
    ),
    "evaluation_query_near": (
        "almost a query of an evaluation set",
        "почти запрос из тестового набора",
    ),
    "evaluation_answer_near": (
        "almost an answer of an evaluation set",
        "почти ответ из тестового набора",
    ),
    "evaluation_sentence_near": (
        "almost a sentence of an evaluation set",
        "почти фраза из тестового набора",
    ),
    "inconsistent": ("inconsistent", "несогласованные"),
    "rule_language": ("language", "язык"),
}


def label(key: str, *values: object, tag: str = "span") -> Markup:
    """Return a label in both languages, one of which the style sheet hides; an unknown key as it is."""
    english, russian = LABELS.get(key, (key, key))
    if values:
        english, russian = english.format(*values), russian.format(*values)
    return bilingual(english, russian, tag=tag)


def bilingual(english: str, russian: str, *, tag: str = "span") -> Markup:
    """Return a text in both languages, one of which the style sheet hides."""
    if english == russian:
        return Markup.escape(english)
    both = (("en", english), ("ru", russian))
    return Markup("").join(
        Markup(f'<{tag} class="{name}" lang="{name}">{{}}</{tag}>').format(text) for name, text in both
    )
