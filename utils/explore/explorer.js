"use strict";
// One example is a number i: its place on this page. `rows[i]` is its row in the data.

const ARRAYS = { int8: Int8Array, int16: Int16Array, int32: Int32Array, float32: Float32Array };
const ROWS_AT_FIRST = 10, MORE_ROWS = 50;
const DARK = matchMedia("(prefers-color-scheme: dark)");
const LEVELS = 64; // of a colour scale for numbers
const UNKNOWN = "#9aa1ab";
// Named one by one: plotly's own bar has a button that sends the chart to its company's server.
const BUTTONS = ["lasso2d", "select2d", "zoom2d", "pan2d", "resetScale2d"];
const CONFIG = {
  displaylogo: false, responsive: true, displayModeBar: true, doubleClickDelay: 500, plotlyServerURL: "",
  modeBarButtons: [BUTTONS],
  plotGlPixelRatio: Math.min(2, devicePixelRatio), // plotly's 2 would paint four times the pixels on a plain screen
};
// Safe for colour-blind readers, and no two meanings share a palette: Okabe and Ito for labels, after Tol's muted colours
// for clusters, his high contrast for heuristics, his light ones for other categories, after cividis for numbers.
const PALETTES = {
  label: ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7"],
  cluster: ["#6a5acd", "#88ccee", "#44aa99", "#117733", "#999933", "#ddcc77", "#cc6677", "#882255", "#aa4499"],
  other: ["#77aadd", "#ee8866", "#bbcc33", "#ffaabb", "#44bb99", "#aaaa00", "#99ddff", "#eedd88"],
  heuristic: ["#b4bac4", "#ddaa33", "#bb5566", "#3b6fb0"],
  correct: ["#d1495b", "#8fb8de"],
  chosen: ["#c3c8d0", "#c2185b"],
  rampOnLight: ["#00204d", "#31446b", "#666970", "#958f78", "#cbb050", "#edc918"],
  rampOnDark: ["#4a6fb5", "#6d7fa3", "#8d8d8d", "#ab9f78", "#d0bd62", "#ffe945"],
};

const element = (id) => document.getElementById(id);
const about = JSON.parse(document.querySelector(".about").textContent);
const rows = decode(about.rows);
const n = rows.length;
const chunks = [...document.querySelectorAll(".texts")].map((script) => ({ script, texts: null }));
const plots = [];
const state = { colour: null, from: null, query: "", sort: null, down: false, list: [], drawn: 0 };

function decode({ type, data }) {
  const text = atob(data), bytes = new Uint8Array(text.length);
  for (let k = 0; k < text.length; k++) bytes[k] = text.charCodeAt(k);
  return new ARRAYS[type](bytes.buffer);
}

function values(column) {
  if (!(column.values instanceof Object.getPrototypeOf(Int8Array))) column.values = decode(column.values);
  return column.values;
}

function texts(i) {
  const chunk = chunks[Math.floor(i / about.textsPerChunk)];
  chunk.texts ??= JSON.parse(chunk.script.textContent);
  return chunk.texts[i % about.textsPerChunk];
}

function shown(column, i) {
  const value = values(column)[i];
  if (column.names.length) return value < 0 ? "unknown" : column.names[value];
  if (Number.isNaN(value)) return "unknown";
  return Number.isInteger(value) ? String(value) : value.toPrecision(3);
}

function make(tag, options = {}, ...children) {
  const made = Object.assign(document.createElement(tag), options);
  made.append(...children);
  return made;
}

// ---------------------------------------------------------------------------------------------------------- colours
function palette(column) {
  if (column.group !== "Selections" && ["gold label", "prediction"].includes(column.name)) return PALETTES.label;
  const groups = { Selections: "chosen", clusters: "cluster", "HANS heuristics": "heuristic", correctness: "correct" };
  return PALETTES[groups[column.group] ?? "other"];
}

const ramp = () => (DARK.matches ? PALETTES.rampOnDark : PALETTES.rampOnLight);

function onRamp(share) {
  const stops = ramp(), at = share * (stops.length - 1), low = Math.min(Math.floor(at), stops.length - 2);
  const part = (hex, k) => parseInt(hex.slice(1 + 2 * k, 3 + 2 * k), 16);
  const mixed = [0, 1, 2].map((k) => Math.round(part(stops[low], k) * (1 - at + low) + part(stops[low + 1], k) * (at - low)));
  return `rgb(${mixed.join()})`;
}

