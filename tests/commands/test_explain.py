"""`minitransformer explain`: a page of one input, beside the run or where it is asked for."""

import json

import pytest
from command_line import assert_refused, call, contents, the_object


def data_of(path):
    return json.loads(path.read_text("utf-8").split('id="data">')[1].split("</script>")[0])


def test_explain_writes_a_page_into_the_run(capsys, run):
    assert call("explain", run, "--input", "1 2 3", "--json") == 0
    page = run / "explain.html"
    assert the_object(capsys) == {"explain": str(page), "bytes": page.stat().st_size}
    assert data_of(page)["tokens"]["source"] == ["1", "2", "3", "</s>"]
    assert call("explain", run) == 0  # a held-out input, and the old page is replaced
    assert capsys.readouterr().out == f"{page}\n"
    assert data_of(page)["tokens"]["source"] != ["1", "2", "3", "</s>"]


def test_explain_of_a_chosen_target_into_a_chosen_file(capsys, run, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("old")
    arguments = ["--input", "1 2 3", "--target", "4 4", "--layers", "1", "--check", "--weights", "best"]
    assert call("explain", run, *arguments, "--out", page) == 0
    assert capsys.readouterr().out == f"{page}\n"
    data = data_of(page)
    assert data["tokens"]["written"] == ["4", "4", "</s>"] and data["layers"] == [0]
    assert max(parameter["error"] for parameter in data["parameters"]) < 1e-10
    assert not (run / "explain.html").exists()


@pytest.mark.parametrize(
    "arguments, parts",
    {
        "unknown": (["--input", "3 99 4"], ["'99'"]),
        "empty": (["--input", ""], ["empty"]),
        "blank": (["--input", "  "], ["empty"]),
        "too long": (["--input", " ".join(["3"] * 40)], ["max_len=16"]),
        "unknown target": (["--target", "<script>"], ["'<script>'"]),
        "empty target": (["--target", ""], ["empty"]),
        "too long a target": (["--input", "3", "--target", " ".join(["3"] * 16)], ["max_len=16", "17"]),
        "no such layer": (["--layers", "1", "2"], ["layers", "1 … 1", "2"]),
        "a layer that is no number": (["--layers", "first"], ["first"]),
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_explain_cannot_use_is_refused(capsys, run, tmp_path, arguments, parts):
    words, said = parts
    assert_refused(capsys, tmp_path, ["explain", run, *words], *said)


def test_a_folder_in_the_place_of_the_page_is_refused(capsys, run, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    assert_refused(capsys, tmp_path, ["explain", run, "--out", folder], "folder")
    assert_refused(capsys, tmp_path, ["explain", run, "--out", tmp_path / "none" / "page.html"], "page.html")


def test_a_page_that_would_be_too_large_is_refused(capsys, run, tmp_path, monkeypatch):
    monkeypatch.setattr("minitransformer.figures.page.MOST_NUMBERS", 100)
    assert_refused(capsys, tmp_path, ["explain", run], "100 numbers", "--layers")


def test_a_page_that_is_shown_leaves_the_rest_of_the_run_alone(capsys, run):
    before = contents(run)
    assert call("explain", run, "--check") == 0
    after = contents(run)
    del after["explain.html"]
    assert after == before
