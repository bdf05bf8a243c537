"""The page of `minitransformer explain` in a browser: mouse, keyboard, both themes, a phone and a desk.

With MINITRANSFORMER_SITE, a missing browser is a failure; without it, the tests are skipped then.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import THEMES, WIDTHS, look, problems_of, requests_of
from drawn_models import random_model

import minitransformer as mt
from minitransformer.figures import explain
from minitransformer.figures.recording import record

pytest.importorskip("selenium")
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

# Text that is none of a page's own: markup, quotes, right-to-left, an emoji, a long word, nothing.
SYMBOLS = [
    "<pad>",
    "<s>",
    "</s>",
    "<script>boom()</script>",
    "\"'&amp;",
    "שלום",
    "👩‍🚀",
    "Donaudampfschiff",
    "",
    "b",
]
SOURCE, TARGET = [3, 4, 5, 6, 7, 8, 9], [9, 3, 4]
VIEWS = ("tokens", "norms", "parameters", "memory")


@pytest.fixture(scope="module", params=["post", "pre"])
def page(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[mt.Transformer, str]:
    model = random_model(1, norm=request.param)
    path = tmp_path_factory.mktemp("explain") / "page.html"
    explain(model, SOURCE, TARGET, SYMBOLS, check=True).save(path)
    return model, path.as_uri()


@pytest.fixture
def opened_page(page: Any, window: Any) -> Iterator[Any]:
    """The page on a desk, at the cross-attention of the first layer; at the end, its console must be clean."""
    for kind in ("browser", "performance"):
        window.get_log(kind)
    look(window, "light", WIDTHS["desk"])
    window.get("about:blank")
    window.get(f"{page[1]}#decoder.layers.0.cross_attention")
    settle(window)
    yield window
    assert [entry["message"] for entry in window.get_log("browser")] == []
    assert {url.partition("#")[0] for url in requests_of(window)} <= {page[1], "about:blank", "data:,"}


def settle(window: Any) -> None:
    window.execute_async_script(
        "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 30)));"
    )


def all_of(window: Any, selector: str) -> list[Any]:
    return window.find_elements(By.CSS_SELECTOR, selector)


def one(window: Any, selector: str) -> Any:
    return window.find_element(By.CSS_SELECTOR, selector)


def readout(window: Any) -> str:
    return one(window, "#readout").get_property("textContent")


def button(window: Any, text: str) -> Any:
    return next(x for x in all_of(window, ".choice button") if x.text == text)


def shown(text: str) -> float:
    """The number that the page writes as `text`."""
    return float(text.replace("−", "-"))


@pytest.mark.parametrize("view", VIEWS)
def test_every_overview_fits_a_phone_and_a_desk_in_both_themes(view: str, page: Any, window: Any) -> None:
    window.get("about:blank")
    assert problems_of(window, f"{page[1]}#{view}") == []
    assert one(window, "h2").is_displayed()


def test_every_box_of_the_map_opens_its_matrices(opened_page: Any, page: Any) -> None:
    n = {"post": 2 + 4 + 2 + 6 + 2, "pre": 2 + 6 + 1 + 2 + 9 + 1 + 2}[page[0].config.norm]
    paths = [box.get_dom_attribute("data-path") for box in all_of(opened_page, "#map a")]
    assert len(paths) == len(set(paths)) == n
    for width, theme in ((WIDTHS["desk"], "light"), (WIDTHS["phone"], "dark")):
        look(opened_page, theme, width)
        settle(opened_page)
        for path in paths:
            box = one(opened_page, f"#map a[data-path='{path}']")
            assert box.accessible_name and min(box.rect["width"], box.rect["height"]) >= 24
            box.click()
            settle(opened_page)
            assert opened_page.current_url.endswith(f"#{path}")
            current = one(opened_page, "#map a[aria-current]")
            assert current.get_dom_attribute("data-path") == path
            if path == "tokens":
                continue
            drawn = all_of(opened_page, "#panel canvas")
            assert drawn and all(canvas.size["height"] > 20 for canvas in drawn), path
            assert all(canvas.accessible_name for canvas in drawn)
            wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert opened_page.execute_script(wide) <= 0, path


def test_an_address_leads_to_a_matrix(opened_page: Any, page: Any) -> None:
    opened_page.execute_script("location.hash = 'encoder.layers.1.self_attention/weights'")
    settle(opened_page)
    assert one(opened_page, "h2").text == "Self-attention, encoder layer 2"
    top = "return document.querySelector('[data-name=weights]').getBoundingClientRect().top"
    assert 0 <= opened_page.execute_script(top) < 100
    for nowhere in ("encoder.layers.9.self_attention", "%", "tokens/<b>", ""):
        opened_page.execute_script("location.hash = arguments[0]", nowhere)
        settle(opened_page)


def test_what_the_mouse_reads_is_the_librarys_number(opened_page: Any, page: Any) -> None:
    recording = record(page[0], [*SOURCE, 2], [1, *TARGET], [*TARGET, 2])
    path = "decoder.layers.0.cross_attention.attention"
    weights = recording.call(path).cache.weights[0, 1]
    dweights = recording.call(f"{path}.dropout").dinputs[0, 1]
    canvas = all_of(opened_page, "[data-name=weights] canvas")[1]
    opened_page.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    settle(opened_page)
    seen, three_digits = set(), {"rel": 5e-3}
    for x in range(-15, 56, 14):
        ActionChains(opened_page).move_to_element_with_offset(canvas, x, 20).perform()
        text = readout(opened_page)
        row, column = (int(found) - 1 for found in re.findall(r"(?:row|column) (\d+)", text))
        value, gradient = re.findall(r"weights (\S+) · dweights (\S+?)“", text)[0]
        assert shown(value) == pytest.approx(weights[row, column], **three_digits)
        assert shown(gradient) == pytest.approx(dweights[row, column], **three_digits)
        assert text.endswith("head 2") and f"“{['<s>', 'b', SYMBOLS[3], SYMBOLS[4]][row]}” (row" in text
        seen.add((row, column))
    assert len(seen) > 2
    assert len([cursor for cursor in all_of(opened_page, ".cursor") if cursor.is_displayed()]) == 2
    ActionChains(opened_page).move_to_element(one(opened_page, "h1")).perform()
    assert readout(opened_page) == ""


def test_the_keyboard_reads_every_number(opened_page: Any, page: Any) -> None:
    recording = record(page[0], [*SOURCE, 2], [1, *TARGET], [*TARGET, 2])
    dscores = recording.call("decoder.layers.0.cross_attention.attention.dropout").dinputs[0, 0]
    canvas = all_of(opened_page, "[data-name=weights] canvas")[3]  # dweights of the first head
    body = one(opened_page, "body")
    body.send_keys(Keys.TAB)
    opened_page.execute_script("arguments[0].focus({focusVisible: true})", canvas)
    canvas.send_keys(Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    text = readout(opened_page)
    assert "(row 2)" in text and "(column 3)" in text
    assert shown(re.findall(r"dweights (\S+?)“", text)[0]) == pytest.approx(dscores[1, 2], rel=2e-3)
    canvas.send_keys(Keys.END, *[Keys.ARROW_DOWN] * 9)
    assert "(row 4)" in readout(opened_page) and "(column 8)" in readout(opened_page)
    canvas.send_keys(Keys.ESCAPE)
    assert readout(opened_page) == ""


def test_the_map_and_the_choices_work_with_the_keyboard(opened_page: Any) -> None:
    box = one(opened_page, "#map a[data-path='encoder.layers.0.feed_forward']")
    box.send_keys(Keys.ENTER)
    assert one(opened_page, "h2").text == "Feed-forward, encoder layer 1"
    button(opened_page, "2").send_keys(Keys.ENTER)
    assert one(opened_page, "h2").text == "Feed-forward, encoder layer 2"
    assert opened_page.switch_to.active_element.text == "2"  # the focus stays where it was
    one(opened_page, ".views a[href='#norms']").send_keys(Keys.ENTER)
    assert one(opened_page, "h2").text == "Gradient norms"


def test_one_head_or_all(opened_page: Any) -> None:
    assert len(all_of(opened_page, "[data-name=weights] canvas")) == 2 * 3
    heads = one(opened_page, ".choice[aria-label=Head]").find_elements(By.TAG_NAME, "button")
    assert [head.text for head in heads] == ["all", "1", "2", "3"]
    heads[2].click()
    captions = all_of(opened_page, "[data-name=weights] figcaption")
    assert [caption.text for caption in captions] == ["head 2", "head 2"]


def test_lines_between_tokens_speak(opened_page: Any, page: Any) -> None:
    recording = record(page[0], [*SOURCE, 2], [1, *TARGET], [*TARGET, 2])
    weights = recording.call("decoder.layers.0.cross_attention.attention").cache.weights[0, 0]
    button(opened_page, "lines").click()
    settle(opened_page)
    queries = all_of(opened_page, "[data-name=weights] .lines")[0].find_elements(By.CSS_SELECTOR, ".query")
    assert len(queries) == 4
    for row, query in enumerate(queries):
        best = int(np.argmax(weights[row]))
        symbol, value = re.findall(r": “(.*?)” (\S+?)(?:,|$)", query.accessible_name)[0]
        assert symbol == [*SYMBOLS[3:], "</s>"][best]
        assert shown(value) == pytest.approx(weights[row, best], rel=2e-3)
    opened_page.execute_script("arguments[0].focus()", queries[1])
    assert readout(opened_page).startswith("“b”: “")


def test_the_numbers_of_a_matrix_are_also_a_table(opened_page: Any, page: Any) -> None:
    recording = record(page[0], [*SOURCE, 2], [1, *TARGET], [*TARGET, 2])
    expected = recording.call("decoder.layers.0.cross_attention.attention").dinputs[0][0, 0]
    details = all_of(opened_page, "[data-name=Q] details")[3]
    details.find_element(By.TAG_NAME, "summary").click()
    settle(opened_page)
    rows = details.find_elements(By.CSS_SELECTOR, "tbody tr")
    got = [[shown(cell.text) for cell in row.find_elements(By.TAG_NAME, "td")] for row in rows]
    np.testing.assert_allclose(got, expected, rtol=6e-3)
    assert [row.find_element(By.TAG_NAME, "th").text for row in rows][:2] == ["<s>", "b"]


def test_text_is_shown_as_text(opened_page: Any) -> None:
    heading = one(opened_page, "h1").text
    for symbol in ("<script>boom()</script>", "\"'&amp;", "שלום", "👩‍🚀"):
        assert symbol in heading
    assert len(all_of(opened_page, "script")) == 2
    answer = one(opened_page, "#about").text
    assert "A target of your own. The model's answer:" in answer


def test_the_formulas_are_those_of_the_model(window: Any, tmp_path: Path) -> None:
    model = random_model(1, positions="rotary", d_k=4, attention_bias=True, activation="gelu")
    explain(model, SOURCE, TARGET, SYMBOLS).save(tmp_path / "page.html")
    expected = {
        "decoder.layers.0.self_attention": [
            "R (x W_Q + b_Q)",
            "R (x W_K + b_K)",
            "x W_V + b_V",
            "Rᵀ dK W_Kᵀ",
        ],
        "decoder.layers.0.cross_attention": ["R (memory W_K + b_K)", "memory W_V + b_V", "plus b_O"],
        "encoder.layers.0.feed_forward": ["GELU(pre)", "dhidden · GELU′(pre)"],
        "src_embedding.positions": ["positions turn Q and K instead"],
    }
    for box, formulas in expected.items():
        window.get("about:blank")
        window.get(f"{(tmp_path / 'page.html').as_uri()}#{box}")
        settle(window)
        shown = " ".join(p.text for p in all_of(window, ".side p"))
        assert all(formula in shown for formula in formulas), (box, shown)


def test_the_overview_says_what_the_model_likes_and_what_was_checked(opened_page: Any, page: Any) -> None:
    opened_page.execute_script("location.hash = 'tokens'")
    settle(opened_page)
    recording = record(page[0], [*SOURCE, 2], [1, *TARGET], [*TARGET, 2])
    rows = one(opened_page, "#panel table").find_elements(By.CSS_SELECTOR, "tbody tr")
    assert len(rows) == 4
    for t, row in enumerate(rows):
        cells = row.find_elements(By.TAG_NAME, "td")
        assert cells[2].text == SYMBOLS[[*TARGET, 2][t]]
        loss = -recording.log_p[0, t, [*TARGET, 2][t]]
        assert shown(cells[3].text) == pytest.approx(loss, rel=1e-3)
        assert len(cells[4].find_elements(By.CSS_SELECTOR, ".token")) == 5
    button_3 = rows[2].find_element(By.TAG_NAME, "button")
    button_3.click()
    assert "Where position 3 looked" in [x.text for x in all_of(opened_page, "h3")]
    assert opened_page.switch_to.active_element.text == "3"
    opened_page.execute_script("location.hash = 'parameters'")
    settle(opened_page)
    rows = all_of(opened_page, "#panel tbody tr")
    grads = {name: np.linalg.norm(p.grad.ravel()) for name, p in recording.model.parameters().items()}
    names = [row.find_element(By.TAG_NAME, "td").text.split("\n")[0] for row in rows]
    assert names == sorted(grads, key=grads.__getitem__, reverse=True)
    assert all("gradient checked: " in row.text for row in rows)


def test_the_colours_follow_the_theme(opened_page: Any) -> None:
    pixel = "const [c] = arguments; return [...c.getContext('2d').getImageData(0.4 * c.width, c.height - 8, 1, 1).data]"
    colours = {}
    for theme in THEMES:
        look(opened_page, theme, WIDTHS["desk"])
        settle(opened_page)
        canvas = one(opened_page, "[data-name=mask] canvas")
        colours[theme] = opened_page.execute_script(pixel, canvas)
    assert colours["light"] != colours["dark"] and colours["light"][3] == colours["dark"][3] == 255


def test_a_notebooks_cell_shows_the_page(page: Any, window: Any, tmp_path: Path) -> None:
    path = tmp_path / "cell.html"
    path.write_text(
        f"<!doctype html><meta charset=utf-8>{explain(page[0], SOURCE, TARGET)._repr_html_()}",
        encoding="utf-8",
    )
    window.get(path.as_uri())
    window.switch_to.frame(one(window, "iframe"))
    one(window, "#map a[data-path='output']").click()
    assert one(window, "h2").text == "Linear"
    window.switch_to.default_content()
