// What the reader can move: four widgets, each a function of its place on the page and of the words that stand there
// (see _ext/widgets.py). It builds its controls, which are the browser's own, and returns what draws it anew after a
// change of one of them.
"use strict";
{
const LANGUAGE = document.documentElement.lang || "en";
let ids = 0;

/** Gives an element its attributes, which may be listeners, or false for none, and its children. */
function dressed(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
        if (typeof value === "function") element.addEventListener(name, value);
        else if (value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children);
    return element;
}
const make = (tag, attributes = {}, ...children) => dressed(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
    dressed(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

/** The words with what they leave open filled in: "{p} and {q}" with {p: 1, q: 2} is "1 and 2". */
const fill = (words, values) => words.replace(/\{(\w+)\}/g, (_, name) => values[name]);

/** A number as the page's language writes it, with a minus sign that is as wide as a plus. */
function written(x, options) {
    return x.toLocaleString(LANGUAGE, {signDisplay: "negative", ...options}).replace("-", "−");
}
const fixed = (x, digits) => written(x, {minimumFractionDigits: digits, maximumFractionDigits: digits});

const sum = numbers => numbers.reduce((a, b) => a + b, 0);
const dot = (a, b) => sum(a.map((x, i) => x * b[i]));
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

/** A control and its label, side by side. */
function labelled(words, input, ...more) {
    input.id = `widget-control-${ids++}`;
    return make("div", {class: `control ${input.type}`}, make("label", {for: input.id}, words), input, ...more);
}

/** A slider that shows where it stands: `row` for the page, `value` to read and to set. */
function slider(words, range, show = String) {
    const input = make("input", {type: "range"}), shown = make("span", {class: "shown"});
    Object.assign(input, range);
    const refresh = () => {
        shown.textContent = show(+input.value);
        input.setAttribute("aria-valuetext", shown.textContent);
    };
    input.addEventListener("input", refresh);
    refresh();
    return {
        input,
        row: labelled(words, input, shown),
        get value() { return +input.value; },
        set value(x) { input.value = x; refresh(); },
    };
}

function checkbox(words, checked) {
    const input = make("input", {type: "checkbox", checked});
    return {input, row: labelled(words, input)};
}

function choice(words, options, chosen) {
    const entries = options.map(([value, text]) => make("option", {value, selected: value === chosen}, text));
    const input = make("select", {}, ...entries);
    return {input, row: labelled(words, input)};
}

const controls = (...rows) => make("div", {class: "controls"}, ...rows);
const numbers = (...cells) => cells.map(cell => make("td", {class: "number"}, cell));
const bar = share => make("span", {class: "bar"}, make("i", {style: `width: ${100 * share}%`}));
/** A table; the columns from number `first` on hold numbers. */
const table = (head, first, body) => make("table", {}, make("thead", {}, make("tr", {}, ...head.map((text, i) =>
    make("th", {scope: "col", class: i < first ? "" : "number"}, text)))), body);

/** Draws whenever the drawing's place becomes wider or narrower, with its width. Returns what draws it anew. */
function fitted(drawing, paint) {
    let width = 0;
    const redraw = () => width && paint(width);
    new ResizeObserver(([entry]) => {
        const now = Math.floor(entry.contentRect.width);
        if (now !== width) { width = now; redraw(); }
    }).observe(drawing.parentElement);
    return redraw;
}

// Positions as clock hands: sinusoids(100, d_model), with a pair of features as the hand of a clock.
function clocks(root, words) {
    const LAST = 99;
    const p = slider(words.p, {max: LAST, value: 20}), q = slider(words.q, {max: LAST, value: 24});
    const together = checkbox(words.together, false);
    const width = choice(words.width, [8, 16, 32, 64].map(d => [d, d]), 32);
    const faces = make("div", {class: "faces"});
    const curve = svg("svg", {class: "curve", role: "img"});
    const result = make("p", {class: "result", role: "status"});
    root.append(
        controls(p.row, q.row, width.row, together.row),
        make("p", {class: "note"}, words.clocks), faces,
        make("p", {class: "note"}, words.curve), make("div", {}, curve), result,
    );
    const code = (position, d) => Array.from({length: d}, (_, feature) => {
        const angle = position / 10000 ** (2 * Math.floor(feature / 2) / d);
        return feature % 2 ? Math.cos(angle) : Math.sin(angle);
    });

    const paint = fitted(curve, w => {
        const d = +width.input.value, from = code(p.value, d), h = 210;
        const products = Array.from({length: LAST + 1}, (_, position) => dot(from, code(position, d)));
        const low = Math.min(0, ...products);
        const x = position => 34 + (w - 44) * position / LAST;
        const y = product => 12 + (h - 56) * (d / 2 - product) / (d / 2 - low);
        const level = product => [
            svg("path", {class: "grid", d: `M34 ${y(product)}H${w - 10}`}),
            svg("text", {x: 28, y: y(product) + 4, "text-anchor": "end"}, product),
        ];
        const marked = (which, position) => [
            svg("path", {class: which, d: `M${x(position)} ${y(low)}V${y(products[position])}`}),
            svg("circle", {class: which, cx: x(position), cy: y(products[position]), r: 5}),
        ];
        curve.setAttribute("viewBox", `0 0 ${w} ${h}`);
        curve.replaceChildren(
            ...level(0), ...level(d / 2),
            ...[0, 20, 40, 60, 80, LAST].map(tick =>
                svg("text", {x: x(tick), y: h - 24, "text-anchor": "middle"}, tick)),
            svg("text", {x: (w + 24) / 2, y: h - 6, "text-anchor": "middle"}, words.axis),
            svg("polyline", {points: products.map((value, position) => `${x(position)},${y(value)}`).join(" ")}),
            ...products.map((value, position) => svg("circle", {cx: x(position), cy: y(value), r: 1.8})),
            ...marked("p", p.value), ...marked("q", q.value),
        );
    });

    let distance = q.value - p.value;
    function update(event) {
        const d = +width.input.value;
        if (together.input.checked && event?.target === p.input) {
            p.value = clamp(p.value, Math.max(0, -distance), Math.min(LAST, LAST - distance));
            q.value = p.value + distance;
        } else if (together.input.checked && event?.target === q.input) {
            q.value = clamp(q.value, Math.max(0, distance), Math.min(LAST, LAST + distance));
            p.value = q.value - distance;
        }
        distance = q.value - p.value;
        const [of_p, of_q] = [code(p.value, d), code(q.value, d)];
        const hand = (which, sin, cos) =>
            svg("line", {class: which, x1: 20, y1: 20, x2: 20 + 16 * sin, y2: 20 - 16 * cos});
        faces.replaceChildren(...Array.from({length: d / 2}, (_, i) => make("figure", {},
            svg("svg", {viewBox: "0 0 40 40", "aria-hidden": true},
                svg("circle", {cx: 20, cy: 20, r: 18.5}),
                hand("q", ...of_q.slice(2 * i, 2 * i + 2)), hand("p", ...of_p.slice(2 * i, 2 * i + 2))),
            make("figcaption", {}, written(2 * Math.PI * 10000 ** (2 * i / d), {maximumSignificantDigits: 2})))));
        result.textContent = fill(words.result, {
            p: p.value, q: q.value, distance: Math.abs(distance), product: fixed(dot(of_p, of_q), 2), most: d / 2,
        });
        curve.setAttribute("aria-label", result.textContent);
        paint();
    }
    return update;
}

// A query to drag: one row of attention, with keys and values in a plane.
function query(root, words) {
    const KEYS = [[-1.1, -0.8], [0.2, 1.7], [-0.7, 1.3], [1.8, 0.1], [-0.4, -1.9]];
    const VALUES = [[-1.7, -1.3], [-1.8, 1.1], [0.3, 2.0], [1.9, 0.4], [0.8, -1.8]];
    const TEMPERATURES = [0.1, 0.2, 0.5, 1, 2, 5, 10];
    const names = words.words.split(", ");
    let q = [1.2, 0.8];
    const scale = checkbox(words.scale, true);
    const temperature = slider(words.temperature, {max: 6, value: 3}, i => written(TEMPERATURES[i]));
    // A finger on the handle moves it, elsewhere on the plane the page (browsers ignore touch-action inside a drawing).
    // The handle is never drawn anew, or the finger would lose it.
    const drawn = svg("g");
    const handle = svg("circle", {class: "handle", r: 24, touchstart: event => event.preventDefault()});
    const plane = svg("svg", {
        class: "plane asked", viewBox: "0 0 320 320", tabindex: 0, role: "application", "aria-label": words.move,
        keydown: key, pointerdown: grab, pointermove: drag,
    }, drawn, handle);
    const values = svg("svg", {class: "plane", viewBox: "0 0 320 320", role: "img", "aria-label": words.values});
    const result = make("p", {class: "result", role: "status"});
    const rows = names.map(name => {
        const may = fill(words.allowed, {word: name});
        const allowed = make("input", {type: "checkbox", checked: true, "aria-label": may});
        const cells = numbers("", "", "", ""), first = make("th", {scope: "row"}, name);
        return {allowed, cells, row: make("tr", {}, first, make("td", {}, allowed), ...cells)};
    });
    const head = [words.name, fill(words.allowed, {word: ""}), words.key, words.score, words.weight, words.value];
    root.append(
        controls(scale.row, temperature.row),
        make("div", {class: "planes"},
            make("figure", {}, plane, make("figcaption", {}, words.plane)),
            make("figure", {}, values, make("figcaption", {}, words.values))),
        result, table(head, 2, make("tbody", {}, ...rows.map(({row}) => row))),
    );

    const at = ([x, y]) => [160 + 50 * x, 160 - 50 * y];
    const pair = ([x, y]) => `(${fixed(x, 1)}, ${fixed(y, 1)})`;
    function move(x, y) {
        q = [x, y].map(number => clamp(Math.round(10 * number) / 10, -3, 3));
        update();
    }
    function key(event) {
        const [x, y] = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]}[event.key] ?? [];
        if (x === undefined) return;
        event.preventDefault();
        const step = event.shiftKey ? 0.5 : 0.1;
        move(q[0] + step * x, q[1] + step * y);
    }
    function to(event) {
        const box = plane.getBoundingClientRect(), unit = box.width / 320 * 50;
        move((event.clientX - box.left) / unit - 3.2, 3.2 - (event.clientY - box.top) / unit);
    }
    function grab(event) {
        if (event.pointerType !== "mouse" && event.target !== handle) return;
        plane.setPointerCapture(event.pointerId);
        to(event);
    }
    function drag(event) {
        if (plane.hasPointerCapture(event.pointerId)) to(event);
    }
    const axes = () => svg("path", {class: "grid", d: "M10 160H310M160 10V310"});
    const ray = (kind, from, to, width) => svg("line", {
        class: kind, x1: from[0], y1: from[1], x2: to[0], y2: to[1], "stroke-width": width});
    const label = (text, [x, y], kind = "") => svg("text", {class: kind, x, y, "text-anchor": "middle"}, text);
    const beside = ([x, y], r) => [clamp(x, 24, 296), y + (y < 160 ? -r - 6 : r + 16)];

    // As minitransformer.layers.softmax: a key that may not be read has weight 0, and so have all of them if none may.
    function attend() {
        const products = KEYS.map(k => dot(q, k) / (scale.input.checked ? Math.SQRT2 : 1));
        const scores = products.map((s, j) => rows[j].allowed.checked ? s : -Infinity);
        const top = Math.max(...scores);
        const exps = scores.map(s => s === -Infinity ? 0 : Math.exp((s - top) / TEMPERATURES[temperature.value]));
        const weights = exps.map(e => e / (sum(exps) || 1));
        return {scores, weights, mixture: [0, 1].map(axis => dot(weights, VALUES.map(v => v[axis])))};
    }
    function update() {
        const {scores, weights, mixture} = attend(), middle = at([0, 0]), mixed = at(mixture);
        const kinds = rows.map(({allowed}) => allowed.checked ? "item" : "item masked");
        const [x, y] = at(q), radius = weights.map(w => 4 + 16 * w ** 0.5);
        handle.setAttribute("cx", x);
        handle.setAttribute("cy", y);
        drawn.replaceChildren(axes(),
            ...KEYS.map((k, j) => ray(kinds[j], middle, at(k), 1 + 7 * weights[j])),
            ...KEYS.map((k, j) => svg("circle", {class: kinds[j], cx: at(k)[0], cy: at(k)[1], r: 5})),
            ...KEYS.map((k, j) => label(names[j], beside(at(k), 5), kinds[j])),
            ray("query", middle, [x, y], 3),
            svg("circle", {class: "query", cx: x, cy: y, r: 9}), label(words.query, beside([x, y], 9), "query"));
        values.replaceChildren(axes(),
            ...VALUES.map((v, j) => ray(kinds[j], mixed, at(v), 1 + 7 * weights[j])),
            ...VALUES.map((v, j) => svg("circle", {class: kinds[j], cx: at(v)[0], cy: at(v)[1], r: radius[j]})),
            ...VALUES.map((v, j) => label(names[j], beside(at(v), radius[j]), kinds[j])),
            svg("path", {class: "mixture", d: `M${mixed[0]} ${mixed[1] - 9}l9 9l-9 9l-9 -9z`}),
            label(words.mixture, [clamp(mixed[0], 40, 280), mixed[1] + 26], "mixture"));
        rows.forEach(({row, cells}, j) => {
            row.className = kinds[j];
            cells[0].textContent = pair(KEYS[j]);
            cells[1].textContent = scores[j] === -Infinity ? "−∞" : fixed(scores[j], 2);
            cells[2].replaceChildren(bar(weights[j]), fixed(weights[j], 3));
            cells[3].textContent = pair(VALUES[j]);
        });
        const most = weights.indexOf(Math.max(...weights));
        result.textContent = fill(words.result, {
            query: pair(q), word: names[most], weight: fixed(weights[most], 2),
            mixture: `(${mixture.map(number => fixed(number, 2)).join(", ")})`,
        });
    }
    return update;
}

// A beam as a tree: beam search on a table of what may follow each word, as {word: [[next word, probability], ...]}.
function beam(root, words) {
    const follows = Object.fromEntries(words.table.split("; ").map(entry => {
        const [word, ...next] = entry.split(/ → |, /);
        return [word, next.map(text => text.split(" ")).map(([follower, p]) => [follower, +p])];
    }));
    const grow = (path, logP, p) => {
        const next = follows[path.at(-1)] ?? [];
        const children = next.map(([word, q]) => grow([...path, word], logP + Math.log(q), q));
        const node = {path, logP, p, children, depth: path.length - 1};
        for (const child of children) child.parent = node;
        return node;
    };
    const start = grow([Object.keys(follows)[0]], 0, 1);
    const below = node => [node, ...node.children.flatMap(below)];
    const nodes = below(start).slice(1), leaves = nodes.filter(node => !node.children.length);
    const deepest = Math.max(...nodes.map(node => node.depth));
    const sentence = node => node.path.slice(1).join(" ");
    const greedy = [start];
    while (greedy.at(-1).children.length) {
        greedy.push(greedy.at(-1).children.reduce((best, node) => node.logP > best.logP ? node : best));
    }

    const width = slider(words.width, {min: 1, max: 6, value: 2});
    const alpha = slider(words.alpha, {max: 2, step: 0.1, value: 0.6}, x => fixed(x, 1));
    const steps = slider(words.steps, {min: 1, max: deepest, value: deepest});
    const tree = svg("svg", {class: "tree", role: "group", "aria-label": words.tree});
    const sign = (kind, text) => make("span", {},
        svg("svg", {viewBox: "0 0 30 12", "aria-hidden": true}, svg("path", {class: kind, d: "M1 6H29"})), text);
    const result = make("p", {class: "result", role: "status"}), body = make("tbody");
    root.append(
        controls(width.row, alpha.row, steps.row),
        make("div", {class: "legend"}, sign("best", words.best), sign("kept", words.kept), sign("pruned", words.pruned),
            sign("unseen", words.unseen), sign("greedy", words.greedy)),
        make("div", {}, tree), result,
        table([words.rank, words.sentence, words.logp, words.penalty, words.score], 2, body),
    );

    const penalty = length => ((5 + length) / 6) ** alpha.value;
    const score = node => node.logP / penalty(node.depth);
    // Every node that was looked at gets its state; returns what has ended, best first.
    function search() {
        for (const node of nodes) node.state = "unseen";
        let alive = [start];
        const ended = [];
        for (let step = 1; alive.length && step <= steps.value; step++) {
            const longer = alive.flatMap(node => node.children).sort((a, b) => b.logP - a.logP);
            longer.forEach((node, rank) => {
                node.state = rank >= width.value ? "pruned" : node.children.length ? "kept" : "ended";
            });
            ended.push(...longer.filter(node => node.state === "ended"));
            alive = longer.filter(node => node.state === "kept");
        }
        return {alive, ended: ended.sort((a, b) => score(b) - score(a)).slice(0, width.value)};
    }

    let onBest = new Set();
    const paint = fitted(tree, w => {
        const narrow = w < 560, row = narrow ? 44 : 36, h = row * leaves.length;
        const x = depth => depth ? 40 + (w - 40) * (depth - 1) / deepest + (narrow ? 30 : 46) : 22;
        const height = node => node.children.length
            ? sum(node.children.map(height)) / node.children.length : row * (leaves.indexOf(node) + 0.5);
        const edges = [], under = [], labels = [];
        for (const node of nodes) {
            const {parent} = node, p = fixed(node.p, 2), word = node.path.at(-1);
            const state = onBest.has(node) ? "best" : node.state;
            const letters = parent.path.at(-1).length + (narrow ? 0 : 6);  // of the text that the line starts from
            const [x1, y1] = [x(parent.depth) + (parent.depth ? Math.max(6.7 * letters, 32) : 14), height(parent)];
            const [x2, y2] = [x(node.depth) - 5, height(node)];
            const d = `M${x1} ${y1}C${(x1 + x2) / 2} ${y1} ${(x1 + x2) / 2} ${y2} ${x2} ${y2}`;
            if (greedy.includes(node)) under.push(svg("path", {class: "greedy", d}));
            edges.push(svg("path", {class: state, d}));
            const logP = state === "unseen" ? [] : [fixed(node.logP, 2)];
            const lines = [...(narrow ? [word, p] : [`${word}  ${p}`]), ...logP];
            const said = [p, ...logP.map(number => `${words.logp} ${number}`), words[state]].join(", ");
            labels.push(svg("g", {role: "img", "aria-label": `${sentence(node)}: ${said}`, class: state},
                ...lines.map((text, i) => svg("text", {x: x2 + 5, y: y2 + 11 + 14 * (i - lines.length / 2)}, text))));
        }
        tree.setAttribute("viewBox", `0 0 ${w} ${h}`);
        const first = svg("text", {x: x(0), y: height(start) + 4, "text-anchor": "middle"}, start.path[0]);
        tree.replaceChildren(...under, ...edges, ...labels, first);
    });

    function update() {
        const {alive, ended} = search(), chosen = greedy.at(-1);
        const best = alive.length ? undefined : ended[0];
        onBest = new Set(nodes.filter(node => best && node.path.every((word, i) => word === best.path[i])));
        const row = (rank, node, kind) => make("tr", {class: kind},
            make("td", {}, rank), make("td", {}, sentence(node)),
            ...numbers(...[node.logP, penalty(node.depth), score(node)].map(x => fixed(x, 3))));
        body.replaceChildren(
            ...ended.map((node, i) => row(i + 1, node, node === best ? "best" : "")),
            row(words["by-greedy"], chosen, "greedy"));
        result.textContent = best
            ? fill(words.result, {best: sentence(best), score: fixed(score(best), 3), greedy: sentence(chosen),
                                  other: fixed(score(chosen), 3)})
            : fill(words.unfinished, {step: steps.value, alive: alive.length, ended: ended.length});
        paint();
    }
    return update;
}

// Sizes, parameters and memory: those of mt.Transformer, or of a decoder alone with GPT's biases and learned positions.
function sizes(root, words) {
    const NAMES = ["layers", "d_model", "heads", "d_ff", "vocabulary", "batch", "length"];
    const MOST = [1000, 1e5, 1e4, 1e6, 1e7, 1e6, 1e6];
    const PRESETS = {
        toy: ["both", 2, 64, 4, 256, 30, 32, 20],
        base: ["both", 6, 512, 8, 2048, 37000, 250, 100],
        big: ["both", 6, 1024, 16, 4096, 37000, 250, 100],
        "GPT-3": ["decoder", 96, 12288, 96, 49152, 50257, 1, 2048],
    };
    const KINDS = ["attention", "feed-forward", "embedding", "rest"];
    const MEMORY = ["weights", "gradients", "adam", "kept", "logits", "looks"];
    const family = choice(words.family, [["both", words.both], ["decoder", words.decoder]], "both");
    const fields = NAMES.map((name, i) => make("input", {
        type: "number", required: true, min: 1 + (name === "d_model"), max: MOST[i], step: 1 + (name === "d_model")}));
    const buttons = Object.entries(PRESETS).map(([name, sizes]) =>
        make("button", {type: "button", click: () => { set(sizes); update(); }}, name));
    const count = make("strong", {class: "count"}), stack = make("div", {class: "stack", "aria-hidden": true});
    const shares = make("tbody"), memory = make("tbody"), result = make("p", {class: "result", role: "status"}, count);
    const tables = make("div", {class: "tables"},
        make("div", {}, stack, table(["", words.parameters, words.share], 1, shares)),
        table(["", words.memory], 1, memory));
    root.append(
        make("div", {class: "presets", role: "group", "aria-label": words.presets}, ...buttons),
        controls(family.row, ...fields.map((input, i) => labelled(words[NAMES[i]], input))),
        result, tables,
    );
    function set([kind, ...numbers]) {
        family.input.value = kind;
        fields.forEach((input, i) => { input.value = numbers[i]; });
    }

    /** How many parameters are where. Heads side by side are as wide as the model, so their number does not matter. */
    function parameters(both, N, d, d_ff, V, T) {
        const attentions = both ? 3 * N : N, networks = both ? 2 * N : N, norms = both ? 5 * N : 2 * N + 1;
        return [
            attentions * (4 * d * d + (both ? 0 : 4 * d)),
            networks * (2 * d * d_ff + d_ff + d),
            V * d + (both ? 0 : T * d),
            norms * 2 * d,
        ];
    }
    /** Bytes of a training step with numbers of four bytes; what layers keep is counted as in runs/estimate.py. */
    function bytes(both, N, d, h, d_ff, V, B, T, P) {
        const layer = both ? 17 * d + 4 * d_ff : 6 * d + 2 * d_ff;
        const scores = (both ? 3 * N : N) * B * h * T * T;
        return [P, P, 2 * P, B * T * N * layer, B * T * 2.2 * V, scores].map(n => 4 * n);
    }
    function inBytes(n) {
        const UNITS = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte", "petabyte"];
        const power = Math.min(Math.floor(Math.log10(n) / 3), UNITS.length - 1);
        return written(n / 1000 ** power, {style: "unit", unit: UNITS[power], maximumSignificantDigits: 3});
    }
    function update() {
        const both = family.input.value === "both", [N, d, h, d_ff, V, B, T] = fields.map(input => +input.value);
        const valid = fields.every(input => input.validity.valid), divides = valid && d % h === 0;
        const now = String([family.input.value, N, d, h, d_ff, V, B, T]);
        Object.values(PRESETS).forEach((sizes, i) => buttons[i].setAttribute("aria-pressed", String(sizes) === now));
        tables.hidden = !divides;
        if (!divides) {
            result.textContent = valid ? fill(words.indivisible, {heads: h, d_model: d}) : words.number;
            return;
        }
        const counts = parameters(both, N, d, d_ff, V, T), P = sum(counts);
        const sizes = bytes(both, N, d, h, d_ff, V, B, T, P), total = sum(sizes);
        count.textContent = written(P);
        const [before, after] = fill(words.total, {parameters: "#", memory: inBytes(total)}).split("#");
        result.replaceChildren(before, count, after);
        stack.replaceChildren(...counts.map((n, i) => make("i", {class: KINDS[i], style: `width: ${100 * n / P}%`})));
        shares.replaceChildren(...counts.map((n, i) => make("tr", {},
            make("th", {scope: "row"}, make("i", {class: `swatch ${KINDS[i]}`}), words[KINDS[i]]),
            ...numbers(written(n), written(n / P, {style: "percent", minimumFractionDigits: 1})))));
        memory.replaceChildren(...sizes.map((n, i) => make("tr", {},
            make("th", {scope: "row"}, words[MEMORY[i]]), make("td", {class: "number"}, bar(n / total), inBytes(n)))));
    }
    set(PRESETS.base);
    return update;
}

for (const [name, build] of Object.entries({clocks, query, beam, sizes})) {
    for (const place of document.querySelectorAll(`.widget-${name}`)) {
        const texts = [...place.querySelectorAll(".word")];
        const words = Object.fromEntries(texts.map(p => [p.classList[1], p.textContent]));
        const root = make("section", {class: "widget-body", "aria-label": words.title});
        place.replaceChildren(root);
        root.append(make("p", {class: "widget-title"}, words.title));
        const update = build(root, words);
        root.addEventListener("input", update);
        update();
    }
}
}
