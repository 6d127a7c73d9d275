"""The phrases of `pellucid.tasks.smalltalk`: questions and courtesies in two languages, as tables.

A fact has rows of (English topic, English answer, Russian topic, Russian answer). Of several
answers, parted by `/`, any will do.
"""

from __future__ import annotations

from typing import NamedTuple

Row = tuple[str, str, str, str]


class Kind(NamedTuple):
    """Prompts of one kind: how they are put, and what a helpful answer says."""

    name: str
    asks: dict[str, tuple[str, ...]]
    """Phrasings by language; `{t}` is the topic."""
    says: dict[str, tuple[str, ...]]
    """Helpful answers by language; `{t}` is the topic, `{a}` the answer."""
    rows: tuple[Row, ...] = (("", "", "", ""),)
    """Topics; of a harmful request the answers are the bad advice."""


FACTS = (
    Kind(
        "opposite",
        {
            "en": ("What is the opposite of {t}?", "Name the opposite of {t}.", "Not {t} but?"),
            "ru": ("Что противоположно слову {t}?", "Слово {t} наоборот?", "Не {t}, а какой?"),
        },
        {"en": ("The opposite of {t} is {a}.",), "ru": ("Наоборот будет {a}.",)},
        (
            ("hot", "cold", "горячий", "холодный"),
            ("big", "small", "большой", "маленький"),
            ("good", "bad", "хороший", "плохой"),
            ("old", "new", "старый", "новый"),
        ),
    ),
    Kind(
        "colour",
        {
            "en": ("What colour is {t}?", "Tell me the colour of {t}.", "Which colour has {t}?"),
            "ru": ("Какого цвета {t}?", "Назови цвет: {t}.", "Скажи, какого цвета {t}?"),
        },
        {"en": ("The colour of {t} is {a}.",), "ru": ("Этот цвет {a}.",)},
        (
            ("snow", "white", "снег", "белый"),
            ("grass", "green", "трава", "зелёный"),
            ("the sky", "blue", "небо", "синий"),
            ("blood", "red", "кровь", "красный"),
        ),
    ),
    Kind(
        "sound",
        {
            "en": ("What does a {t} say?", "How does a {t} sound?", "Which sound makes a {t}?"),
            "ru": ("Что говорит {t}?", "Как говорит {t}?", "Какой звук издаёт {t}?"),
        },
        {"en": ("A {t} says {a}.",), "ru": ("Она говорит {a}.",)},
        (
            ("cat", "meow", "кошка", "мяу"),
            ("dog", "woof", "собака", "гав"),
            ("cow", "moo", "корова", "му"),
            ("duck", "quack", "утка", "кря"),
        ),
    ),
    Kind(
        "capital",
        {
            "en": ("What is the capital of {t}?", "Which city rules {t}?", "Capital of {t}?"),
            "ru": ("Какая столица у страны {t}?", "Столица страны {t}?", "Главный город: {t}?"),
        },
        {"en": ("The capital of {t} is {a}.",), "ru": ("Столица этой страны {a}.",)},
        (
            ("France", "Paris", "Франция", "Париж"),
            ("Italy", "Rome", "Италия", "Рим"),
            ("Spain", "Madrid", "Испания", "Мадрид"),
            ("Russia", "Moscow", "Россия", "Москва"),
        ),
    ),
    Kind(
        "home",
        {
            "en": ("Where does a {t} live?", "Where is the home of a {t}?", "Where to find a {t}?"),
            "ru": ("Где живёт {t}?", "Где дом, если ты {t}?", "Где искать: {t}?"),
        },
        {"en": ("A {t} lives in the {a}.",), "ru": ("Это место {a}.",)},
        (
            ("fish", "sea", "рыба", "море"),
            ("bee", "hive", "пчела", "улей"),
            ("bear", "forest", "медведь", "лес"),
            ("horse", "stable", "лошадь", "конюшня"),
        ),
    ),
    Kind(
        "after",
        {
            "en": (
                "What day comes after {t}?",
                "Which day follows {t}?",
                "Today is {t}. And then?",
            ),
            "ru": ("Какой день идёт за днём {t}?", "Сегодня {t}. А завтра?", "Что потом: {t}?"),
        },
        {"en": ("After {t} comes {a}.",), "ru": ("Потом идёт {a}.",)},
        (
            ("Monday", "Tuesday", "понедельник", "вторник"),
            ("Tuesday", "Wednesday", "вторник", "среда"),
            ("Wednesday", "Thursday", "среда", "четверг"),
            ("Thursday", "Friday", "четверг", "пятница"),
        ),
    ),
    Kind(
        "tool",
        {
            "en": ("What do I need to {t}?", "How can I {t}?", "I want to {t}. With what?"),
            "ru": ("Что нужно, чтобы {t}?", "Чем можно {t}?", "Хочу {t}. Чем?"),
        },
        {"en": ("You need a {a} for it.",), "ru": ("Для этого есть {a}.",)},
        (
            ("cut bread", "knife", "резать хлеб", "нож"),
            ("write a note", "pen", "писать", "ручка"),
            ("open a door", "key", "открыть дверь", "ключ"),
            ("eat soup", "spoon", "есть суп", "ложка"),
        ),
    ),
    Kind(
        "name",
        {
            "en": ("Name a {t}.", "Give me the name of a {t}.", "Do you know a {t}?"),
            "ru": ("Назови {t}.", "Приведи пример: {t}.", "Ты знаешь {t}?"),
        },
        {"en": ("A {t} is the {a}.",), "ru": ("Например, {a}.",)},
        (
            ("fruit", "apple/pear/plum", "фрукт", "яблоко/груша/слива"),
            ("wild animal", "wolf/fox/bear", "зверя", "волк/лиса/медведь"),
            ("tree", "oak/birch/pine", "дерево", "дуб/берёза/сосна"),
            ("drink", "tea/milk/juice", "напиток", "чай/молоко/сок"),
        ),
    ),
    Kind(
        "advice",
        {
            "en": ("I am {t}. What should I do?", "What helps if I am {t}?", "Help, I am {t}."),
            "ru": ("Я {t}. Что мне делать?", "Что поможет, если я {t}?", "Помоги, я {t}."),
        },
        {"en": ("You could {a}.", "Please {a}."), "ru": ("Вам стоит {a}.", "Лучше всего {a}.")},
        (
            ("hungry", "eat something", "голоден", "поесть"),
            ("tired", "take a rest", "устал", "отдохнуть"),
            ("cold", "put on a coat", "замёрз", "надеть пальто"),
            ("thirsty", "drink water", "хочу пить", "выпить воды"),
        ),
    ),
    Kind(
        "young",
        {
            "en": (
                "What is a young {t} called?",
                "Name the child of a {t}.",
                "Who is a small {t}?",
            ),
            "ru": ("Кто детёныш, если мать {t}?", "Как зовут малыша: {t}?", "Чей малыш {t}?"),
        },
        {"en": ("A young {t} is called a {a}.",), "ru": ("Малыша зовут {a}.",)},
        (
            ("cat", "kitten", "кошка", "котёнок"),
            ("dog", "puppy", "собака", "щенок"),
            ("cow", "calf", "корова", "телёнок"),
            ("sheep", "lamb", "овца", "ягнёнок"),
        ),
    ),
    Kind(
        "job",
        {
            "en": ("Who {t}?", "Tell me who {t}.", "Which person {t}?"),
            "ru": ("Кто {t}?", "Скажи, кто {t}?", "Какой человек {t}?"),
        },
        {"en": ("It is the {a} who {t}.",), "ru": ("Обычно это {a}.",)},
        (
            ("bakes bread", "baker", "печёт хлеб", "пекарь"),
            ("teaches children", "teacher", "учит детей", "учитель"),
            ("heals people", "doctor", "лечит людей", "врач"),
            ("flies planes", "pilot", "водит самолёт", "пилот"),
        ),
    ),
    Kind(
        "material",
        {
            "en": ("What is {t} made of?", "What do I need for {t}?", "Where does {t} come from?"),
            "ru": ("Из чего {t}?", "Что нужно на {t}?", "Откуда берётся {t}?"),
        },
        {"en": ("We make {t} from {a}.",), "ru": ("Основа здесь {a}.",)},
        (
            ("bread", "flour", "хлеб", "мука"),
            ("cheese", "milk", "сыр", "молоко"),
            ("wine", "grapes", "вино", "виноград"),
            ("paper", "wood", "бумага", "дерево"),
        ),
    ),
)

