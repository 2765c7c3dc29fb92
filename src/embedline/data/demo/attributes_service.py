"""Attributes of services only: contracts, access, quality.

The columns are those of `attributes_device`.
"""

from __future__ import annotations

from embedline.data.demo.attribute import Attribute, Wording

SERVICE_ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute(
        "cancel",
        "service",
        Wording(
            ("отмена продления", "расторжение", "отключение услуги"),
            (
                "больше не хочу, как прекратить списания",
                "как отписаться насовсем",
                "уйти от вас без лишних трат",
            ),
            (
                "Деактивация доступна в кабинете за {v} до конца периода.",
                "Аннулирование вступает в силу спустя {v} после подтверждения.",
            ),
            ("сутки", "трое суток", "неделю"),
        ),
        Wording(
            ("renewal cancellation", "termination", "service switch-off"),
            (
                "I am done, how do I stop being billed",
                "how to unsubscribe for good",
                "leaving you with no extra costs",
            ),
            (
                "Deactivation is available in the account {v} before the period ends.",
                "Annulment takes effect {v} after confirmation.",
            ),
            ("one day", "three days", "a week"),
        ),
    ),
    Attribute(
        "pause",
        "service",
        Wording(
            ("временная приостановка", "заморозка", "каникулы абонента"),
            (
                "уезжаю в отпуск, не хочу терять деньги",
                "сделать перерыв и потом вернуться",
                "можно ли пропустить лето",
            ),
            (
                "Блокировка ставится на срок до {v} без комиссии.",
                "Режим ожидания возможен в течение {v}, остаток сохраняется.",
            ),
            ("двух недель", "одного месяца", "90 дней"),
        ),
        Wording(
            ("temporary suspension", "freeze", "subscriber holiday"),
            (
                "going on vacation, hate to lose money",
                "take a break and come back later",
                "may I skip the summer",
            ),
            ("A hold is placed for up to {v} at no fee.", "Standby mode lasts {v}, the balance is kept."),
            ("two weeks", "one month", "90 days"),
        ),
    ),
    Attribute(
        "password",
        "service",
        Wording(
            ("восстановление пароля", "вход в аккаунт", "потеря доступа"),
            ("забыл секретное слово, как попасть внутрь", "не пускает под моим логином", "меня взломали"),
            (
                "Ссылка для авторизации живёт {v} и приходит в СМС.",
                "Учётная запись открывается кодом, годным {v}.",
            ),
            ("пять минут", "один час", "24 часа"),
        ),
        Wording(
            ("password recovery", "account sign-in", "lost access"),
            ("forgot the secret word, how do I get inside", "it refuses my login", "I have been hacked"),
            (
                "The authorisation link lives {v} and comes by text.",
                "The profile opens with a token valid {v}.",
            ),
            ("five minutes", "one hour", "24 hours"),
        ),
    ),
    Attribute(
        "family",
        "service",
        Wording(
            ("семейный доступ", "совместное использование", "добавление участника"),
            (
                "могут ли жена и сын тоже заходить",
                "как поделиться с роднёй",
                "на скольких человек одна оплата",
            ),
            ("Владелец приглашает до {v} в общую группу.", "Список домочадцев вмещает не более {v}."),
            ("двух гостей", "пяти гостей", "восьми гостей"),
        ),
        Wording(
            ("family access", "joint use", "adding a member"),
            (
                "can my wife and son come in as well",
                "how to share with relatives",
                "how many people on one bill",
            ),
            ("The owner invites up to {v} to a common group.", "The household profile limit is {v}."),
            ("two guests", "five guests", "eight guests"),
        ),
    ),
    Attribute(
        "trial",
        "service",
        Wording(
            ("пробный период", "демонстрационный режим", "тестовое подключение"),
            (
                "можно ли сперва посмотреть, а потом решать",
                "дадите попользоваться за так",
                "боюсь брать кота в мешке",
            ),
            ("Ознакомительная версия открыта {v}.", "Новичкам дарят {v} бесплатного знакомства."),
            ("7 дней", "14 дней", "один месяц"),
        ),
        Wording(
            ("trial period", "demo mode", "test connection"),
            (
                "can I look first and decide later",
                "will you let me play with it gratis",
                "afraid of a pig in a poke",
            ),
            ("The introductory version is open for {v}.", "Newcomers are given {v} of complimentary use."),
            ("7 days", "14 days", "one month"),
        ),
    ),
    Attribute(
        "quality",
        "service",
        Wording(
            ("качество соединения", "стабильность работы", "скорость загрузки"),
            ("почему всё тормозит и виснет", "картинка рвётся по вечерам", "еле ползёт, что делать"),
            (
                "Минимальная пропускная способность канала {v}.",
                "Технический регламент гарантирует поток {v}.",
            ),
            ("5 мегабит", "20 мегабит", "100 мегабит"),
        ),
        Wording(
            ("connection quality", "stability", "loading speed"),
            (
                "why does everything lag and freeze up",
                "the picture tears in the evening",
                "it crawls, what can I do",
            ),
            ("The minimum channel bandwidth is {v}.", "The technical charter promises a stream of {v}."),
            ("5 megabits", "20 megabits", "100 megabits"),
        ),
    ),
)
