"""Translate: simple English sentences into Spanish."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

from minitransformer.backend import Generator
from minitransformer.config import PRESETS
from minitransformer.tasks.task import Task
from minitransformer.tasks.vocabulary import Vocabulary
from minitransformer.training.batching import Pair
from minitransformer.validation.settings import check_size, check_types

T = TypeVar("T")


class Determiner(NamedTuple):
    """A determiner: the -> el, la, los, las."""

    english: tuple[str, str]  # singular, plural
    spanish: tuple[str, str, str, str]  # masculine and feminine singular, masculine and feminine plural


class Adjective(NamedTuple):
    """An adjective: red -> rojo, roja, rojos, rojas."""

    english: str
    spanish: tuple[str, str, str, str]  # as in Determiner


class Noun(NamedTuple):
    """A noun: house -> casa, feminine. The ending does not always show the gender: el mapa, la flor."""

    english: tuple[str, str]  # singular, plural
    spanish: tuple[str, str]
    feminine: bool


class Verb(NamedTuple):
    """A verb: falls, fall -> cae, caen."""

    english: tuple[str, str]  # third person singular, plural; the plural is the infinitive, too
    spanish: tuple[str, str]


def adjective(english: str, spanish: str) -> Adjective:
    """An adjective from its masculine singular: -o has four forms; -e and consonants agree in number only."""
    feminine = spanish[:-1] + "a" if spanish.endswith("o") else spanish
    plural = "s" if spanish[-1] in "oe" else "es"
    return Adjective(english, (spanish, feminine, spanish + plural, feminine + plural))


DETERMINERS = (
    Determiner(("the", "the"), ("el", "la", "los", "las")),
    Determiner(("a", "some"), ("un", "una", "unos", "unas")),
    Determiner(("this", "these"), ("este", "esta", "estos", "estas")),
    Determiner(("my", "my"), ("mi", "mi", "mis", "mis")),
    Determiner(("our", "our"), ("nuestro", "nuestra", "nuestros", "nuestras")),
)
QUALITIES = (
    adjective("small", "pequeño"),
    adjective("big", "grande"),
    adjective("old", "viejo"),
    adjective("new", "nuevo"),
    adjective("strange", "extraño"),
    adjective("ugly", "feo"),
)
COLOURS = (
    adjective("red", "rojo"),
    adjective("white", "blanco"),
    adjective("black", "negro"),
    adjective("yellow", "amarillo"),
    adjective("green", "verde"),
    adjective("blue", "azul"),
    adjective("grey", "gris"),
)
ANIMALS = (
    Noun(("cat", "cats"), ("gato", "gatos"), feminine=False),
    Noun(("dog", "dogs"), ("perro", "perros"), feminine=False),
    Noun(("wolf", "wolves"), ("lobo", "lobos"), feminine=False),
    Noun(("mouse", "mice"), ("ratón", "ratones"), feminine=False),
    Noun(("elephant", "elephants"), ("elefante", "elefantes"), feminine=False),
    Noun(("cow", "cows"), ("vaca", "vacas"), feminine=True),
    Noun(("spider", "spiders"), ("araña", "arañas"), feminine=True),
    Noun(("turtle", "turtles"), ("tortuga", "tortugas"), feminine=True),
)
THINGS = (
    Noun(("book", "books"), ("libro", "libros"), feminine=False),
    Noun(("bridge", "bridges"), ("puente", "puentes"), feminine=False),
    Noun(("tree", "trees"), ("árbol", "árboles"), feminine=False),
    Noun(("map", "maps"), ("mapa", "mapas"), feminine=False),
    Noun(("house", "houses"), ("casa", "casas"), feminine=True),
    Noun(("apple", "apples"), ("manzana", "manzanas"), feminine=True),
    Noun(("flower", "flowers"), ("flor", "flores"), feminine=True),
    Noun(("key", "keys"), ("llave", "llaves"), feminine=True),
)
WITHOUT_OBJECT = (
    Verb(("falls", "fall"), ("cae", "caen")),
    Verb(("sleeps", "sleep"), ("duerme", "duermen")),
    Verb(("sings", "sing"), ("canta", "cantan")),
    Verb(("arrives", "arrive"), ("llega", "llegan")),
    Verb(("disappears", "disappear"), ("desaparece", "desaparecen")),
)
WITH_OBJECT = (
    Verb(("sees", "see"), ("ve", "ven")),
    Verb(("wants", "want"), ("quiere", "quieren")),
    Verb(("finds", "find"), ("encuentra", "encuentran")),
    Verb(("carries", "carry"), ("lleva", "llevan")),
    Verb(("has", "have"), ("tiene", "tienen")),
)
# which kinds of adjectives a noun may have, in English order
ADJECTIVES: tuple[tuple[Sequence[Adjective], ...], ...] = (
    (),
    (QUALITIES,),
    (COLOURS,),
    (QUALITIES, COLOURS),
)


class NounPhrase(NamedTuple):
    """A noun phrase: the small red house -> la casa roja pequeña."""

    determiner: Determiner
    adjectives: tuple[Adjective, ...]
    noun: Noun
    plural: bool

    def english(self) -> list[str]:
        """The English words: adjectives stand before the noun and have one form; "a" is "an" before a vowel."""
        determiner = self.determiner.english[self.plural]
        words = [*(word.english for word in self.adjectives), self.noun.english[self.plural]]
        if determiner == "a" and words[0][0] in "aeiou":
            determiner = "an"
        return [determiner, *words]

    def spanish(self) -> list[str]:
        """The Spanish words: adjectives stand after the noun, the nearest first, and agree in gender and number."""
        form = 2 * self.plural + self.noun.feminine
        adjectives = (word.spanish[form] for word in reversed(self.adjectives))
        return [self.determiner.spanish[form], self.noun.spanish[self.plural], *adjectives]


class Sentence(NamedTuple):
    """The meaning of a sentence, which both languages can express."""

    subject: NounPhrase
    negated: bool
    verb: Verb
    object: NounPhrase | None

    def english(self) -> list[str]:
        """The English words: negation takes an auxiliary, which agrees with the subject in place of the verb."""
        third_person, infinitive = self.verb.english
        if self.negated:
            verb = ["do" if self.subject.plural else "does", "not", infinitive]
        else:
            verb = [infinitive if self.subject.plural else third_person]
        return [*self.subject.english(), *verb, *(self.object.english() if self.object else [])]

    def spanish(self) -> list[str]:
        """The Spanish words: negation is one word before the verb."""
        verb = ["no"] * self.negated + [self.verb.spanish[self.subject.plural]]
        return [*self.subject.spanish(), *verb, *(self.object.spanish() if self.object else [])]


def random_sentence(rng: Generator) -> Sentence:
    """A random sentence that is grammatical in both languages. It need not make sense: houses may sing.

    Objects are things: a person, and often an animal, would need the preposition "a" in Spanish.
    """

    def choose(options: Sequence[T]) -> T:
        return options[int(rng.random() * len(options))]  # faster than rng.integers

    def noun_phrase(nouns: Sequence[Noun]) -> NounPhrase:
        adjectives = tuple(choose(kind) for kind in choose(ADJECTIVES))
        return NounPhrase(choose(DETERMINERS), adjectives, choose(nouns), choose((False, True)))

    subject, negated = noun_phrase(ANIMALS + THINGS), choose((False, True))
    if choose((False, True)):
        return Sentence(subject, negated, choose(WITH_OBJECT), noun_phrase(THINGS))
    return Sentence(subject, negated, choose(WITHOUT_OBJECT), None)


def _words() -> Iterator[str]:
    """All words, the English ones first, some more than once."""
    nouns, verbs = ANIMALS + THINGS, WITHOUT_OBJECT + WITH_OBJECT
    for english in (*DETERMINERS, *nouns, *verbs):
        yield from english.english
    yield from (adjective.english for adjective in QUALITIES + COLOURS)
    yield from ("an", "does", "do", "not")
    for spanish in (*DETERMINERS, *nouns, *verbs, *QUALITIES, *COLOURS):
        yield from spanish.spanish
    yield "no"


VOCABULARY = Vocabulary(dict.fromkeys(_words()))


@dataclass(frozen=True)
class Translate(Task):
    """Translation from English to Spanish: "the small red house does not fall" -> "la casa roja pequeña no cae".

    Both languages share one vocabulary, as in §5.1 of the paper. Held out means never trained on, by
    construction: a sentence whose English words' ids add up to a multiple of 10 is in the test set, one whose
    sum ends in 1 in the validation set, all others are for training. No set holds a sentence twice.
    """

    name: ClassVar[str] = "translate"
    # Pre-norm takes half as many steps here as the paper's post-norm; endless data needs no dropout.
    model: ClassVar[Mapping[str, Any]] = {
        **PRESETS["toy"],
        "dropout": 0.0,
        "norm": "pre",
        "n_heads": 2,
        "d_ff": 64,
    }
    training: ClassVar[Mapping[str, Any]] = {
        "steps": 600,
        "batch_tokens": 512,
        "accumulate": 2,
        "processes": 2,
        "schedule": "cosine",
        "warmup_steps": 100,
        "learning_rate": 8e-3,
        "clip_norm": 1.0,
        "log_every": 100,
        "evaluate_every": 200,
    }
    epoch_size: int = 400  # pairs drawn, then batched by length
    test_size: int = 1000

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("epoch_size", "test_size"):
            check_size(name, getattr(self, name))

    @property
    def vocabulary(self) -> Vocabulary:
        return VOCABULARY

    def training_pairs(self, rng: Generator) -> list[Pair]:
        return self._pairs(rng, self.epoch_size, range(2, 10))

    def evaluation_sets(self, rng: Generator) -> dict[str, list[Pair]]:
        return {
            "valid": self._pairs(rng, self.test_size, (1,)),
            "test": self._pairs(rng, self.test_size, (0,)),
        }

    def _pairs(self, rng: Generator, n: int, last_digits: Sequence[int]) -> list[Pair]:
        """`n` different pairs, the ids of whose source add up to a number that ends in one of `last_digits`."""
        target_of: dict[tuple[int, ...], list[int]] = {}
        while len(target_of) < n:
            sentence = random_sentence(rng)
            source = VOCABULARY.encode(" ".join(sentence.english()))
            if sum(source) % 10 in last_digits:
                target_of[tuple(source)] = VOCABULARY.encode(" ".join(sentence.spanish()))
        return list(target_of.items())
