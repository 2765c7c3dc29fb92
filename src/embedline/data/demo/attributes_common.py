"""Attributes of all products and services: money, delivery, help, privacy.

The columns are those of `attributes_device`.
"""

from __future__ import annotations

from embedline.data.demo.attribute import Attribute, Wording

COMMON_ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute(
        "warranty",
        "any",
        Wording(
            ("гарантийный срок", "обязательство изготовителя", "бесплатное обслуживание"),
            (
                "сломалось, починят ли даром",
                "как долго производитель отвечает за поломки",
                "кто платит, если само испортится",
            ),
            (
                "Гарантия сохраняется в течение {v} с даты чека.",
                "Сервисный центр устраняет дефекты за свой счёт в течение {v}.",
            ),
            ("6 месяцев", "одного года", "трёх лет"),
        ),
        Wording(
            ("warranty period", "maker's obligation", "free servicing"),
            (
                "it broke, will they mend it for nothing",
                "how long does the producer answer for breakage",
                "who pays if it goes wrong by itself",
            ),
            (
                "The guarantee runs {v} from the date of the receipt.",
                "The service centre removes defects at its own cost within {v}.",
            ),
            ("6 months", "one year", "three years"),
        ),
    ),
    Attribute(
        "refund",
        "any",
        Wording(
            ("возврат денег", "возмещение стоимости", "отказ от покупки"),
            (
                "не понравилось, вернут ли мне рубли",
                "передумал, хочу сдать обратно",
                "как получить назад уплаченное",
            ),
            (
                "Средства перечисляются на карту за {v}.",
                "Компенсация оформляется через заявление, ожидание {v}.",
            ),
            ("3 дня", "10 дней", "месяц"),
        ),
        Wording(
            ("money back", "refund of the price", "purchase withdrawal"),
            (
                "I do not like it, can I get my cash returned",
                "changed my mind, want to give it up",
                "how do I recover what I paid",
            ),
            (
                "Funds are transferred to the card in {v}.",
                "Compensation is issued by a claim form, waiting time {v}.",
            ),
            ("3 days", "10 days", "a month"),
        ),
    ),
    Attribute(
        "delivery",
        "any",
        Wording(
            ("доставка", "срок отправки", "получение заказа"),
            ("когда привезут домой", "долго ли ждать курьера", "где сейчас моя посылка"),
            (
                "Отправление прибывает на {v} после оплаты.",
                "Логистическая служба вручает пакет на {v}.",
            ),
            ("второй день", "пятый день", "девятый день"),
        ),
        Wording(
            ("delivery", "dispatch time", "order receipt"),
            (
                "when will they bring it to my home",
                "how long do I wait for the courier",
                "where is my parcel now",
            ),
            ("The shipment arrives on {v} after payment.", "Logistics hands the packet over on {v}."),
            ("the second day", "the fifth day", "the ninth day"),
        ),
    ),
    Attribute(
        "language",
        "any",
        Wording(
            ("смена языка", "выбор локализации", "русификация меню"),
            (
                "всё на иностранном, как переключить на родной",
                "не понимаю надписи, хочу по-нашему",
                "есть ли перевод для бабушки",
            ),
            (
                "Интерфейс переводится в разделе {v}.",
                "Локаль задаётся на странице {v}, доступны девять наречий.",
            ),
            ("«Общие»", "«Система»", "«Регион»"),
        ),
        Wording(
            ("language change", "locale choice", "menu translation"),
            (
                "everything is foreign, how to switch to my native tongue",
                "I cannot read the labels, want them plain",
                "does it speak something grandma knows",
            ),
            (
                "The interface is localised in section {v}.",
                "The locale is set on page {v}, nine dialects are offered.",
            ),
            ("General", "System", "Region"),
        ),
    ),
    Attribute(
        "payment",
        "any",
        Wording(
            ("способ оплаты", "рассрочка", "внесение средств"),
            ("можно ли частями, а не сразу", "берёте ли наличку", "чем рассчитаться, если нет карточки"),
            ("Принимается {v}, чек приходит на почту.", "Кассовый модуль поддерживает расчёт через {v}."),
            ("банковский перевод", "электронный кошелёк", "кредитный договор"),
        ),
        Wording(
            ("payment method", "instalment plan", "deposit of funds"),
            ("can I split the bill over time", "do you take cash", "how to settle up with no plastic"),
            (
                "We accept {v}, the receipt goes to your mailbox.",
                "The checkout module supports settlement by {v}.",
            ),
            ("bank transfer", "electronic wallet", "credit contract"),
        ),
    ),
    Attribute(
        "discount",
        "any",
        Wording(
            ("скидка", "промокод", "льгота постоянному клиенту"),
            ("как взять подешевле", "есть ли акции или бонусы", "студент ли платит меньше"),
            ("Купон снижает сумму на {v}.", "Участникам программы лояльности вычитают {v} от ценника."),
            ("5 процентов", "15 процентов", "четверть"),
        ),
        Wording(
            ("discount", "promo code", "regular client benefit"),
            ("how do I get it cheaper", "any deals or bonuses around", "does a student pay less"),
            ("A coupon lowers the total by {v}.", "Loyalty members have {v} taken off the tag."),
            ("5 percent", "15 percent", "a quarter"),
        ),
    ),
    Attribute(
        "contact",
        "any",
        Wording(
            ("связь с оператором", "линия поддержки", "консультация специалиста"),
            ("кому позвонить, если беда", "как поговорить с живым человеком", "надоел бот, куда жаловаться"),
            ("Диспетчер на горячем номере отвечает {v}.", "Сотрудники дежурят у телефона {v}."),
            ("круглосуточно", "с 9 до 18", "по выходным"),
        ),
        Wording(
            ("operator contact", "support line", "expert consultation"),
            (
                "whom do I call in trouble",
                "how to speak to a live human",
                "sick of the bot, where to complain",
            ),
            ("The dispatcher at the hot number answers {v}.", "Staff are on phone duty {v}."),
            ("around the clock", "from 9 to 18", "at weekends"),
        ),
    ),
    Attribute(
        "privacy",
        "any",
        Wording(
            ("удаление личных данных", "конфиденциальность", "политика хранения сведений"),
            ("кто подсматривает за мной", "как убрать информацию обо мне", "не сольют ли мою переписку"),
            (
                "Персональные записи стираются с сервера через {v}.",
                "Журналы и профили анонимизируются спустя {v}.",
            ),
            ("30 дней", "полгода", "два года"),
        ),
        Wording(
            ("personal data removal", "confidentiality", "record keeping rules"),
            ("who is spying on me", "how do I take down info about myself", "will my chats leak"),
            (
                "Private entries are erased from the server after {v}.",
                "Logs and profiles are made anonymous in {v}.",
            ),
            ("30 days", "half a year", "two years"),
        ),
    ),
    Attribute(
        "gift",
        "any",
        Wording(
            ("подарочная упаковка", "праздничное оформление", "сертификат для друга"),
            (
                "хочу порадовать маму на юбилей, завернёте",
                "можно ли с бантиком и открыткой",
                "как вручить сюрпризом",
            ),
            ("Нарядная коробка с лентой добавляется за {v}.", "Презентационный набор оценивается в {v}."),
            ("100 рублей", "250 рублей", "500 рублей"),
        ),
        Wording(
            ("gift wrapping", "festive design", "certificate for a friend"),
            (
                "I want to please mum on her birthday, will you pack it",
                "can it come with a bow and a card",
                "how to hand it over as a surprise",
            ),
            ("A fancy box with ribbon is added for {v}.", "The presentation set is priced at {v}."),
            ("100 roubles", "250 roubles", "500 roubles"),
        ),
    ),
)