/** Codes of the n points, 0 = unknown, and the colour of each code; for numbers also the ends of the scale. */
function colouring(column) {
  const known = values(column), codes = new Uint16Array(n);
  if (column.names.length) {
    const own = palette(column), colours = column.names.map((_, k) => own[k % own.length]);
    for (let i = 0; i < n; i++) codes[i] = known[i] + 1;
    return { codes, colours: [UNKNOWN, ...colours] };
  }
  // The ends leave out two percent each: one extreme value would make all others look alike.
  const sorted = known.filter((value) => !Number.isNaN(value)).sort();
  const low = sorted[Math.floor(0.02 * sorted.length)] ?? 0, high = sorted[Math.ceil(0.98 * sorted.length) - 1] ?? 0;
  for (let i = 0; i < n; i++) {
    const share = Math.min(1, Math.max(0, (known[i] - low) / (high - low || 1)));
    codes[i] = Number.isNaN(known[i]) ? 0 : 1 + Math.round(share * (LEVELS - 1));
  }
  const colours = Array.from({ length: LEVELS }, (_, k) => onRamp(k / (LEVELS - 1)));
  return { codes, colours: [UNKNOWN, ...colours], low, high };
}

function marker({ codes, colours }) {
  const scale = colours.flatMap((colour, k) => [[k / colours.length, colour], [(k + 1) / colours.length, colour]]);
  const size = (n > 10000 ? 4 : 7) - (innerWidth < 700);
  return { color: codes, colorscale: scale, cmin: -0.5, cmax: colours.length - 0.5, size, opacity: n > 10000 ? 0.55 : 0.75 };
}

function colourBy(column) {
  state.colour = column;
  const found = colouring(column);
  for (const plot of plots) Plotly.restyle(plot, { marker: [marker(found)] }, [0]);
  drawLegend(column, found);
  drawTable();
}

function drawLegend(column, { codes, colours, low, high }) {
  const counts = new Uint32Array(colours.length);
  for (const code of codes) counts[code]++;
  const entries = [];
  if (column.names.length) {
    if (column.names.length > palette(column).length) entries.push("Colours repeat.");
    column.names.forEach((name, k) => entries.push(legendButton(column, name, k, colours[k + 1], counts[k + 1])));
  } else {
    const bar = make("span", { className: "ramp" });
    bar.style.background = `linear-gradient(90deg, ${ramp().join()})`;
    entries.push(`${low.toPrecision(3)} or less`, bar, `${high.toPrecision(3)} or more`);
  }
  if (counts[0]) entries.push(legendButton(column, "unknown", -1, UNKNOWN, counts[0]));
  element("legend").replaceChildren(...entries);
}

function legendButton(column, name, value, colour, count) {
  const dot = make("i");
  dot.style.background = colour;
  const is = (found) => (value < 0 ? !(found >= 0) || Number.isNaN(found) : found === value);
  const onclick = () => choose(everyone().filter((i) => is(values(column)[i])), `${column.name}: ${name}`);
  return make("button", { onclick, title: "List these examples" }, dot, `${name} (${count.toLocaleString("en")})`);
}

// ------------------------------------------------------------------------------------------------------------- maps
function drawMaps() {
  about.maps.forEach((map, k) => {
    Object.assign(map, { x: decode(map.x), y: decode(map.y) });
    const plot = make("div", { className: "plot", id: `plot${k}` }), ring = make("div", { className: "ring", hidden: true });
    element("maps").append(make("div", { className: "map" }, make("h2", {}, map.title), plot, ring));
    plots.push(Object.assign(plot, { map, ring }));
  });
  const looks = marker(colouring(state.colour));
  for (const plot of plots) {
    const { map } = plot;
    const trace = {
      type: "scattergl", mode: "markers", x: map.x, y: map.y, hoverinfo: "none", marker: looks,
      selected: { marker: { opacity: 0.9 } }, unselected: { marker: { opacity: 0.08 } },
    };
    Plotly.newPlot(plot, [trace], layout(map), CONFIG);
    plot.on("plotly_hover", ({ points, event }) => show(points[0].pointIndex, event));
    plot.on("plotly_unhover", hide);
    plot.on("plotly_click", ({ points }) => clicked(points[0].pointIndex));
    // The event also comes, without a shape, when `markListed` takes an old lasso away.
    plot.on("plotly_selected", (found) =>
      (found?.lassoPoints || found?.range) && choose(found.points.map((p) => p.pointIndex), "lasso", plot));
    plot.on("plotly_deselect", () => choose(null));
    plot.on("plotly_relayout", hide);
  }
}

