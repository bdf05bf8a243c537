"""The page as a text: its numbers can be read back, nothing in it is markup that is not meant to be."""

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.figures import page
from minitransformer.figures.page import Arrays, Page, packed


def unpacked(content):
    return np.pad(np.frombuffer(content, "u1").reshape(-1, 3), ((0, 0), (1, 0))).view("<f4").ravel()


def test_numbers_are_right_to_five_digits():
    x = np.random.default_rng(0).normal(size=(50, 20)) * 10.0 ** np.arange(-10, 10)
    got = unpacked(packed(x))
    assert abs(got / x.ravel() - 1).max() <= 2**-16
    assert unpacked(packed(np.array([[True, False]]))).tolist() == [1, 0]
    odd = unpacked(packed(np.array([np.inf, -np.inf, np.nan], "float32")))
    assert odd[:2].tolist() == [np.inf, -np.inf] and np.isnan(odd[2])


def test_equal_arrays_are_kept_once():
    arrays = Arrays()
    x = np.arange(6.0).reshape(2, 3)
    assert [arrays.add(x), arrays.add(x + 1), arrays.add(x.copy()), arrays.add(x.T)] == [0, 1, 0, 2]
    assert len(arrays.texts) == 3


def test_too_many_numbers_are_refused(monkeypatch):
    monkeypatch.setattr(page, "MOST_NUMBERS", 10)
    arrays = Arrays()
    arrays.add(np.arange(6.0))
    arrays.add(np.arange(6.0))
    with pytest.raises(mt.InputError, match=r"at most 10 numbers.*fewer layers, as --layers 1"):
        arrays.add(np.arange(5.0))


def test_text_cannot_end_the_data(tmp_path):
    text = "</script><script>alert(1)</script><!--"
    shown = Page({"text": text, "number": float("nan")})
    assert text not in shown.text and "<script>alert" not in shown.text
    assert shown.text.count("</script>") == 2
    assert '"number": null' in shown.text
    path = tmp_path / "page.html"
    path.write_text("old")
    assert shown.save(path) == path and path.read_text("utf-8") == shown.text


def test_a_notebook_shows_the_page_in_a_frame():
    shown = Page({"text": '"quoted"'})._repr_html_()
    assert shown.startswith("<iframe ") and shown.endswith("</iframe>")
    assert shown.count('"') == 6  # of three attributes: the page in it has none


def test_the_page_names_no_other_host():
    assert "http" not in Page({}).text.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
