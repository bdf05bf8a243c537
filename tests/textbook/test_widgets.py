"""The widgets of the textbook: operated by keyboard, and what they show compared with what the package computes.

Their pages are built here without the chapters around them, whose cells take minutes. With MINITRANSFORMER_SITE, a
missing browser or Sphinx is a failure; without it, the tests are skipped then.
"""

from __future__ import annotations

import ast
import itertools
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from browser import THEMES, WIDTHS, look, not_here, problems_of, served

import minitransformer as mt
from minitransformer.runs.estimate import training_mb

pytest.importorskip("selenium")
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```\{widget\} (\w+)\n.*?^```$", re.MULTILINE | re.DOTALL)
# Name of the widget: the chapter that it stands in.
CHAPTERS = {
    "clocks": "03-positions",
    "query": "04-attention",
    "sizes": "09-architecture",
    "beam": "11-decoding",
}
# What reaches beyond the frame of the widget.
OUTSIDE = """
const frame = document.querySelector(".widget").getBoundingClientRect();
const isOutside = box => box.width > 0 && (box.left < frame.left || box.right > frame.right);
return [...document.querySelectorAll(".widget *")].filter(part => isOutside(part.getBoundingClientRect()))
    .map(part => part.outerHTML.slice(0, 100));
"""
FOCUSABLE = "input, select, button, [tabindex='0']"


def chapter(name: str) -> str:
    return (DOCS / "textbook" / f"{CHAPTERS[name]}.md").read_text(encoding="utf-8")


def block(name: str) -> str:
    """What makes the widget, as it stands in its chapter."""
    found = [match[0] for match in BLOCK.finditer(chapter(name)) if match[1] == name]
    assert len(found) == 1
    return found[0]


def built(source: Path, site: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """A site of its own, made by the real one's settings, but without running a cell."""
    only = "extensions=myst_parser,sphinx_design,widgets"
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "-b",
        "html",
        "-c",
        DOCS,
        "-D",
        only,
        *options,
        source,
        site,
    ]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the four widgets can be seen, each on a page of its own with the site's theme."""
    for package in ("sphinx", "myst_nb", "sphinx_design", "furo", "sphinx_copybutton"):
        try:
            __import__(package)
        except ImportError:
            not_here(f"{package} is not installed: pip install '.[docs]'")
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("widgets")
    for name in CHAPTERS:
        (source / f"{name}.md").write_text(f"# A page\n\n{block(name)}\n", encoding="utf-8")
    names = "\n".join(CHAPTERS)
    (source / "index.md").write_text(f"# Widgets\n\n```{{toctree}}\n{names}\n```\n", encoding="utf-8")
    done = built(source, site)
    assert done.returncode == 0, done.stderr
    with served(site) as address:
        yield address


@pytest.fixture
def place(request: Any, window: Any, address: str) -> Any:
    """The widget that the test is about, on a desk; at the end, the console must be clean."""
    window.get_log("browser")
    look(window, "light", WIDTHS["desk"])
    window.get(f"{address}/{request.param}.html")
    settle(window)
    yield one(window, ".widget-body")
    assert not [entry for entry in window.get_log("browser") if entry["level"] == "SEVERE"]


def about(*names: str) -> Any:
    """A test of these widgets, `place`."""
    return pytest.mark.parametrize("place", names, indirect=True)


def one(parent: Any, selector: str) -> Any:
    return parent.find_element(By.CSS_SELECTOR, selector)


def all_of(parent: Any, selector: str) -> list[Any]:
    found: list[Any] = parent.find_elements(By.CSS_SELECTOR, selector)
    return found


def control(place: Any, name: str) -> Any:
    """The control of this name, as assistive technology calls it."""
    return next(x for x in all_of(place, FOCUSABLE) if x.accessible_name == name)


def set_to(slider: Any, value: float) -> None:
    """Move a slider with the arrow keys, one step at a time."""
    step = float(slider.get_dom_attribute("step") or 1)
    steps = round((value - float(slider.get_property("value"))) / step)
    slider.send_keys(*[Keys.ARROW_RIGHT if steps > 0 else Keys.ARROW_LEFT] * abs(steps))
    assert float(slider.get_property("value")) == pytest.approx(value)