function layout(map) {
  const style = getComputedStyle(document.body), ink = style.color, line = style.getPropertyValue("--line");
  const axis = (text) => ({ title: { text }, gridcolor: line, zerolinecolor: line });
  return {
    xaxis: axis(map.xTitle), yaxis: axis(map.yTitle), margin: { l: 55, r: 10, t: 30, b: 45 }, font: { color: ink },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest", showlegend: false,
    modebar: { bgcolor: "rgba(0,0,0,0)", color: ink, activecolor: style.getPropertyValue("--accent") },
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "lasso", // a finger scrolls the page; the bar has the lasso
  };
}

const cluster = about.columns.find((column) => column.group === "clusters" && column.name === "cluster");

function clicked(i) {
  if (!cluster) return choose([i], `row ${rows[i]}`);
  const own = values(cluster)[i];
  choose(everyone().filter((j) => values(cluster)[j] === own), `cluster ${own}`);
}

/** Mark what the table lists; `source` keeps the lasso that was drawn on it. */
function markListed(source) {
  const selected = state.list.length === n ? null : Array.from(state.list);
  for (const plot of plots) {
    Plotly.update(plot, { selectedpoints: [selected] }, plot === source ? {} : { selections: [] }, [0]);
  }
}

/** The card of one example: near the pointer, or in the corner without one; and a ring around it on every map. */
function show(i, pointer) {
  const card = element("card"), facts = make("dl");
  const chosenBy = about.columns.filter((column) => column.group === "Selections" && values(column)[i] === 1);
  const entries = about.columns.filter((column) => column.group !== "Selections").map((c) => [c.name, shown(c, i)]);
  if (chosenBy.length) entries.push(["chosen by", chosenBy.map((column) => column.name).join(", ")]);
  for (const [name, value] of entries) {
    facts.append(make("div", {}, make("dt", {}, name), make("dd", {}, value)));
  }
  const lines = texts(i).map((text, k) => make("p", {}, make("b", {}, `${about.texts[k]} `), text));
  card.replaceChildren(...lines, make("p", {}, make("b", {}, "row "), String(rows[i])), facts);
  card.hidden = false;
  const near = pointer?.clientX !== undefined && innerWidth > 700;
  card.style.bottom = near ? "auto" : "";
  card.style.left = near ? `${Math.max(8, pointer.clientX + (pointer.clientX > innerWidth / 2 ? -20 - card.offsetWidth : 20))}px` : "";
  card.style.top = near ? `${Math.max(8, Math.min(pointer.clientY - 40, innerHeight - card.offsetHeight - 8))}px` : "";
  for (const { map, ring, offsetLeft, offsetTop, _fullLayout: { xaxis, yaxis } } of plots) {
    const x = xaxis.d2p(map.x[i]), y = yaxis.d2p(map.y[i]);
    ring.hidden = !(x >= 0 && x <= xaxis._length && y >= 0 && y <= yaxis._length);
    ring.style.left = `${offsetLeft + xaxis._offset + x}px`;
    ring.style.top = `${offsetTop + yaxis._offset + y}px`;
  }
}

function hide() {
  element("card").hidden = true;
  for (const plot of plots) plot.ring.hidden = true;
}

// ------------------------------------------------------------------------------------------------------------ table
const everyone = () => Array.from({ length: n }, (_, i) => i);

/** List these examples (null: all), in the table and bright on the maps. */
function choose(found, what = "", source = null) {
  Object.assign(state, { from: found, what });
  list();
  markListed(source);
}

function list() {
  const wanted = state.query.toLowerCase();
  let found = state.from ?? everyone();
  if (wanted) found = found.filter((i) => texts(i).some((text) => text.toLowerCase().includes(wanted)));
  const column = fields().find((field) => field.name === state.sort);
  if (column) {
    const keys = new Map(found.map((i) => [i, column.key(i)])), sign = state.down ? -1 : 1;
    const unknown = (key) => Number.isNaN(key);
    found = [...found].sort((a, b) => {
      const [p, q] = [keys.get(a), keys.get(b)];
      if (unknown(p) || unknown(q)) return unknown(p) - unknown(q);
      return p < q ? -sign : p > q ? sign : a - b;
    });
  }
  state.list = found;
  drawTable();
}

