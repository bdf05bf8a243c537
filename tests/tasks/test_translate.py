"""The language of the task translate: right Spanish, and test sentences that training can never show."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import minitransformer as mt
from minitransformer import cli
from minitransformer.backend import generator
from minitransformer.tasks import Translate
from minitransformer.tasks import translate as language
from minitransformer.tasks.translate import NounPhrase, Sentence, random_sentence

SEEDS = st.integers(0, 2**32 - 1)
NOUNS = language.ANIMALS + language.THINGS
VERBS = language.WITHOUT_OBJECT + language.WITH_OBJECT
ADJECTIVES = language.QUALITIES + language.COLOURS
VOCABULARY = Translate().vocabulary


def find(table, word):
    """The one entry of `table` that has the English `word`."""
    (found,) = (entry for entry in table if word == entry.english or word in tuple(entry.english))
    return found


def parsed_noun_phrase(words):
    determiner, *adjectives, noun = words
    entry = find(NOUNS, noun)
    return NounPhrase(
        find(language.DETERMINERS, "a" if determiner == "an" else determiner),
        tuple(find(ADJECTIVES, word) for word in adjectives),
        entry,
        plural=noun == entry.english[1],
    )


def parsed(english):
    """What an English sentence of the language says: the noun phrases stand on both sides of the verb."""
    words = english.split()
    forms = {form for verb in VERBS for form in verb.english}
    (at,) = (i for i, word in enumerate(words) if word in forms)
    negated = "not" in words
    subject, rest = words[: at - 2 * negated], words[at + 1 :]
    return Sentence(
        parsed_noun_phrase(subject),
        negated,
        find(VERBS, words[at]),
        parsed_noun_phrase(rest) if rest else None,
    )


# --- right Spanish --------------------------------------------------------------------------------------

PAIRS = """
the small red house does not fall = la casa roja pequeña no cae
the small red houses do not fall = las casas rojas pequeñas no caen
the dog sleeps = el perro duerme
the dogs sleep = los perros duermen
a cow sings = una vaca canta
a wolf sings = un lobo canta
an old elephant arrives = un elefante viejo llega
an elephant arrives = un elefante llega
a grey elephant arrives = un elefante gris llega
an ugly spider disappears = una araña fea desaparece
some new keys disappear = unas llaves nuevas desaparecen
some big trees fall = unos árboles grandes caen
the cat sees the map = el gato ve el mapa
the cats do not see the maps = los gatos no ven los mapas
my turtle has an apple = mi tortuga tiene una manzana
my turtles do not have an apple = mis tortugas no tienen una manzana
our mouse wants a yellow flower = nuestro ratón quiere una flor amarilla
our mice want some yellow flowers = nuestros ratones quieren unas flores amarillas
our cow does not find our green bridge = nuestra vaca no encuentra nuestro puente verde
these blue books have our big white tree = estos libros azules tienen nuestro árbol blanco grande
this strange black dog does not carry these old grey keys = este perro negro extraño no lleva estas llaves grises viejas
these wolves carry this new blue book = estos lobos llevan este libro azul nuevo
this flower does not want my map = esta flor no quiere mi mapa
these strange spiders find my ugly house = estas arañas extrañas encuentran mi casa fea
"""
WORDS = {
    "NOUNS": "el gato los gatos, el perro los perros, el lobo los lobos, el ratón los ratones, "
    "el elefante los elefantes, la vaca las vacas, la araña las arañas, la tortuga las tortugas, "
    "el libro los libros, el puente los puentes, el árbol los árboles, el mapa los mapas, la casa las casas, "
    "la manzana las manzanas, la flor las flores, la llave las llaves",
    "ADJECTIVES": "pequeño pequeña pequeños pequeñas, grande grande grandes grandes, viejo vieja viejos viejas, "
    "nuevo nueva nuevos nuevas, extraño extraña extraños extrañas, feo fea feos feas, rojo roja rojos rojas, "
    "blanco blanca blancos blancas, negro negra negros negras, amarillo amarilla amarillos amarillas, "
    "verde verde verdes verdes, azul azul azules azules, gris gris grises grises",
    "VERBS": "cae caen, duerme duermen, canta cantan, llega llegan, desaparece desaparecen, ve ven, "
    "quiere quieren, encuentra encuentran, lleva llevan, tiene tienen",
}


@pytest.mark.parametrize("pair", PAIRS.strip().splitlines())
def test_pairs_written_by_hand(pair):
    english, spanish = pair.split(" = ")
    sentence = parsed(english)
    assert " ".join(sentence.english()) == english
    assert " ".join(sentence.spanish()) == spanish


def test_every_form_of_every_word():
    """Gender, number and spelling, from a list written by hand."""
    the = language.DETERMINERS[0].spanish
    forms = {
        "NOUNS": [
            (the[noun.feminine], noun.spanish[0], the[2 + noun.feminine], noun.spanish[1]) for noun in NOUNS
        ],
        "ADJECTIVES": [adjective.spanish for adjective in ADJECTIVES],
        "VERBS": [verb.spanish for verb in VERBS],
    }
    assert {name: ", ".join(map(" ".join, rows)) for name, rows in forms.items()} == WORDS


@given(SEEDS)
def test_a_sentence_is_understood_from_its_english_alone(seed):
    """So there is one right answer to each."""
    sentence = random_sentence(generator(seed))
    assert parsed(" ".join(sentence.english())) == sentence


@given(SEEDS)
def test_objects_are_things(seed):
    """An animal would sometimes need the preposition "a"."""
    thing = random_sentence(generator(seed)).object
    assert thing is None or thing.noun in language.THINGS


def test_no_word_belongs_to_both_languages():
    def words(say):
        return {word for _ in range(3000) for word in say(random_sentence(rng))}

    rng = generator(1)
    english, spanish = words(Sentence.english), words(Sentence.spanish)
    assert not english & spanish
    assert english | spanish == set(VOCABULARY.symbols[3:])  # and the vocabulary holds no other word


def test_adjectives_cross():
    """What the last adjective says in English is said first in Spanish: the reason to look at cross-attention."""
    assert parsed("the small red house falls").spanish()[2:4] == ["roja", "pequeña"]


# --- training, validation and test ----------------------------------------------------------------------


def last_digits(pairs):
    return {sum(source) % 10 for source, _ in pairs}


@given(SEEDS)
def test_held_out_sentences_are_disjoint_by_construction(seed):
    task = Translate(epoch_size=200, test_size=30)
    sets = task.evaluation_sets(generator(seed))
    assert last_digits(task.training_pairs(generator(seed))) == set(range(2, 10))
    assert last_digits(sets["valid"]) == {1}
    assert last_digits(sets["test"]) == {0}


def test_five_epochs_of_training_show_no_held_out_sentence():
    """Looked for as sentences. Sentences drawn without the rule are often found, so the search can find."""
    task = Translate(epoch_size=2000)
    epochs = [task.training_pairs(generator(3, 1, epoch)) for epoch in range(5)]
    trained = {tuple(source) for pairs in epochs for source, _ in pairs}
    valid, test = (
        {tuple(source) for source, _ in pairs} for pairs in task.evaluation_sets(generator(0)).values()
    )
    assert not trained & valid and not trained & test and not valid & test
    rng = generator(0)
    any_sentences = {tuple(VOCABULARY.encode(" ".join(random_sentence(rng).english()))) for _ in range(1000)}
    assert len(trained & any_sentences) > 20


def test_training_shows_every_word():
    task = Translate(epoch_size=5000)
    trained = {i for pair in task.training_pairs(generator(2)) for side in pair for i in side}
    assert trained == set(range(3, len(VOCABULARY)))


@given(SEEDS)
def test_every_pair_is_one_of_the_language_and_fits_the_model(seed):
    task = Translate(epoch_size=50, test_size=10)
    max_len = mt.RunSettings.of(task).model.max_len
    for pairs in (task.training_pairs(generator(seed)), *task.evaluation_sets(generator(seed)).values()):
        for source, target in pairs:
            assert max(len(source), len(target)) + 1 <= max_len
            sentence = parsed(VOCABULARY.decode(source))
            assert VOCABULARY.decode(target).split() == sentence.spanish()


def test_sets_have_their_size_and_no_sentence_twice():
    task = Translate()
    for pairs in (task.training_pairs(generator(4)), *task.evaluation_sets(generator(4)).values()):
        assert len({tuple(source) for source, _ in pairs}) == len(pairs)
    assert {name: len(pairs) for name, pairs in task.evaluation_sets(generator(4)).items()} == {
        "valid": 1000,
        "test": 1000,
    }


def test_pairs_are_a_function_of_the_seed():
    task = Translate(epoch_size=40, test_size=10)
    assert task.training_pairs(generator(7)) == task.training_pairs(generator(7))
    assert task.training_pairs(generator(7)) != task.training_pairs(generator(8))
    assert task.evaluation_sets(generator(7)) == task.evaluation_sets(generator(7))
    assert task.evaluation_sets(generator(7)) != task.evaluation_sets(generator(8))


@pytest.mark.parametrize("settings", [{"epoch_size": 0}, {"test_size": -3}, {"epoch_size": 3.5}])
def test_impossible_settings_are_refused_by_name_and_value(settings):
    with pytest.raises(mt.ConfigError, match=f"{next(iter(settings))}.*{next(iter(settings.values()))}"):
        Translate(**settings)


# --- the command ----------------------------------------------------------------------------------------


def test_the_command_trains_and_decodes(translate_run, capsys):
    english = "the small red house does not fall"
    assert cli.main(["decode", str(translate_run), english]) == 0
    expected = mt.translate(mt.load_model(translate_run), [VOCABULARY.encode(english)])[0]
    assert capsys.readouterr().out == VOCABULARY.decode(expected) + "\n"


@pytest.mark.parametrize(
    ("sentence", "parts"),
    [
        ("the smal house falls", ["'smal'", "'small'"]),
        ("the houze falls", ["'houze'", "'house' or 'houses'"]),
        ("The house falls", ["'The'", "'the'"]),
        ("the xyzzy falls", ["'xyzzy'", "begin: the a some"]),
        ("the house falls.", ["'falls.'", "'falls'"]),
    ],
)
def test_an_unknown_word_is_named_with_those_like_it(translate_run, capsys, sentence, parts):
    assert cli.main(["decode", str(translate_run), sentence]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert [part for part in parts if part not in err] == []


def test_words_label_the_attention(translate_run):
    pytest.importorskip("matplotlib")
    from minitransformer import figures

    model = mt.load_model(translate_run)
    figure = figures.attention_figure(model, VOCABULARY, "the house falls", ["cross"])
    keys = [label.get_text() for label in figure.axes[-1].get_xticklabels()]  # below the last layer
    assert keys == ["the", "house", "falls", "</s>"] * model.config.n_heads
    for panel in figure.axes:
        written = [label.get_text() for label in panel.get_yticklabels()]
        assert written[0] == "<s>" and set(written[1:]) <= set(VOCABULARY.symbols)