def choose(select: Any, value: str) -> None:
    """Take the option of this value with the arrow keys."""
    values = [option.get_property("value") for option in all_of(select, "option")]
    steps = values.index(value) - values.index(select.get_property("value"))
    select.send_keys(*[Keys.ARROW_DOWN if steps > 0 else Keys.ARROW_UP] * abs(steps))
    assert select.get_property("value") == value


def numbers(text: str) -> list[float]:
    """The numbers that a text holds, as the page writes them: 1,000.5 and −1."""
    written = text.replace("−", "-").replace(",", "")
    return [float(x) for x in re.findall(r"-?\d+(?:\.\d+)?", written)]


def texts_of(place: Any, table: int = 0) -> list[list[str]]:
    """The text of each cell of a table, asked for all at once."""
    read = (
        "const rows = arguments[0].querySelectorAll('table')[arguments[1]].tBodies[0].rows;"
        "return [...rows].map(row => [...row.cells].map(cell => cell.innerText.trim()))"
    )
    found: list[list[str]] = place.parent.execute_script(read, place, table)
    return found


def result(place: Any) -> str:
    return str(one(place, ".result").text)


def settle(window: Any) -> None:
    frames = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
    window.execute_async_script(frames)


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_widget_fits_a_phone_and_a_desk_in_both_themes(name: str, window: Any, address: str) -> None:
    assert problems_of(window, f"{address}/{name}.html") == []
    for theme, width in itertools.product(THEMES, WIDTHS.values()):
        look(window, theme, width)
        settle(window)
        assert window.execute_script(OUTSIDE) == []


@about(*CHAPTERS)
def test_the_tabulator_key_reaches_every_control_and_the_focus_shows(place: Any, window: Any) -> None:
    wanted = all_of(place, FOCUSABLE)
    window.execute_script("arguments[0].focus({focusVisible: true})", wanted[0])
    for expected in wanted:
        focused = window.switch_to.active_element
        assert focused == expected and focused.accessible_name.strip()
        assert focused.value_of_css_property("outline-style") != "none"
        assert min(focused.rect["height"], max(focused.rect["width"], 24)) >= 18
        focused.send_keys(Keys.TAB)


@about(*CHAPTERS)
def test_all_words_have_come_from_the_page(place: Any) -> None:
    assert not re.search(r"undefined|NaN|[{}]|\[object", place.get_attribute("outerHTML"))
    assert place.accessible_name and one(place, "[role=status]").text


@pytest.mark.parametrize("name", CHAPTERS)
def test_without_javascript_there_is_a_sentence(name: str, window: Any, address: str) -> None:
    window.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        window.get(f"{address}/{name}.html")
        assert one(window, ".widget").text.startswith("With JavaScript, ")
        assert one(window, ".widget").text.count("\n") == 0
    finally:
        window.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_question_stands_before_a_widget_and_its_answer_is_folded_below(name: str) -> None:
    before, after = re.split(BLOCK.pattern.replace(r"(\w+)", name), chapter(name), flags=BLOCK.flags)
    question = before.strip().split("\n\n")[-1]
    assert question.startswith("**Before you ") and question.endswith("?")
    assert after.strip().startswith("```{dropdown} Answer\n")


def test_a_word_too_few_or_too_many_is_noticed(address: str, tmp_path: Path) -> None:
    (tmp_path / "index.md").write_text("# A page\n\n```{widget} clocks\nA sentence.\n\ntitel: A\n```\n")
    done = built(tmp_path, tmp_path / "site")
    assert done.returncode != 0 and "widget clocks: too many words, or too few: axis, " in done.stderr