/** The columns of the table: name, text of example i, key to sort by. */
function fields() {
  const kept = about.columns.filter((column) => column.main || column === state.colour);
  return [
    { name: "row", text: (i) => String(rows[i]), key: (i) => rows[i] },
    ...about.texts.map((name, k) => ({ name, wide: true, text: (i) => texts(i)[k], key: (i) => texts(i)[k].toLowerCase() })),
    ...kept.map((column) => ({ name: column.name, text: (i) => shown(column, i), key: (i) => values(column)[i] })),
  ];
}

function drawTable() {
  const head = fields().map((field) => {
    const button = make("button", { onclick: () => sortBy(field.name) }, field.name), cell = make("th", { scope: "col" }, button);
    if (field.name === state.sort) cell.ariaSort = state.down ? "descending" : "ascending";
    return cell;
  });
  document.querySelector("#table thead").replaceChildren(make("tr", {}, ...head));
  document.querySelector("#table tbody").replaceChildren();
  state.drawn = 0;
  drawMore(ROWS_AT_FIRST);
  const what = [state.what, state.query && `texts with "${state.query}"`].filter(Boolean).join(", ");
  element("count").textContent = `${state.list.length.toLocaleString("en")} examples${what ? ` (${what})` : ""}`;
  element("exported").textContent = state.list.length;
}

function drawMore(count) {
  const columns = fields(), body = document.querySelector("#table tbody");
  for (const i of state.list.slice(state.drawn, state.drawn + count)) {
    const cells = columns.map((field) => {
      const cell = make("td", { className: field.wide ? "text" : "" }, field.text(i));
      cell.dataset.name = field.name;
      return cell;
    });
    const onfocus = () => show(i), onkeydown = moveFocus;
    body.append(make("tr", { tabIndex: body.children.length ? -1 : 0, onfocus, onblur: hide, onkeydown }, ...cells));
  }
  state.drawn = body.children.length;
  element("more").hidden = state.drawn >= state.list.length;
}

function moveFocus(event) {
  const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
  if (!step) return;
  event.preventDefault();
  event.currentTarget[step]?.focus();
}

function sortBy(name) {
  state.down = state.sort === name && !state.down;
  state.sort = name;
  list();
}

function exportRows() {
  const link = make("a", { download: "rows.txt", href: URL.createObjectURL(new Blob([state.list.map((i) => `${rows[i]}\n`).join("")])) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** A button of the comparison: examples that all Selections chose, that one chose, that only this one chose. */
function chooseCompared({ choose: how, selection }) {
  const all = about.columns.filter((column) => column.group === "Selections"), own = all[selection];
  const times = (i) => all.reduce((sum, column) => sum + values(column)[i], 0);
  const is = {
    all: (i) => times(i) === all.length,
    in: (i) => values(own)[i] === 1,
    only: (i) => values(own)[i] === 1 && times(i) === 1,
  }[how];
  choose(everyone().filter(is), { all: "chosen by all", in: own?.name, only: `only in ${own?.name}` }[how]);
  element("count").scrollIntoView({ block: "center" });
}

// ------------------------------------------------------------------------------------------------------------ start
function fillColours() {
  const select = element("colour"), groups = new Map();
  about.columns.forEach((column, k) => {
    if (!groups.has(column.group)) groups.set(column.group, make("optgroup", { label: column.group }));
    groups.get(column.group).append(make("option", { value: k }, column.name));
  });
  select.append(...groups.values());
  select.onchange = () => colourBy(about.columns[select.value]);
}

let waiting = 0;
element("search").oninput = (event) => {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    state.query = event.target.value.trim();
    list();
    markListed();
  }, 200);
};
element("everything").onclick = () => {
  element("search").value = state.query = "";
  state.sort = null;
  choose(null);
};
element("export").onclick = exportRows;
element("more").onclick = () => drawMore(MORE_ROWS);
element("compared").onclick = ({ target }) => target.dataset.choose && chooseCompared(target.dataset);
addEventListener("keydown", ({ key }) => key === "Escape" && hide());
DARK.onchange = () => {
  for (const plot of plots) Plotly.relayout(plot, layout(plot.map));
  colourBy(state.colour);
};

state.colour = about.columns[0];
state.list = everyone();
element("clicking").textContent = cluster ? "Click a point to list its cluster." : "Click a point to list it.";
fillColours();
drawMaps();
drawLegend(state.colour, colouring(state.colour));
drawTable();
document.body.dataset.ready = "yes";
