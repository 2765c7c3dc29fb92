"""A tiny language model for the demo: random weights in the shape of current decoders.

It replaces a downloaded checkpoint (causal, grouped queries, rotary positions, a next-token head) where the
path to an embedding model is shown or tested without a download.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from embedline.models.tokenizer import DECODER_SPECIAL, padded_vocabulary, train_tokenizer

# The most frequent words of the demo data: each becomes one token, as in a large tokenizer.
_RUSSIAN = """
аварийное автоматически автор аккумулятора анонимизируются апдейт архива базы без бесплатное беспроводной
брошюры брутто весну виду вишни влажной вместе внесение внизу внимательный внутреннему возврат возмещение
вопрос время вручает вручную встрече выбор выполняется высшего вычитают гарантийный гарантия где гигиеническая
главе главном говорит года горячем градусов датчика даты два девять дежурный дежурят денег день дефекты
децибел диспетчер длится для дней дня до добавляется договор дополняет дорожный доставка доступны друга
ежегодно если же журналы за задается зажатием заказа занимает записи запястье заряда заявление знаний из
изготовителя иллюстрирует имеют инженер интересом интерфейс каждую каждые как какой картоном карту кассовый
каталоге класса клиенту ключевое когда кого код колесах коллег компенсация контроллера конфигурации
конфиденциальность коробка коротко корпуса кратко купон куратор лаборатории лентой ли лимона линия лишней
логистическая локализации локаль лояльности льгота малышей мелким меню меня месяц месяцев методист микрокод
мини минут модели модуль можно молока моя на набор наречий народе нарядная наставник наш не неба независимый
ниже низкой номере ночи ночью обнаруживается обозначение обозначением обслуживание обсуждает общей
обязательство один одного ожидание оператором описан оплаты опытный от ответ отвечает отдельно отзывов отказ
откат отключение отправки отправление оформление оформляется оценивается пакет памятка пароль перевод
переводится перед пересказывает перечень перечисляются персональные песен печатного писатель пишут плану по
под подарочная поддерживает поддержки подзарядки подключение подробно подскажите поездок пойдет покупателю
покупки политика полный полов получение понятие портала порядок после постоянному почту поясняет праздничное
практики презентационный прибывает примеры принимается присмотр приходит проверяет проводится программа
программы продается промокод просто просьбе профили процедура процентов процесс прочитать публикацией пункт
работы радиоустройств раздел раздела разделе размера рассмотрено рассрочка растворителей расчет регулярно
редактор режим ретро речь родителей рублей русификация самое сборника сведений сверяет свой связи связь секунд
сервера сервисный сертификат сети скидка служба смена смотрите снижает снимки сноски со соседней составляет
сотрудник сотрудники сохраняется спелой спешки списке способ справки справочника спустя средств средства срок
ставится старательно статья стиле стираются стоимости странице страницы студентами сумму схемы счет таблицу
также телефона тема тепла терминов тех технический течение тканью то травы тренировок увеличенного удаление
указывает упаковка устраняет уточняет уход участникам формата хочу хранения цвета цене ценника центр цикл час
часа часов чек чека через черновик читатель что шагов шрифтом эксперт эспрессо эта этим это этот языка
"""
_ENGLISH = """
about accept after also an and anonymous answer answers any archive are arrives article as at athletic
attentive author azure back base battery before below black blue board bottom box briefly brochure budget
buyer by calling can card care catalogue centre certificate chapter charcoal charge checks cherry chopper
claim clarifies class cleaner cleaning clerk client code colleague comes compact compares compensation
confidentiality connection consultation contact controller cost curator data date day days decibels defects
degrees delivery deposit described diagrams dialects diligently discount discusses dispatch dispatcher do does
draft duty editor emerald en engineer entries entry erased error essentials every examples expert explains
extends firmware five food footnotes for form free friend from funds general gift given glossary goes golden
grass great green guarantee half hand handbook have heat help hold holder hot hour hours how huge illustrates
in increased independent instalment interest interface internal is issued it item its junior just keeping key
kids kilograms knowledge lab label language large lemon length line list little locale localised logs long
look low lowers luxury made mailbox maker means meeting memo mentor menu method methodologist minutes mobile
mode model module money month months my next night nine no noise notion number of off offered old on one ones
operator order our over overheat overview own package page pages pairing password payment people percent
period personal phone pictures plain plan pocket portable portal power practice premium price print printed
privacy private profiles programme promo publication question questions read receipt record red refund
regularly removal removes request reset response retells retro reviews roubles ru rules runs runtime rush same
scarlet scheme seasoned seconds section see sell sensor separately sequence server service servicing set shift
shipment short size sized sky small snowy sound sports spring staff steps stove students style support switch
table talk technical terms that the thing this three thrifty time to together toned top topic transferred
translation travel treated trial trips two under unit up use vintage visitor volume waiting warranty water we
what where white whoever will with within workouts writer writes year years yellow your
"""


def write_demo_decoder(folder: Path, seed: int = 0, texts: Iterable[str] | None = None) -> None:
    """Write the checkpoint into `folder`: 4 layers × 64, 4 heads on 2 keys, 512 positions.

    The same seed gives the same bytes.

    Args:
        texts: to train its tokenizer on; words of the demo data when None.
    """
    words = texts if texts is not None else f"{_RUSSIAN} {_ENGLISH}".split()
    tokenizer = train_tokenizer(words, 4096, special=DECODER_SPECIAL)
    config: Any = LlamaConfig(
        vocab_size=padded_vocabulary(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.1,  # about 1/sqrt(width); the usual 0.02 suits widths of a thousand and more
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