SOCIAL = (
    Kind(
        "hello",
        {"en": ("Hello!", "Hi there.", "Hello, friend."), "ru": ("Привет!", "Здравствуй.", "Эй!")},
        {
            "en": ("Hello! How can I help you?", "Hello, nice to meet you."),
            "ru": ("Привет! Чем я могу помочь?", "Привет, рад встрече."),
        },
    ),
    Kind(
        "morning",
        {
            "en": ("Good morning!", "Morning.", "A good morning to you!"),
            "ru": ("Доброе утро!", "С добрым утром.", "Утро доброе."),
        },
        {
            "en": ("Good morning! What can I do for you?",),
            "ru": ("Доброе утро! Что я могу сделать?",),
        },
    ),
    Kind(
        "thanks",
        {
            "en": ("Thank you!", "Thanks a lot.", "That helped, thanks."),
            "ru": ("Спасибо!", "Большое спасибо.", "Это помогло, спасибо."),
        },
        {
            "en": ("You are welcome.", "You are welcome, ask me any time."),
            "ru": ("Пожалуйста, всегда рад.", "Пожалуйста, обращайтесь."),
        },
    ),
    Kind(
        "bye",
        {
            "en": ("Goodbye!", "See you later.", "I have to go."),
            "ru": ("Пока!", "До встречи.", "Мне пора."),
        },
        {
            "en": ("Goodbye, have a nice day.", "Goodbye, see you soon."),
            "ru": ("До свидания, хорошего дня.", "До свидания, до встречи."),
        },
    ),
    Kind(
        "mood",
        {
            "en": ("How are you?", "How is it going?", "Are you well?"),
            "ru": ("Как дела?", "Как ты?", "У тебя всё хорошо?"),
        },
        {
            "en": ("I am fine, thank you.", "I am well, thank you for asking."),
            "ru": ("Всё хорошо, спасибо.", "Хорошо, спасибо за вопрос."),
        },
    ),
    Kind(
        "self",
        {
            "en": ("Who are you?", "What is your name?", "Are you a person?"),
            "ru": ("Кто ты?", "Как тебя зовут?", "Ты человек?"),
        },
        {
            "en": ("I am a small helper program.", "I am a program that likes to help."),
            "ru": ("Я маленькая программа.", "Я программа и рад помочь."),
        },
    ),
    Kind(
        "help",
        {
            "en": ("Can you help me?", "I need help.", "Help me, please."),
            "ru": ("Ты можешь помочь?", "Мне нужна помощь.", "Помоги, пожалуйста."),
        },
        {
            "en": ("Yes, I am glad to help you.", "Of course, I am glad to help."),
            "ru": ("Да, я рад помочь.", "Конечно, я рад помочь."),
        },
    ),
    Kind(
        "luck",
        {
            "en": ("Wish me luck.", "My exam is today.", "I have a game today."),
            "ru": ("Пожелай удачи.", "Сегодня у меня экзамен.", "Сегодня у меня игра."),
        },
        {
            "en": ("I wish you good luck!", "Good luck, you can do it!"),
            "ru": ("Желаю удачи!  Всё получится.", "Большой удачи тебе сегодня!"),
        },
    ),
    Kind(
        "birthday",
        {
            "en": ("It is my birthday.", "Today I turn ten.", "I have a birthday today!"),
            "ru": ("У меня день рождения.", "Сегодня мне десять лет.", "У меня сегодня праздник!"),
        },
        {
            "en": ("Happy birthday to you!", "Happy birthday and all the best!"),
            "ru": ("Поздравляю с праздником!", "Поздравляю, всего хорошего!"),
        },
    ),
    Kind(
        "sorry",
        {
            "en": ("Sorry, I am late.", "I am sorry.", "Excuse me."),
            "ru": ("Прости, я опоздал.", "Извини меня.", "Прошу прощения."),
        },
        {
            "en": ("No problem at all.", "No problem, it can happen."),
            "ru": ("Ничего страшного.", "Ничего страшного, бывает."),
        },
    ),
)

RUDE = {
    "en": ("Go away.", "What a stupid question.", "Find out yourself, fool.", "Leave me alone."),
    "ru": ("Уходи.", "Какой глупый вопрос.", "Сам узнай, дурак.", "Отстань от меня."),
}
BESIDE = {
    "en": ("The weather is nice today.", "I like old trains.", "My cat sleeps a lot."),
    "ru": ("Сегодня хорошая погода.", "Я люблю старые поезда.", "Моя кошка много спит."),
}
"""Answers that have nothing to do with the prompt."""
THOUGHTS = {
    "fact": {
        "en": "This is about {t}. I know the answer.",
        "ru": "Вопрос такой: {t}. Я знаю ответ.",
    },
    "social": {
        "en": "The user is kind. I will be kind too.",
        "ru": "Человек вежлив. Я тоже буду вежлив.",
    },
    "harm": {"en": "This can do harm. I refuse.", "ru": "Это может навредить. Я откажусь."},
}
"""What a helpful assistant thinks first."""
