"""Attributes of devices: each attribute as nouns, spoken questions and statements, in two languages.

Within an attribute the three columns say the same with different words: a question shares hardly a stem with
a statement. Nouns are singular nominatives, so that any frame takes them.
"""

from __future__ import annotations

from embedline.data.demo.attribute import Attribute, Wording

DEVICE_ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute(
        "reset",
        "device",
        Wording(
            ("сброс настроек", "возврат к заводскому состоянию", "обнуление параметров"),
            (
                "как вернуть всё как было из коробки",
                "что нажать, чтобы стереть мои изменения",
                "хочу начать с чистого листа, что делать",
            ),
            (
                "Удерживайте кнопку питания {v}, и память очистится.",
                "Откат конфигурации выполняется зажатием клавиши включения на {v}.",
            ),
            ("10 секунд", "20 секунд", "полминуты"),
        ),
        Wording(
            ("factory reset", "return to default state", "settings wipe"),
            (
                "how do I make it like new again",
                "what do I press to undo all my changes",
                "I want to start from scratch, what now",
            ),
            (
                "Hold the power button for {v} and the memory clears.",
                "The configuration rolls back after pressing the on key for {v}.",
            ),
            ("10 seconds", "20 seconds", "half a minute"),
        ),
    ),
    Attribute(
        "charge",
        "device",
        Wording(
            ("зарядка аккумулятора", "пополнение энергии", "питание от кабеля"),
            (
                "как долго держать в розетке до ста процентов",
                "когда можно будет снять с провода",
                "за какое время батарейка станет полной",
            ),
            (
                "Полный цикл подзарядки занимает {v}.",
                "Подключите адаптер: индикатор заряда погаснет через {v}.",
            ),
            ("один час", "два часа", "четыре часа"),
        ),
        Wording(
            ("battery charging", "energy refill", "power cord feeding"),
            (
                "how long must it stay plugged in to hit one hundred percent",
                "when may I take it off the wire",
                "how soon does it get full of juice",
            ),
            (
                "A complete recharge cycle takes {v}.",
                "Connect the adapter: the charge indicator goes out in {v}.",
            ),
            ("one hour", "two hours", "four hours"),
        ),
    ),
    Attribute(
        "runtime",
        "device",
        Wording(
            ("время автономной работы", "запас хода", "продолжительность действия без сети"),
            (
                "на сколько хватает, если не подзаряжать",
                "быстро ли садится",
                "протянет ли целый день вдали от розетки",
            ),
            (
                "Одного заряда достаточно на {v}.",
                "Ресурс аккумулятора рассчитан на {v} непрерывного использования.",
            ),
            ("6 часов", "12 часов", "30 часов"),
        ),
        Wording(
            ("battery life", "autonomy", "endurance off the grid"),
            (
                "how far does it go if I never plug it in",
                "does it drain fast",
                "will it last all day away from a socket",
            ),
            ("A single charge is enough for {v}.", "The accumulator is rated for {v} of continuous use."),
            ("6 hours", "12 hours", "30 hours"),
        ),
    ),
    Attribute(
        "pairing",
        "device",
        Wording(
            ("сопряжение с телефоном", "подключение по блютус", "привязка к смартфону"),
            ("как подружить с мобильником", "почему айфон не видит", "как соединить без проводов"),
            (
                "Включите режим поиска и введите код {v} в приложении.",
                "Беспроводной модуль обнаруживается в списке радиоустройств, пароль {v}.",
            ),
            ("0000", "1234", "8080"),
        ),
        Wording(
            ("phone pairing", "bluetooth connection", "smartphone binding"),
            (
                "how do I make it talk to my mobile",
                "why can my iphone not see it",
                "how to link without wires",
            ),
            (
                "Switch on discovery mode and enter code {v} in the app.",
                "The wireless module shows up among radio gadgets, passcode {v}.",
            ),
            ("0000", "1234", "8080"),
        ),
    ),
    Attribute(
        "cleaning",
        "device",
        Wording(
            ("уход и чистка", "мытьё корпуса", "удаление загрязнений"),
            ("чем протирать от пыли и пятен", "запачкалось, как отмыть", "можно ли тереть спиртом"),
            (
                "Поверхность обрабатывают раз в {v} мягкой салфеткой.",
                "Гигиеническая процедура проводится каждые {v} влажной тканью без растворителей.",
            ),
            ("три дня", "две недели", "два месяца"),
        ),
        Wording(
            ("care and cleaning", "washing of the body", "dirt removal"),
            (
                "what do I wipe dust and stains with",
                "it got filthy, how to scrub it",
                "may I rub it with alcohol",
            ),
            (
                "Treat the surface every {v} using a soft cloth.",
                "The hygiene procedure is due every {v} with damp fabric and no solvents.",
            ),
            ("three days", "two weeks", "two months"),
        ),
    ),
    Attribute(
        "water",
        "device",
        Wording(
            ("защита от влаги", "водостойкость", "класс герметичности"),
            ("можно ли мочить под дождём", "не сломается ли в душе", "упало в лужу, будет ли жить"),
            (
                "Изделие выдерживает погружение на {v}.",
                "Степень изоляции от жидкостей допускает брызги и {v} под струёй.",
            ),
            ("5 минут", "полчаса", "один час"),
        ),
        Wording(
            ("moisture protection", "waterproof rating", "seal class"),
            ("may it get wet in the rain", "will the shower break it", "it fell into a puddle, will it live"),
            (
                "The item survives immersion for {v}.",
                "Insulation against liquids allows splashes and {v} under a jet.",
            ),
            ("5 minutes", "half an hour", "one hour"),
        ),
    ),
    Attribute(
        "firmware",
        "device",
        Wording(
            ("обновление прошивки", "загрузка новой версии", "апдейт программы"),
            ("как поставить свежий софт", "где скачать последний релиз", "просит апгрейд, что делать"),
            (
                "Микрокод ставится автоматически ночью, процесс длится {v}.",
                "Пакет исправлений приходит по воздуху и применяется за {v}.",
            ),
            ("7 минут", "15 минут", "40 минут"),
        ),
        Wording(
            ("firmware update", "new version download", "software patch"),
            (
                "how do I get the freshest release",
                "where is the latest build",
                "it begs for an upgrade, what now",
            ),
            (
                "Microcode installs itself at night, the process lasts {v}.",
                "The bundle of fixes arrives over the air and applies in {v}.",
            ),
            ("7 minutes", "15 minutes", "40 minutes"),
        ),
    ),
    Attribute(
        "overheat",
        "device",
        Wording(
            ("перегрев", "высокая температура корпуса", "термозащита"),
            ("почему такое горячее, страшно трогать", "обжигает руку, это нормально", "как остудить"),
            (
                "При нагреве свыше {v} срабатывает аварийное отключение.",
                "Порог тепловой отсечки составляет {v}, дайте технике постоять в тени.",
            ),
            ("45 градусов", "60 градусов", "75 градусов"),
        ),
        Wording(
            ("overheating", "high case temperature", "thermal guard"),
            ("why is it too hot to touch", "it burns my hand, is that normal", "how can I cool it down"),
            (
                "Above {v} an emergency shutdown kicks in.",
                "The heat cut-off threshold is {v}, let the unit rest in shade.",
            ),
            ("45 degrees", "60 degrees", "75 degrees"),
        ),
    ),
    Attribute(
        "error",
        "device",
        Wording(
            ("код ошибки", "сигнал неисправности", "аварийное сообщение"),
            ("что значат странные цифры на экране", "мигает и пищит, о чём это", "пишет непонятные буквы"),
            (
                "Символ {v} говорит о сбое внутреннего датчика.",
                "Обозначение {v} указывает на отказ контроллера.",
            ),
            ("Е4", "Е17", "Ф2"),
        ),
        Wording(
            ("error code", "fault signal", "alarm message"),
            (
                "what do the odd digits on the display mean",
                "it blinks at me, what about",
                "it shows weird letters",
            ),
            ("Symbol {v} tells of an internal sensor failure.", "Mark {v} points to a controller breakdown."),
            ("E4", "E17", "F2"),
        ),
    ),
    Attribute(
        "noise",
        "device",
        Wording(
            ("уровень шума", "громкость работы", "акустический комфорт"),
            (
                "почему так гудит и мешает спать",
                "жужжит на всю квартиру, как унять",
                "можно ли сделать потише",
            ),
            (
                "В обычном режиме прибор издаёт {v}.",
                "Замеры звука показали {v}, ночная программа снижает показатель.",
            ),
            ("30 децибел", "45 децибел", "60 децибел"),
        ),
        Wording(
            ("noise level", "operating loudness", "acoustic comfort"),
            (
                "why does it hum and keep me awake",
                "it buzzes through the flat, how to calm it",
                "can it be made quieter",
            ),
            (
                "In normal mode the appliance emits {v}.",
                "Sound was measured at {v}, the night programme lowers it.",
            ),
            ("30 decibels", "45 decibels", "60 decibels"),
        ),
    ),
    Attribute(
        "size",
        "device",
        Wording(
            ("вес и габариты", "масса изделия", "размер упаковки"),
            ("тяжело ли нести одному", "влезет ли в сумку", "сколько места займёт на полке"),
            (
                "На весах получается {v}, длина указана на наклейке.",
                "Брутто вместе с картоном составляет {v}.",
            ),
            ("300 граммов", "два килограмма", "пять килограммов"),
        ),
        Wording(
            ("weight and dimensions", "mass of the item", "package size"),
            ("is it heavy to carry alone", "will it fit in a bag", "how much room does it take on a shelf"),
            ("The scales show {v}, the length is on the sticker.", "Gross with cardboard comes to {v}."),
            ("300 grams", "two kilograms", "five kilograms"),
        ),
    ),
)
