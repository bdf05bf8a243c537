// A formula in a line of text that is wider than its paragraph gets a line of its own, which scrolls.
function markWideFormulas() {
    for (const formula of document.querySelectorAll("span.math")) {
        const set = formula.querySelector("mjx-container");
        let around = formula.parentElement;
        while (getComputedStyle(around).display === "inline") around = around.parentElement;  // bold text has no width
        formula.classList.toggle("wide", set !== null && set.offsetWidth > around.clientWidth);
    }
}
window.addEventListener("load", () => window.MathJax?.startup?.promise.then(markWideFormulas));
window.addEventListener("resize", markWideFormulas);
document.addEventListener("toggle", markWideFormulas, true);