def test_a_translation_of_the_page_is_one_of_the_widget(window: Any, tmp_path: Path) -> None:
    (tmp_path / "index.md").write_text(f"# A page\n\n{block('beam')}\n", encoding="utf-8")
    catalog = tmp_path / "locale" / "de" / "LC_MESSAGES" / "index.po"
    catalog.parent.mkdir(parents=True)
    header = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"'
    message = 'msgid "length penalty α"\nmsgstr "Abzug für die Länge α"'
    catalog.write_text(f"{header}\n\n{message}\n", encoding="utf-8")
    done = built(tmp_path, tmp_path / "site", "-D", "language=de", "-D", f"locale_dirs={tmp_path / 'locale'}")
    assert done.returncode == 0, done.stderr
    with served(tmp_path / "site") as address:
        window.get(f"{address}/index.html")
        settle(window)
        slider = control(one(window, ".widget-body"), "Abzug für die Länge α")
        assert slider.get_dom_attribute("aria-valuetext") == "0,6"
        assert "−1,284" in one(window, ".widget-body .result").text


# Positions as clock hands


def hands(place: Any, which: str) -> np.ndarray:
    """The (sine, cosine) of each hand that is drawn."""
    read = "return [...arguments[0].querySelectorAll(arguments[1])].map(x => [x.x2.baseVal.value, x.y2.baseVal.value])"
    ends = place.parent.execute_script(read, place, f".faces line.{which}")
    return (np.array(ends) - 20) / [16, -16]


