// A formula in a line of text that is wider than its paragraph gets a line of its own, which scrolls.
function markWideFormulas() {
    for (const formula of document.querySelectorAll("span.math")) {
        const set = formula.querySelector("mjx-container");
        formula.classList.toggle("wide", set !== null && set.offsetWidth > formula.parentElement.clientWidth);
    }
}
window.addEventListener("load", () => window.MathJax?.startup?.promise.then(markWideFormulas));
window.addEventListener("resize", markWideFormulas);
document.addEventListener("toggle", markWideFormulas, true);
