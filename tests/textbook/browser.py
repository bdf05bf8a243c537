"""A page of the site as a reader sees it: opened in a browser, in both themes, on a phone and on a desk."""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = {"phone": 390, "desk": 1280, "wide desk": 1500}
THEMES = ("light", "dark")

# Formulas are typeset, fonts and images have come, what is folded is open.
READY = """
const done = arguments[arguments.length - 1];
document.querySelectorAll("details").forEach(details => details.open = true);
(async () => {
    if (window.MathJax?.startup) await MathJax.startup.promise;
    await document.fonts.ready;
    await Promise.allSettled([...document.images].map(image => image.decode()));
    for (let i = 0; i < 3; i++) await new Promise(requestAnimationFrame);
})().then(() => done());
"""

# What is wrong with the page as it looks now, in the theme arguments[0].
PROBLEMS = """
const theme = arguments[0], problems = [];
const root = document.documentElement;
const seen = element => {
    const box = element.getBoundingClientRect();
    return box.width > 0 && box.height > 0 && element.checkVisibility({visibilityProperty: true});
};
const name = element => element.outerHTML.slice(0, 100);
for (const frame of [root, ...document.querySelectorAll(".page, .main, .content")]) {
    if (frame.scrollWidth <= frame.clientWidth) continue;
    const scrolls = element => element !== frame && getComputedStyle(element).overflowX !== "visible";
    const isFree = element => {
        while (element !== frame && !scrolls(element)) element = element.parentElement;
        return element === frame;
    };
    const isWide = element => element.getBoundingClientRect().right > root.clientWidth;
    const wide = [...frame.querySelectorAll("*")].filter(element => isWide(element) && isFree(element));
    problems.push(`wider than the screen: ${frame.scrollWidth} px, ${wide.slice(0, 2).map(name)}`);
}
for (const formula of document.querySelectorAll(".math")) {
    const set = formula.querySelector("mjx-container");
    if (!set || !seen(set)) problems.push(`formula not rendered: ${formula.textContent.slice(0, 60)}`);
    else if (set.querySelector("mjx-merror")) problems.push(`formula with an error: ${name(set)}`);
}
for (const figure of document.querySelectorAll(".book-figure")) {
    const shown = [...figure.querySelectorAll("img")].filter(seen);
    if (shown.length !== 1 || !shown[0].classList.contains(`only-${theme}`))
        problems.push(`figure not shown in the theme: ${name(figure)}`);
}
for (const image of document.querySelectorAll("article img")) {
    if (!image.naturalWidth) problems.push(`image without a picture: ${name(image)}`);
    if (!image.alt) problems.push(`image without a text: ${name(image)}`);
    if (!seen(image) && !/only-(light|dark)/.test(image.className)) problems.push(`image not shown: ${name(image)}`);
}
for (const drawing of document.querySelectorAll("svg[role=img], svg[role=group]"))
    if (!seen(drawing)) problems.push(`drawing not shown: ${name(drawing)}`);
for (const link of document.querySelectorAll("article a[href^='#']")) {
    const target = decodeURIComponent(link.getAttribute("href").slice(1));
    if (target && !document.getElementById(target)) problems.push(`link to nowhere: #${target}`);
}
const [red] = getComputedStyle(document.body).backgroundColor.match(/\\d+/g);
if ((red > 127) !== (theme === "light")) problems.push(`not in the ${theme} theme`);
return problems;
"""


def not_here(reason: str) -> None:
    """Skip, or fail where somebody asked for these tests."""
    if "MINITRANSFORMER_SITE" in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)


def installed() -> tuple[str, str] | None:
    """Where the browser and its driver are, if both are there."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address at which the files of `folder` can be read."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=folder)
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def opened(browser: str, driver: str) -> Iterator[Any]:
    """A browser that keeps a record of its console and its requests, and reaches no other host."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for argument in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "disable-extensions",
    ):
        options.add_argument(f"--{argument}")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    window = webdriver.Chrome(options=options, service=Service(driver))
    try:
        window.set_script_timeout(30)
        yield window
    finally:
        window.quit()


def problems_of(window: Any, address: str) -> list[str]:
    """What is wrong with a page: on a phone and on a desk, in both themes."""
    for kind in ("browser", "performance"):
        window.get_log(kind)  # what the page before left
    found = []
    look(window, "light", WIDTHS["phone"])
    window.get(address)
    for theme in THEMES:
        for screen, width in WIDTHS.items():
            look(window, theme, width)
            window.execute_async_script(READY)
            found += [f"{screen}, {theme}: {text}" for text in window.execute_script(PROBLEMS, theme)]
    found += [
        f"console: {entry['message']}" for entry in window.get_log("browser") if entry["level"] == "SEVERE"
    ]
    return found + [
        f"request to another host: {url}" for url in requests_of(window) if is_foreign(url, address)
    ]


def look(window: Any, theme: str, width: int) -> None:
    """Let the window be `width` pixels wide, and its owner prefer a theme."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    preference = [{"name": "prefers-color-scheme", "value": theme}]
    window.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": preference})


def requests_of(window: Any) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in window.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def is_foreign(url: str, address: str) -> bool:
    here, there = urlsplit(address), urlsplit(url)
    return there.scheme not in ("data", "blob") and there.netloc != here.netloc