@about("clocks")
def test_the_hands_and_the_curve_are_those_of_sinusoids(place: Any, window: Any) -> None:
    for d_model, p, q in ((16, 20, 24), (64, 31, 24), (8, 31, 0), (32, 99, 99)):
        choose(control(place, "d_model"), str(d_model))
        set_to(control(place, "position p"), p)
        set_to(control(place, "position q"), q)
        table = mt.layers.sinusoids(100, d_model)
        assert numbers(result(place)) == [p, q, abs(p - q), round(table[p] @ table[q], 2), d_model / 2]
        for which, position in (("p", p), ("q", q)):
            np.testing.assert_allclose(hands(place, which).ravel(), table[position], atol=1e-6)
        periods = numbers(one(place, ".faces").text)
        frequencies = 10000.0 ** (-np.arange(d_model // 2) / (d_model / 2))
        np.testing.assert_allclose(periods, 2 * np.pi / frequencies, rtol=0.05)
        points = one(place, ".curve polyline").get_dom_attribute("points").split()
        x, y = np.array([point.split(",") for point in points], dtype=float).T
        slope, height = np.polyfit(table @ table[p], y, 1)
        assert slope < 0 and abs(slope * (table @ table[p]) + height - y).max() < 1e-9
        np.testing.assert_allclose(np.diff(x), np.diff(x)[0])
        marks = {which: one(place, f".curve circle.{which}") for which in "pq"}
        for which, position in (("p", p), ("q", q)):
            mark = [float(marks[which].get_dom_attribute(name)) for name in ("cx", "cy")]
            np.testing.assert_allclose(mark, [x[position], y[position]])
        assert one(place, ".curve").accessible_name == result(place)


@about("clocks")
def test_two_positions_can_move_together(place: Any) -> None:
    p, q = control(place, "position p"), control(place, "position q")
    product = numbers(result(place))[3]
    control(place, "keep the distance").send_keys(Keys.SPACE)
    for slider, key, expected in (
        (p, Keys.ARROW_RIGHT, (21, 25)),
        (p, Keys.END, (95, 99)),
        (q, Keys.HOME, (0, 4)),
        (q, Keys.ARROW_RIGHT, (1, 5)),
    ):
        slider.send_keys(key)
        assert numbers(result(place))[:4] == [*expected, 4, product]
        assert [int(x.get_property("value")) for x in (p, q)] == list(expected)
    control(place, "keep the distance").send_keys(Keys.SPACE)
    p.send_keys(Keys.HOME)
    assert numbers(result(place))[:3] == [0, 5, 5]


# A query to drag


def rows(place: Any) -> tuple[list[str], np.ndarray, list[float], list[float], np.ndarray]:
    """What the table says: words, keys, scores, weights, values."""
    texts = [[text.replace("−∞", "-inf") for text in row] for row in texts_of(place)]
    vectors = [np.array([[float(x) for x in re.findall(r"-?[\d.]+", row[i].replace("−", "-"))] for row in texts])
               for i in (2, 5)]  # fmt: skip
    scores, weights = ([float(row[i].replace("−", "-")) for row in texts] for i in (3, 4))
    return [row[0] for row in texts], vectors[0], scores, weights, vectors[1]


def vectors_of(text: str) -> list[np.ndarray]:
    found = re.findall(r"\(([^)]*, [^)]*)\)", text.replace("−", "-"))
    return [np.array([float(x) for x in pair.split(", ")]) for pair in found]


def assert_attends(place: Any, scaled: bool, temperature: float, allowed: list[bool]) -> np.ndarray:
    """The widget shows what the package's own attention gives; returns the query."""
    words, K, scores, weights, V = rows(place)
    q, mixture = vectors_of(result(place))
    expected = K @ q / (np.sqrt(2) if scaled else 1)
    np.testing.assert_allclose(scores, np.where(allowed, expected, -np.inf), atol=0.00501)
    of_package = mt.layers.softmax(expected / temperature, np.array(allowed))
    np.testing.assert_allclose(weights, of_package, atol=0.000501)
    np.testing.assert_allclose(mixture, of_package @ V, atol=0.00501)
    if scaled and any(allowed):
        layer = mt.layers.ScaledDotProductAttention()
        c, _ = layer.forward(
            q[None, None, None] / temperature, K[None, None], V[None, None], np.array([allowed])
        )
        np.testing.assert_allclose(mixture, c[0, 0, 0], atol=0.00501)
    said = re.search(r"“(.*)”, (\d\.\d+)", result(place))
    assert said and said[1] == words[int(of_package.argmax())]
    assert float(said[2]) == pytest.approx(of_package.max(), abs=0.00501)
    bars = [float(x.get_dom_attribute("style").split(":")[1].strip(" %;")) for x in all_of(place, ".bar i")]
    np.testing.assert_allclose(bars, 100 * of_package, atol=1e-9)
    return q


@about("query")
def test_a_query_moved_by_keys_attends_as_the_package_does(place: Any) -> None:
    plane, everything = one(place, ".plane.asked"), [True] * 5
    words = rows(place)[0]
    assert words == ["the", "small", "red", "house", "fall"]
    assert assert_attends(place, True, 1, everything).tolist() == [1.2, 0.8]
    plane.send_keys(*[Keys.ARROW_LEFT] * 3, *[Keys.ARROW_UP] * 2)
    assert assert_attends(place, True, 1, everything).tolist() == [0.9, 1.0]
    plane.send_keys(Keys.SHIFT + Keys.ARROW_DOWN * 2 + Keys.NULL)
    assert assert_attends(place, True, 1, everything).tolist() == [0.9, 0.0]
    control(place, "divide by √d_k").send_keys(Keys.SPACE)
    assert_attends(place, False, 1, everything)
    temperatures = (0.1, 0.2, 0.5, 1, 2, 5, 10)
    slider = control(place, "temperature τ")
    for i, temperature in enumerate(temperatures):
        set_to(slider, i)
        assert slider.get_dom_attribute("aria-valuetext") == str(temperature)
        assert_attends(place, False, temperature, everything)
    control(place, "divide by √d_k").send_keys(Keys.SPACE)
    allowed = list(everything)
    for i in (3, 1, 0, 2, 4):
        control(place, f"may be read {words[i]}").send_keys(Keys.SPACE)
        allowed[i] = False
        if any(allowed):
            assert_attends(place, True, 10, allowed)
    assert rows(place)[3] == [0] * 5 and vectors_of(result(place))[1].tolist() == [0, 0]


@about("query")
def test_the_origin_gives_the_plain_average(place: Any) -> None:
    one(place, ".plane.asked").send_keys(*[Keys.ARROW_LEFT] * 12, *[Keys.ARROW_DOWN] * 8)
    assert assert_attends(place, True, 1, [True] * 5).tolist() == [0, 0]
    assert rows(place)[3] == [0.2] * 5


@about("query")
def test_a_query_follows_the_mouse_and_a_thumb(place: Any, window: Any) -> None:
    plane = one(place, ".plane.asked")
    window.execute_script("arguments[0].scrollIntoView({block: 'center'})", plane)
    unit = plane.rect["width"] / 6.4
    start = ActionChains(window).move_to_element_with_offset(plane, round(1.2 * unit), -round(0.8 * unit))
    start.click_and_hold().move_by_offset(-round(2.2 * unit), round(1.3 * unit)).release().perform()
    np.testing.assert_allclose(assert_attends(place, True, 1, [True] * 5), [-1, -0.5], atol=0.101)
    ActionChains(window).move_by_offset(30, 30).perform()  # released: it stays
    np.testing.assert_allclose(vectors_of(result(place))[0], [-1, -0.5], atol=0.101)

    box = window.execute_script(
        "return arguments[0].querySelector('.handle').getBoundingClientRect().toJSON()", plane
    )
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for kind, shift in (("touchStart", 0), ("touchMove", 0.6), ("touchMove", 1.5), ("touchEnd", None)):
        points = [] if shift is None else [{"x": x + shift * unit, "y": y - shift * unit}]
        window.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    np.testing.assert_allclose(assert_attends(place, True, 1, [True] * 5), [0.5, 1.0], atol=0.201)
    far = {"type": "touchStart", "touchPoints": [{"x": x - 1.5 * unit, "y": y + unit}]}
    before = result(place)
    window.execute_cdp_cmd("Input.dispatchTouchEvent", far)
    window.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert result(place) == before  # a thumb beside the query scrolls the page


# A beam as a tree


class TableModel:
    """In a model's place: the next word's probabilities depend on the last word alone, as the chapter's table says."""

    def __init__(self, table: dict[str, dict[str, float]]) -> None:
        words = sorted({word for row in table.values() for word in row} - {"</s>"})
        self.symbols = ["<pad>", "<s>", "</s>", *words]
        self.config = SimpleNamespace(tgt_vocab_size=len(self.symbols), pad_id=0, max_len=50)
        self.log_p = np.full((len(self.symbols), len(self.symbols)), -np.inf)
        self.log_p[:, 2] = 0  # after a word that the table does not have
        for word, row in table.items():
            self.log_p[self.symbols.index(word)] = -np.inf
            for follower, p in row.items():
                self.log_p[self.symbols.index(word), self.symbols.index(follower)] = np.log(p)

    def start_decoding(self, src_ids: Any, max_len: int) -> Any:
        select = lambda rows, sentences: None  # noqa: E731  (a state that remembers nothing)
        return SimpleNamespace(layers=[SimpleNamespace(K=np.ones(1))], select=select)

    def decode_step(self, tokens: Any, state: Any) -> Any:
        return self.log_p[tokens]

    def text(self, ids: list[int]) -> str:
        return " ".join(self.symbols[i] for i in ids).replace("<", "‹").replace(">", "›")


def table_of_the_chapter() -> dict[str, dict[str, float]]:
    written = re.search(r"^TABLE = (\{.*?^\})", chapter("beam"), re.MULTILINE | re.DOTALL)
    assert written
    table: dict[str, dict[str, float]] = ast.literal_eval(written[1])
    return table


def found_in(place: Any) -> list[tuple[str, str, list[float]]]:
    """The rows of the table: rank, sentence, and log P, lp and score."""
    return [(rank, text, [numbers(x)[0] for x in rest]) for rank, text, *rest in texts_of(place)]


def names_in(place: Any, selector: str) -> list[str]:
    read = (
        "return [...arguments[0].querySelectorAll(arguments[1])].map(part => part.getAttribute('aria-label'))"
    )
    found: list[str] = place.parent.execute_script(read, place, selector)
    return found


@about("beam")
def test_the_beam_finds_what_the_packages_beam_search_finds(place: Any) -> None:
    model = TableModel(table_of_the_chapter())
    width, alpha = control(place, "beam"), control(place, "length penalty α")
    lp = mt.inference.beam.length_penalty
    greedy = model.text(mt.greedy_decode(model, np.zeros((1, 1), int), max_len=6)[0].tolist())
    seen = set()
    for beam, penalty in itertools.product((1, 2, 3, 6), (0.0, 0.4, 0.5, 2.0)):
        set_to(width, beam)
        set_to(alpha, penalty)
        (expected,) = mt.beam_search(model, np.zeros((1, 1), int), beam, penalty, max_len=6)
        *found, (_, by_greedy, of_greedy) = found_in(place)
        assert [text for _, text, _ in found] == [model.text(h.ids) for h in expected], (beam, penalty)
        assert [rank for rank, *_ in found] == [str(i + 1) for i in range(len(expected))]
        for hypothesis, (_, text, (log_p, length, score)) in zip(expected, found, strict=True):
            assert score == pytest.approx(hypothesis.score, abs=0.000501)
            assert length == pytest.approx(lp(len(hypothesis.ids), penalty), abs=0.000501)
            assert log_p == pytest.approx(
                hypothesis.score * lp(len(hypothesis.ids), penalty), abs=0.000501
            ), text
        assert by_greedy == greedy and of_greedy[2] <= found[0][2][2]
        assert f"“{found[0][1]}”" in result(place) and f"“{greedy}”" in result(place)
        last = names_in(place, ".tree g.best")[-1]
        assert last.startswith(f"{found[0][1]}: ") and last.endswith(", best")
        seen.add(found[0][1])
    assert seen == {"the cat ‹/s›", "my dog ‹/s›", "my dog sleeps ‹/s›"}


@about("beam")
def test_the_tree_shows_what_is_kept_and_what_is_pruned_at_each_step(place: Any) -> None:
    table = table_of_the_chapter()
    width, steps = control(place, "beam"), control(place, "steps done")
    for beam, n_steps in itertools.product((1, 2, 3), (2, 3, 4)):
        set_to(width, beam)
        set_to(steps, n_steps)
        states, alive = {}, [("<s>",)]
        log_p = {("<s>",): 0.0}
        for _ in range(n_steps):
            longer = []
            for words in alive:
                for word, p in table.get(words[-1], {}).items():
                    longer.append((*words, word))
                    log_p[longer[-1]] = log_p[words] + np.log(p)
            longer.sort(key=lambda words: -log_p[words])
            states |= {words: "kept" if rank < beam else "pruned" for rank, words in enumerate(longer)}
            alive = [words for words in longer[:beam] if words[-1] != "</s>"]
        nodes = names_in(place, ".tree g")
        assert len(nodes) == 2 + 5 + 10 + 5
        shown = {}
        for name in nodes:
            text, numbers_and_state = name.split(": ", 1)
            state = numbers_and_state.split(", ")[-1]
            if state != "not looked at":
                words = ("<s>", *text.replace("‹", "<").replace("›", ">").split())
                shown[words] = "pruned" if state == "pruned" else "kept"
                assert numbers(numbers_and_state)[1] == pytest.approx(log_p[words], abs=0.00501)
        assert shown == states
        finished = not alive
        assert bool(all_of(place, ".tree g.best")) is finished
        assert finished or result(place).startswith(f"After {n_steps} steps: {len(alive)} unfinished")


# Sizes, parameters and memory

NAMES = (
    "layers N",
    "width d_model",
    "heads h",
    "feed-forward d_ff",
    "vocabulary V",
    "sentences B",
    "tokens of each T",
)


def type_in(place: Any, sizes: dict[str, int]) -> None:
    for name, size in sizes.items():
        control(place, name).send_keys(Keys.CONTROL + "a" + Keys.NULL + str(size))


def sizes_of(place: Any) -> list[int]:
    return [int(control(place, name).get_property("value")) for name in NAMES]


def count(place: Any) -> int:
    return int(one(place, ".count").text.replace(",", ""))


def memory_of(place: Any) -> list[float]:
    """The bytes that each row of the last table says."""
    units = {"byte": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15}
    texts = [row[-1].split() for row in texts_of(place, 1)]
    return [float(x.replace(",", "")) * units[unit] for x, unit in texts]


def preset(place: Any, name: str) -> None:
    next(button for button in all_of(place, "button") if button.text == name).send_keys(Keys.ENTER)


def assert_memory(place: Any, config: mt.TransformerConfig, P: int) -> None:
    *_, B, T = sizes_of(place)
    attentions = config.n_layers * (1 if isinstance(config, mt.OneStackConfig) else 3)
    weights, gradients, adam, kept, logits, looks = memory_of(place)
    assert [weights, gradients, adam] == pytest.approx([4 * P, 4 * P, 8 * P], rel=5.01e-3)
    # what the package's own estimate of a training grows by when the batch does
    training = [mt.TrainingConfig(batch_tokens=n * B * T) for n in (1, 2)]
    once, twice = (training_mb(config, each, processes=1) for each in training)
    assert kept + logits == pytest.approx(1e6 * (twice - once), rel=5.01e-3)
    assert looks == pytest.approx(4 * attentions * B * config.n_heads * T * T, rel=5.01e-3)
    assert numbers(result(place))[1] * 1e9 == pytest.approx(
        sum(memory_of(place)), rel=0.01
    ) or "GB" not in result(place)


@about("sizes")
def test_the_parameters_are_those_of_the_packages_models(place: Any) -> None:
    preset(place, "toy")
    N, d_model, h, d_ff, V, *_ = sizes_of(place)
    toy = mt.TransformerConfig.preset("toy", V)
    assert (toy.n_layers, toy.d_model, toy.n_heads, toy.d_ff) == (N, d_model, h, d_ff)
    assert count(place) == mt.Transformer(toy).n_parameters()
    assert_memory(place, toy, count(place))
    for sizes in ((1, 6, 3, 5, 7, 2, 11), (3, 10, 5, 21, 13, 4, 6), (2, 8, 1, 32, 40, 3, 9)):
        N, d, h, d_ff, V, _, T = sizes
        type_in(place, dict(zip(NAMES, sizes, strict=True)))
        own = {"n_layers": N, "d_model": d, "n_heads": h, "d_ff": d_ff, "max_len": T}
        config = mt.TransformerConfig(V, V, **own)
        choose(control(place, "model"), "both")
        model = mt.Transformer(config)
        assert count(place) == model.n_parameters()
        assert_memory(place, config, count(place))
        shown = [numbers(row[1])[0] for row in texts_of(place, 0)]
        kinds = {"attention": 0, "feed_forward": 0, "embedding": 0, "norm": 0}
        for name, p in model.parameters().items():
            kinds[next(kind for kind in kinds if kind in name)] += p.size
        assert shown == list(kinds.values())
        choose(control(place, "model"), "decoder")
        of_gpt = {"norm": "pre", "positions": "learned", "attention_bias": True}
        one_stack = mt.OneStackConfig(V, V, **own, **of_gpt)
        assert count(place) == mt.DecoderOnly(one_stack).n_parameters()
        assert_memory(place, one_stack, count(place))


@about("sizes")
def test_the_large_presets_have_the_published_sizes(place: Any) -> None:
    of_the_book = runpy.run_path(str(DOCS / "textbook" / "solutions" / "09_architecture.py"))["n_parameters"]
    for name in ("base", "big"):
        preset(place, name)
        config = mt.TransformerConfig.preset(name)
        N, d, h, d_ff, V, B, T = sizes_of(place)
        assert (config.n_layers, config.d_model, config.n_heads, config.d_ff) == (N, d, h, d_ff)
        assert config.src_vocab_size == V and mt.TrainingConfig().batch_tokens == B * T
        assert count(place) == of_the_book(d, d_ff, N, V)
        assert_memory(place, config, count(place))
    preset(place, "GPT-3")
    N, d, h, d_ff, V, B, T = sizes_of(place)
    assert (N, d, h, d_ff, V, T) == (96, 12_288, 96, 4 * 12_288, 50_257, 2048)  # chapter 14
    assert count(place) == N * (12 * d**2 + 13 * d) + V * d + T * d + 2 * d
    pressed = [button.text for button in all_of(place, "[aria-pressed=true]")]
    assert pressed == ["GPT-3"]


@about("sizes")
def test_sizes_that_no_model_can_have_are_refused_in_words(place: Any) -> None:
    for name, size, said in (
        ("heads h", 7, "7 heads cannot share 512"),
        ("width d_model", 7, "an even one"),
        ("layers N", 0, "whole number"),
        ("tokens of each T", 10**9, "too large"),
    ):
        preset(place, "base")
        type_in(place, {name: size})
        assert said in result(place)
        assert not any(table.is_displayed() for table in all_of(place, "table"))
    preset(place, "base")
    assert count(place) == 63_045_632 and all(table.is_displayed() for table in all_of(place, "table"))
