// Shows, sorts, filters and plots what report/page/data.py computed. Text from data only ever becomes text nodes.
const data = JSON.parse(document.getElementById("data").textContent);
const byKey = new Map(data.columns.map((column) => [column.key, column]));
const numRuns = data.entry.length;
const PAGE = 100, EXAMPLES = 30, MAX_NAMES = 16, MAX_SVG = 400, MAX_CURVES = 10, DASH = "–", NEVER = "never";
const SETTING = ["task", "model", "dataset", "setting", "device", "gpu_name", "num_threads", "batch_size"];
const SCORES = { vqa_accuracy: "VQA accuracy", accuracy: "Accuracy" };
const MISSING_NAMES = { peak_allocated_bytes: "Peak memory", ttt_seconds: "Time to train (TTT)", ...SCORES };
const $ = (id) => document.getElementById(id);

// ---- elements ----------------------------------------------------------------------------------------------------
function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}
const breakable = (text) => text.split(/(?<=[+,(_=])/).flatMap((part, place) => (place ? [el("wbr"), part] : [part]));
const options = (select, pairs, chosen) =>
  select.replaceChildren(...pairs.map(([value, text]) => el("option", { value, selected: value === chosen }, text)));
const reason = (text) => el("p", { class: "reason" }, text);
const plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
const list = (names, most = 8) =>
  names.length > most ? `${names.slice(0, most).join(", ")} and ${names.length - most} more` : names.join(", ");

// ---- numbers as people read them: the rules of report/frames/units.py -----------------------------------------------------
const BYTES = [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]];
const TIMES = [["h", 3600, 10800], ["min", 60, 600]];
const JOULES = [["MJ", 1e6], ["kJ", 1e3]];
const COUNTS = [["G", 1e9], ["M", 1e6], ["K", 1e3]];

function unit(kind, largest) {
  const of = (units, rest) => {
    const [name, size] = units.find(([, size, from]) => largest >= (from ?? size)) ?? [rest, 1];
    return { name, size };
  };
  if (kind === "bytes") return of(BYTES, "B");
  if (kind === "seconds") return of(TIMES, "s");
  if (kind === "joules") return of(JOULES, "J");
  if (kind === "share") return { name: "%", size: 0.01 };
  if (kind === "dollars") return { name: "$", size: 1 };
  return { name: "", size: 1 };
}
function digits(value) {
  if (value === 0) return "0";
  return value.toFixed(Math.min(12, Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))))));
}
function bare(kind, value, size) {
  if (value === null || value === undefined || value === "") return DASH;
  if (value === NEVER) return NEVER;
  if (kind === "text") return value;
  if (kind === "share") return (100 * value).toFixed(1);
  if (kind === "ratio") return `${value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2)}×`;
  if (kind === "count") {
    const [name, by] = COUNTS.find(([, by]) => value >= by) ?? ["", 1];
    return name ? `${digits(value / by)} ${name}` : String(Math.round(value));
  }
  if (kind === "rate") return value >= 1000 ? Math.round(value).toLocaleString("en") : digits(value);
  if (kind === "number") return String(Number(value.toPrecision(6)));
  return digits(value / size);
}
function full(column, value) {
  const known = typeof value === "number";
  const { name, size } = unit(column.kind, known ? Math.abs(value) : 0);
  return known && name ? `${bare(column.kind, value, size)}\u00a0${name}` : bare(column.kind, value, 1);
}
const amount = (key, value) => full(byKey.get(key) ?? { kind: key.endsWith("_bytes") ? "bytes" : "seconds" }, value);
const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;
const signed = (share) => `${share < 0 ? "−" : "+"}${Math.abs(100 * share).toFixed(1)}`;
const probability = (p) => (p < 0.001 ? "p < 0.001" : `p ${p.toFixed(3)}`);
function points(difference) {
  const size = Math.abs(100 * difference).toFixed(1);
  return size === "0.0" ? "level with" : `${size} ${size === "1.0" ? "point" : "points"} ${difference > 0 ? "above" : "below"}`;
}

// ---- rows of the table: a run each, or a recipe each ----------------------------------------------------------------
const cell = (key, run) => data.runs[key]?.[run] ?? null;
const kindOf = (run) => cell("kind", run) || "run";
const runName = (run) => {
  const seed = cell("seed", run);
  return data.entry[run] + (seed === null ? "" : `, seed ${seed}`) + (kindOf(run) === "tuning" ? ", a tried rate" : "");
};
const haystacks = Array.from({ length: numRuns }, (_, run) =>
  [data.entry[run], ...["strategy", "plan", "reason", "run_id", "status", "kind"].map((key) => cell(key, run))]
    .join("\n").toLowerCase());

class Row {
  constructor(members, grouped) {
    this.members = members;
    this.grouped = grouped;
    this.first = members[0];
    this.label = data.entry[this.first];
    this.kind = kindOf(this.first);
    this.group = data.group[this.first];
    this.finished = members.filter((run) => cell("status", run) === "ok");
    this.failed = this.finished.length < members.length;
  }
  numbers(key) {
    const from = key.endsWith("_parameters") ? this.members : this.finished;
    return (this.grouped ? from : this.members).map((run) => cell(key, run)).filter((value) => typeof value === "number");
  }
  value(key) {
    if (!this.grouped) return cell(key, this.first);
    if (key === "status") return this.status();
    if (byKey.get(key)?.kind === "text" || key === "seed") {
      const values = [...new Set(this.members.map((run) => cell(key, run)).filter((v) => v !== null && v !== ""))];
      if (key === "seed") values.sort((one, other) => one - other);
      return values.length > 4 ? `${values.length} values` : values.join(", ");
    }
    const values = this.numbers(key);
    if (values.length) return values.reduce((sum, value) => sum + value, 0) / values.length;
    return this.finished.some((run) => cell(key, run) === NEVER) ? NEVER : null;
  }
  range(key) {
    const values = this.grouped && key !== "seed" ? this.numbers(key) : [];
    return values.length > 1 ? [Math.min(...values), Math.max(...values)] : null;
  }
  status() {
    const words = this.members.map((run) => cell("status", run)).filter((word) => word !== "ok");
    if (!words.length) return this.members.length > 1 ? `${this.members.length} ok` : "ok";
    const others = [...new Set(words)].join(", ");
    return this.finished.length ? `${this.finished.length} of ${this.members.length} ok, ${others}` : others;
  }
  reasons() {
    return [...new Set(this.members.map((run) => cell("reason", run)).filter(Boolean))].join("; ");
  }
}

const state = { sort: data.settings[0]?.score ?? "strategy", down: true, page: 0, examples: EXAMPLES,
  shown: new Set(data.columns.filter((column) => column.first).map((column) => column.key)) };

function filtered() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const status = $("status").value, kind = $("kind").value, setting = $("setting").value;
  const kept = [];
  for (let run = 0; run < numRuns; run++) {
    const own = cell("status", run);
    if (status && (status === "!ok" ? own === "ok" : own !== status)) continue;
    if (kind && kindOf(run) !== kind) continue;
    if (setting !== "" && data.group[run] !== Number(setting)) continue;
    if (words.every((word) => haystacks[run].includes(word))) kept.push(run);
  }
  return kept;
}
function rowsOf(runs, grouped) {
  if (!grouped) return runs.map((run) => new Row([run], false));
  const groups = new Map();
  for (const run of runs) {
    const tried = kindOf(run) === "tuning" ? `${cell("lr", run)} ${cell("head_lr", run)}` : "";
    const key = JSON.stringify([data.group[run], kindOf(run), data.entry[run], tried]);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(run);
  }
  return [...groups.values()].map((members) => new Row(members, true));
}
function sorted(rows, key, down) {
  const text = byKey.get(key)?.kind === "text";
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  const place = (row) => {
    const value = key === "strategy" ? row.label : row.value(key);
    return value === null || value === "" ? null : value === NEVER ? Infinity : value;
  };
  const decorated = rows.map((row, order) => ({ row, order, value: place(row) }));
  decorated.sort((one, other) => {
    if ((one.value === null) !== (other.value === null)) return one.value === null ? 1 : -1;
    if (one.value === null) return one.order - other.order;
    const both = typeof one.value === "number" && typeof other.value === "number" && !text;
    const difference = both ? (one.value === other.value ? 0 : one.value - other.value) : compare(one.value, other.value);
    return (down ? -difference : difference) || one.order - other.order;
  });
  return decorated.map(({ row }) => row);
}

// ---- the table -------------------------------------------------------------------------------------------------------
let rows = [];
function refresh() {
  rows = sorted(rowsOf(filtered(), $("grouped").checked), state.sort, state.down);
  state.page = Math.min(state.page, Math.max(0, Math.ceil(rows.length / PAGE) - 1));
  drawTable();
  drawExamples();
  return drawPlot();
}
function drawTable() {
  const shown = data.columns.filter((column) => state.shown.has(column.key));
  const units = new Map(shown.map((column) => {
    const values = column.kind === "text" ? [] : data.runs[column.key];
    return [column.key, unit(column.kind, values.reduce((most, v) => (typeof v === "number" && v > most ? v : most), 0))];
  }));
  const focused = document.activeElement?.dataset?.sort;
  $("table").tHead.replaceChildren(el("tr", {}, shown.map((column) => header(column, units.get(column.key)))));
  const from = state.page * PAGE, some = rows.slice(from, from + PAGE);
  $("table").tBodies[0].replaceChildren(...some.map((row) => tableRow(row, shown, units)));
  if (focused) $("table").querySelector(`[data-sort="${focused}"]`)?.focus();
  const runs = rows.reduce((sum, row) => sum + row.members.length, 0);
  const failed = rows.reduce((sum, row) => sum + row.members.length - row.finished.length, 0);
  $("count").textContent = rows.length
    ? `${$("grouped").checked ? `${plural(rows.length, "recipe")}, ` : ""}${plural(runs, "run")} of ${numRuns.toLocaleString("en")}` +
      (failed ? `; ${failed.toLocaleString("en")} did not finish` : "; all finished")
    : `No run of ${numRuns.toLocaleString("en")} fits these filters.`;
  const last = Math.ceil(rows.length / PAGE) - 1;
  const turn = (text, to, off) => el("button", { type: "button", disabled: off, onclick: () => { state.page = to; drawTable(); } }, text);
  $("pages").replaceChildren(...(last < 1 ? [] : [
    turn("Previous", state.page - 1, state.page === 0),
    el("span", {}, `rows ${from + 1}–${from + some.length} of ${rows.length.toLocaleString("en")}`),
    turn("Next", state.page + 1, state.page === last),
  ]));
}
function header(column, { name }) {
  const active = state.sort === column.key;
  const number = column.kind !== "text";
  const measure = name && column.kind !== "ratio" ? name : "";
  const arrow = active ? el("span", { class: "arrow", "aria-hidden": "true" }, state.down ? " ▼" : " ▲") : "";
  return el("th", { scope: "col", class: number ? "number" : null, "aria-sort": active ? (state.down ? "descending" : "ascending") : null },
    el("button", { type: "button", "data-sort": column.key, title: column.help, onclick: () => sortBy(column) },
      el("span", {}, column.name, measure ? el("small", {}, measure, arrow) : arrow)));
}
function sortBy(column) {
  state.down = state.sort === column.key ? !state.down : column.better === "high";
  state.sort = column.key;
  state.page = 0;
  rows = sorted(rows, state.sort, state.down);
  drawTable();
  drawExamples();
}
function tableRow(row, shown, units) {
  const clicked = (event) => { if (!event.target.closest("button, a") && !String(getSelection())) open(row); };
  const line = el("tr", { class: row.failed ? "failed" : null, onclick: clicked });
  for (const column of shown) line.append(tableCell(row, column, units.get(column.key)));
  return line;
}
function tableCell(row, column, { size }) {
  if (column.key === "strategy") {
    const tag = row.kind === "run" ? "" : el("span", { class: "tag" }, row.kind === "tuning" ? "tried rate" : row.kind);
    const where = data.settings.length > 1 && row.group >= 0 ? el("span", { class: "tag" }, data.settings[row.group].title) : "";
    return el("th", { scope: "row" }, el("button", { type: "button", class: "link", onclick: () => open(row) }, breakable(row.label || "(no name)")), " ", tag, " ", where);
  }
  if (column.key === "status") {
    const why = row.reasons();
    return el("td", { class: why ? "reason-cell" : null }, el("span", { class: "status" }, row.status()), why ? `: ${why}` : "");
  }
  const value = row.value(column.key);
  if (column.kind === "text") return el("td", { class: "reason-cell" }, value || DASH);
  if (typeof value === "string" && value !== NEVER) return el("td", { class: "number" }, value || DASH);
  const range = row.range(column.key);
  const [low, high] = (range ?? []).map((end) => bare(column.kind, end, size));
  const ends = range && low !== high ? el("small", {}, ` ${low}–${high}`) : "";
  return el("td", { class: "number" }, bare(column.kind, value, size), ends);
}
function drawColumns() {
  $("column-list").replaceChildren(...data.columns.filter((column) => !column.hidden && column.key !== "strategy").map((column) =>
    el("label", { class: "check", title: column.help },
      el("input", { type: "checkbox", checked: state.shown.has(column.key), onchange: (event) => {
        if (event.target.checked) state.shown.add(column.key); else state.shown.delete(column.key);
        drawTable();
      } }), column.name)));
  if (data.empty.length) $("column-list").append(el("p", { class: "quiet" }, `No run has filled: ${data.empty.join(", ")}.`));
}

// ---- plots -------------------------------------------------------------------------------------------------------------
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
function config() {
  const text = css("--text"), quiet = css("--quiet"), line = css("--line");
  const axis = { labelColor: quiet, titleColor: text, domainColor: line, tickColor: line, gridColor: line, gridOpacity: 0.6, titleFontWeight: 500, labelFontSize: 11, titleFontSize: 12 };
  return { background: "transparent", font: "system-ui, sans-serif", view: { stroke: null }, axis, text: { color: text },
    legend: { labelColor: text, titleColor: quiet, orient: "top", labelFontSize: 11.5, labelLimit: 320, symbolStrokeWidth: 1.8 } };
}
const embed = (host, spec, renderer = "svg") => window.vegaEmbed(host, spec,
  { actions: { export: true, source: false, compiled: false, editor: false }, renderer, config: config() });

function front(drawn, xBetter, yBetter) {
  const x = (point) => (xBetter === "low" ? point.x : -point.x), y = (point) => (yBetter === "high" ? -point.y : point.y);
  const order = [...drawn].sort((one, other) => x(one) - x(other) || y(one) - y(other));
  const kept = [];
  let best = Infinity, bestX = null;
  for (const point of order) {
    if (y(point) < best) { kept.push(point); best = y(point); bestX = x(point); }
    else if (y(point) === best && x(point) === bestX) kept.push(point);
  }
  return kept;
}
const column = (key) => byKey.get(key) ?? { key, name: MISSING_NAMES[key] ?? key, kind: "number", better: "", absent: true };
const axisTitle = (column, name) =>
  column.name + (name ? ` in ${name}` : "") + (column.better ? `, ${column.better === "low" ? "less" : "more"} is better` : "");

function plotted() {
  const x = column($("axis-x").value), y = column($("axis-y").value);
  const setting = $("setting").value === "" ? 0 : Number($("setting").value);
  const inside = rows.filter((row) => row.group === setting && row.finished.length && (row.kind !== "control" || $("show-controls").checked));
  const known = (row, key) => typeof row.value(key) === "number";
  const drawn = inside.filter((row) => known(row, x.key) && known(row, y.key));
  const most = (key) => Math.max(...drawn.map((row) => row.range(key)?.[1] ?? row.value(key)));
  const unitX = unit(x.kind, most(x.key)), unitY = unit(y.kind, most(y.key));
  const values = drawn.map((row, index) => {
    const [x0, x1] = row.range(x.key) ?? [null, null], [y0, y1] = row.range(y.key) ?? [null, null];
    const over = (value, size) => (value === null ? null : value / size);
    return { index, row: rows.indexOf(row), name: row.label, kind: row.kind, Recipe: row.label,
      Seed: String(row.value("seed") ?? DASH), [x.name]: full(x, row.value(x.key)), [y.name]: full(y, row.value(y.key)),
      x: row.value(x.key) / unitX.size, y: row.value(y.key) / unitY.size,
      x0: over(x0, unitX.size), x1: over(x1, unitX.size), y0: over(y0, unitY.size), y1: over(y1, unitY.size) };
  });
  const line = x.better && y.better ? front(values.filter((point) => point.kind !== "control"), x.better, y.better) : [];
  const among = new Set(line);
  for (const point of values) {
    point.class = point.kind === "control" ? "control" : point.kind === "baseline" ? "baseline" : among.has(point) ? "front" : "other";
  }
  values.sort((one, other) => DRAWN.indexOf(one.class) - DRAWN.indexOf(other.class));
  return { x, y, unitX, unitY, values, line, setting, lost: inside.length - drawn.length };
}
const DRAWN = ["control", "other", "front", "baseline"]; // the last on top
const CLASSES = {
  front: ["on the Pareto front", "circle", "--blue", true], other: ["not on it", "circle", "--blue", false],
  baseline: ["baseline", "diamond", "--amber", true], control: ["control, no recipe", "cross", "--grey", true],
};
function plotSpec({ x, y, unitX, unitY, values, line }, log) {
  const present = Object.keys(CLASSES).filter((name) => values.some((point) => point.class === name));
  const said = (name) => (line.length ? CLASSES[name][0] : { front: "recipe", other: "recipe" }[name] ?? CLASSES[name][0]);
  for (const point of values) {
    point.shown = said(point.class);
    point.spoken = `${point.Recipe}, seed ${point.Seed}: ${x.name} ${point[x.name]}, ${y.name} ${point[y.name]}, ${point.shown}`;
  }
  const domain = present.map(said);
  const fills = present.map((name) => (CLASSES[name][3] ? css(CLASSES[name][2]) : css("--back")));
  const legend = { columns: $("chart").clientWidth < 480 ? 2 : 4 };
  const range = (place) => present.map((name) => (place === 2 ? css(CLASSES[name][2]) : CLASSES[name][place]));
  const scale = (zero, log) => ({ zero, nice: true, padding: 14, ...(log ? { type: "log" } : {}) });
  const at = { x: { field: "x", type: "quantitative", title: axisTitle(x, unitX.name), scale: scale(false, log), axis: log ? { format: "~g" } : {} },
    y: { field: "y", type: "quantitative", title: axisTitle(y, unitY.name), scale: scale(false, false) } };
  const whisker = (a, b, channel) => ({ transform: [{ filter: `datum.${a} !== null` }], mark: { type: "rule", aria: false, opacity: 0.45, color: css("--blue") },
    encoding: { ...at, [channel]: { ...at[channel], field: a }, [`${channel}2`]: { field: b } } });
  const shape = { x: at.x, y: at.y,
    stroke: { field: "shown", type: "nominal", title: null, legend, scale: { domain, range: range(2) } },
    shape: { field: "shown", type: "nominal", title: null, legend, scale: { domain, range: range(1) } },
    fill: { field: "shown", type: "nominal", title: null, legend, scale: { domain, range: fills } },
    description: { field: "spoken" },
    tooltip: ["Recipe", "Seed", x.name, y.name].map((field) => ({ field: field.replace(/[.[\]\\'"]/g, "\\$&"), title: field })) };
  return {
    $schema: "https://vega.github.io/schema/vega-lite/v6.json", width: "container", height: 340, autosize: { type: "fit-x", contains: "padding" },
    description: `${y.name} against ${x.name}; the same figures stand in the table of runs`,
    datasets: { points: values, line, labels: [] },
    layer: [
      { data: { name: "line" }, mark: { type: "line", interpolate: x.better === "high" ? "step-before" : "step-after", color: css("--grey"), strokeWidth: 1, aria: false }, encoding: { ...at, order: { field: "x", type: "quantitative" } } },
      ...(values.some((point) => point.x0 !== null) ? [{ data: { name: "points" }, ...whisker("x0", "x1", "x") }] : []),
      ...(values.some((point) => point.y0 !== null) ? [{ data: { name: "points" }, ...whisker("y0", "y1", "y") }] : []),
      { data: { name: "points" }, mark: { type: "point", size: values.length > MAX_SVG ? 30 : 70, strokeWidth: 1.8, opacity: 1, cursor: "pointer" }, encoding: shape },
      { data: { name: "labels" }, mark: { type: "text", align: "left", baseline: "middle", fontSize: 11, tooltip: null, aria: false },
        encoding: { x: { field: "px", type: "quantitative", scale: null }, y: { field: "py", type: "quantitative", scale: null }, text: { field: "text" } } },
    ],
  };
}
const LINES = ["--blue", "--amber", "--green", "--red", "--pink"], DASHES = [[1, 0], [5, 3], [2, 2], [8, 3, 2, 3]];
let plotView = null, plotTurn = 0;
async function drawPlot() {
  const mine = ++plotTurn;
  const plot = plotted(), { x, y, values, line } = plot;
  const several = data.settings.length > 1 ? `Setting ${data.settings[plot.setting].title} only; the filter of the table chooses another. ` : "";
  plotView?.finalize();
  plotView = null;
  if (!values.length) {
    const absent = [x, y].filter((axis) => axis.absent).map((axis) => axis.key);
    const why = absent.length ? `No run has ${absent.join(" and ")}: runs.csv lacks the column, or nothing filled it. Choose another axis.`
      : `No finished run that the table shows has both ${x.name} and ${y.name}.`;
    $("chart").replaceChildren(reason(`Nothing is drawn. ${several}${why}`));
    $("chart-note").textContent = "";
    return;
  }
  $("log-x").disabled = values.some((point) => point.x <= 0);
  const log = $("log-x").checked && !$("log-x").disabled;
  const { view } = await embed($("chart"), plotSpec(plot, log), values.length > MAX_SVG ? "canvas" : "svg");
  if (mine !== plotTurn) { view.finalize(); return; }
  plotView = view;
  window.tunematrix.plot = { ...plot, log };
  view.addEventListener("click", (_, item) => { if (item?.datum?.row !== undefined) open(rows[item.datum.row]); });
  placeNames(view, plot);
  const front = line.length ? "Nothing is both cheaper and better than a recipe on the line. " : "No front: one of the axes has no better direction. ";
  const lost = plot.lost ? `Not drawn, as not measured or never reached: ${plural(plot.lost, $("grouped").checked ? "recipe" : "run")}. ` : "";
  $("chart-note").textContent = `${several}${front}${lost}A click on a point opens its record; the plot shows what the table shows.`;
}
function stairs(line, before) {
  const order = [...line].sort((one, other) => one.x - other.x);
  return order.slice(1).flatMap((to, place) => {
    const from = order[place], x = before ? from.x : to.x, y = before ? to.y : from.y;
    return [[from.x, from.y, x, y], [x, y, to.x, to.y]];
  });
}
function placeNames(view, { values, line, x }) {
  const scaleX = view.scale("x"), scaleY = view.scale("y"), width = view.width(), height = view.height();
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = "11px system-ui, sans-serif";
  const spots = values.map((point) => ({ point, x: scaleX(point.x), y: scaleY(point.y) }));
  const taken = spots.map(({ x, y }) => [x - 6, y - 6, x + 6, y + 6]);
  taken.push(...stairs(line, x.better === "high").map(([a, b, c, d]) => [
    Math.min(scaleX(a), scaleX(c)) - 1, Math.min(scaleY(b), scaleY(d)) - 1, Math.max(scaleX(a), scaleX(c)) + 1, Math.max(scaleY(b), scaleY(d)) + 1]));
  const seen = new Set(), labels = [];
  const few = new Set(values.map((point) => point.name)).size <= MAX_NAMES;
  const rank = ({ point }) => ["baseline", "front", "control", "other"].indexOf(point.class);
  for (const { point, x, y } of [...spots].sort((one, other) => rank(one) - rank(other))) {
    if (seen.has(point.name) || !(few || point.class === "front" || point.class === "baseline")) continue;
    const text = point.name.length > 34 ? `${point.name.slice(0, 16)}…${point.name.slice(-17)}` : point.name;
    const wide = pen.measureText(text).width;
    const spot = [[9, 0], [-9 - wide, 0], [-wide / 2, -14], [-wide / 2, 14], [7, -11], [7, 11], [-7 - wide, -11], [-7 - wide, 11]]
      .map(([dx, dy]) => [x + dx, y + dy - 6, x + dx + wide, y + dy + 6])
      .find((box) => box[0] >= 0 && box[2] <= width && box[1] >= 0 && box[3] <= height &&
        !taken.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3]));
    if (!spot) continue;
    seen.add(point.name);
    taken.push(spot);
    labels.push({ px: spot[0], py: spot[1] + 6, text });
  }
  view.data("labels", labels).run();
}
function curveHosts(members) {
  const found = members.map((run) => data.curves[cell("run_id", run)] ?? {});
  const keys = [...new Set(found.flatMap((curves) => Object.keys(curves)))];
  const quality = ["tune vqa_accuracy", "tune accuracy", ...keys.filter((key) => key.startsWith("tune "))].find((key) => keys.includes(key));
  const wanted = [quality, keys.find((key) => key === "train loss")].filter(Boolean);
  if (!wanted.length) return [reason("No learning curve: history.csv has no rows of this.")];
  return wanted.map((key) => {
    const host = el("div", { class: "curve" });
    const share = /accuracy|f1|precision|recall/.test(key);
    const values = members.flatMap((run, place) => {
      const [steps, seconds, measured] = found[place][key] ?? [[], [], []];
      return steps.map((step, at) => ({ run: runName(run), step, seconds: seconds[at], value: share ? 100 * measured[at] : measured[at] }));
    });
    const timed = values.every((point) => typeof point.seconds === "number");
    const names = [...new Set(members.map(runName))];
    const series = { field: "run", type: "nominal", title: null, legend: names.length > 1 ? {} : null, scale: { domain: names } };
    const spec = { $schema: "https://vega.github.io/schema/vega-lite/v6.json", width: "container", height: 190, autosize: { type: "fit-x", contains: "padding" },
      description: `Learning curve: ${key} of ${names.join(" and ")}`, data: { values },
      mark: { type: "line", point: values.length < 40 ? { size: 22 } : false, strokeWidth: 1.6 },
      encoding: {
        x: { field: timed ? "seconds" : "step", type: "quantitative", title: timed ? "training time in s" : "updates" },
        y: { field: "value", type: "quantitative", title: key.replace("tune ", "tune-set ").replace("_", " ") + (share ? " in %" : ""), scale: { zero: false } },
        color: { ...series, scale: { domain: names, range: names.map((_, place) => css(LINES[place % LINES.length])) } },
        strokeDash: { ...series, scale: { domain: names, range: names.map((_, place) => DASHES[place % DASHES.length]) } },
        tooltip: [{ field: "run", title: "run" }, { field: "step", title: "updates" }, { field: "seconds", title: "seconds", format: ".1f" }, { field: "value", title: "value", format: ".3~f" }] } };
    host.show = () => embed(host, spec);
    return host;
  });
}
function showCurves(host, members) {
  const made = curveHosts(members);
  host.replaceChildren(...made);
  return Promise.all(made.map((one) => one.show?.()));
}

// ---- one run's, or one recipe's, full record ---------------------------------------------------------------------------
const open = (row) => (row.members.length === 1 ? openRun(row.first) : openRecipe(row));
function show(title, ...body) {
  $("record-title").textContent = title;
  $("record-body").replaceChildren(...body.flat());
  if (!$("record").open) $("record").showModal();
  $("record").scrollTop = 0;
}
const facts = (pairs) => el("dl", {}, pairs.map(([name, value, help]) =>
  el("div", {}, el("dt", {}, name), el("dd", {}, value, help ? el("small", {}, help) : ""))));
const more = (title, ...body) => el("details", {}, el("summary", {}, title), ...body);

function commandBox(command, note) {
  const said = el("span", { role: "status", class: "quiet" });
  const copy = el("button", { type: "button", onclick: async () => {
    try { await navigator.clipboard.writeText(command); said.textContent = " copied"; }
    catch { getSelection().selectAllChildren(text); said.textContent = " selected; copy it with the keyboard"; }
  } }, "Copy");
  const text = el("pre", { class: "command" }, command);
  return [text, el("p", {}, copy, said, note ? el("span", { class: "quiet" }, ` ${note}`) : "")];
}
function openRun(run) {
  const record = data.records[run], status = cell("status", run), why = cell("reason", run), id = cell("run_id", run);
  const curves = el("div");
  const choose = (select, text) => el("button", { type: "button", onclick: () => {
    select.value = String(run); $("record").close(); drawComparison(); $("compare").scrollIntoView();
  } }, text);
  const columns = data.columns.filter((column) => { const value = cell(column.key, run); return value !== null && value !== ""; });
  show(runName(run),
    el("p", { class: status === "ok" ? "" : "bad" }, el("strong", {}, status), ` – ${data.statuses[status] ?? ""}`),
    why ? el("p", { class: "bad" }, why) : "",
    el("div", { class: "actions" }, choose($("first"), "Compare: take as first"), choose($("second"), "Compare: take as second")),
    el("h3", {}, "Run it again"), commandBox(record.command, record.note),
    el("h3", {}, "Learning curve"), curves,
    el("h3", {}, "Every figure of the run"), facts(columns.map((column) => [column.name, full(column, cell(column.key, run)), column.help])),
    partTable(id, data.metrics, "Quality, parts of the set included", ["set", "metric", "%"], (row) => [row[0], row[1], row[2] === null ? DASH : bare("share", row[2])]),
    partTable(id, data.sections, "Where the time went", ["section", "s"], (row) => [row[0], row[1] === null ? DASH : digits(row[1])]),
    members(run),
    el("h3", {}, "Log"), record.log ? el("pre", {}, record.log) : reason(`No log here. A run's log is runs/${id}/log.txt on the machine that ran it.`),
    record.spec ? more("Everything that decided the run", el("pre", {}, JSON.stringify(record.spec, null, 1))) : "",
    record.environment >= 0 ? more("Environment", el("pre", {}, JSON.stringify(data.environments[record.environment], null, 1))) : "",
    record.there ? el("p", {}, el("a", { href: `runs/${encodeURIComponent(id)}/record.json` }, "record.json")) : reason(`No record: runs/${id}/record.json is not there, or is no record.`));
  showCurves(curves, [run]);
}
function partTable(id, source, title, heads, cells) {
  const found = source[id] ?? [];
  if (!found.length) return "";
  const last = heads.length - 1;
  return more(`${title} (${found.length})`, el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, heads.map((head, place) => el("th", { scope: "col", class: place === last ? "number" : null }, el("span", {}, head))))),
    el("tbody", {}, found.map((row) => el("tr", {}, cells(row).map((text, place) => el("td", { class: place === last ? "number" : null }, text))))))));
}
function members(run) {
  const names = [...new Set([...(cell("plan", run) || ""), ""].join("").match(/[A-Za-z_]\w*/g) ?? [])].filter((name) => Object.hasOwn(data.cards, name));
  if (!names.length) return "";
  return [el("h3", {}, "What it is made of"), ...names.map((name) => {
    const card = data.cards[name];
    const papers = (card.papers ?? []).filter((paper) => /^https?:\/\//.test(paper));
    return el("details", {}, el("summary", {}, `${name}: ${card.summary ?? ""}`), el("pre", {}, card.text ?? ""),
      papers.length ? el("p", {}, papers.map((paper) => [el("a", { href: paper, rel: "noreferrer" }, paper), " "]).flat()) : "");
  })];
}
function openRecipe(row) {
  const columns = data.columns.filter((column) => column.kind !== "text" && row.numbers(column.key).length && column.key !== "seed");
  const curves = el("div");
  show(row.label,
    el("p", {}, `${plural(row.members.length, "run")}: ${row.status()}. `, row.reasons()),
    el("h3", {}, "Its runs"),
    el("ul", { class: "list" }, row.members.map((run) => el("li", {},
      el("button", { type: "button", class: "link", onclick: () => openRun(run) }, runName(run)), ` ${cell("status", run)}`))),
    el("h3", {}, "Learning curves"), curves,
    el("h3", {}, "Mean, lowest and highest of the finished runs"),
    facts(columns.map((column) => {
      const range = row.range(column.key);
      return [column.name, full(column, row.value(column.key)) + (range ? ` (${full(column, range[0])} – ${full(column, range[1])})` : ""), column.help];
    })),
    members(row.first));
  showCurves(curves, row.members.slice(0, MAX_CURVES));
}

// ---- compare two runs ----------------------------------------------------------------------------------------------------
function pairOf(pairs, one, other) {
  const i = pairs?.members.indexOf(one) ?? -1, j = pairs?.members.indexOf(other) ?? -1;
  if (i < 0 || j < 0 || i === j) return null;
  const n = pairs.members.length, low = Math.min(i, j), high = Math.max(i, j);
  const at = low * n - (low * (low + 1)) / 2 + high - low - 1;
  if (!pairs.questions[at]) return null;
  const found = { difference: pairs.difference[at], low: pairs.low[at], high: pairs.high[at], p: pairs.p[at], questions: pairs.questions[at],
    ahead: pairs.ahead[at], behind: pairs.behind[at], verdict: data.verdicts[pairs.verdict[at]] };
  return i < j ? found : turned(found);
}
function turned(pair) {
  const verdict = { better: "worse", worse: "better" }[pair.verdict] ?? pair.verdict;
  return { ...pair, difference: -pair.difference, low: -pair.high, high: -pair.low, ahead: pair.behind, behind: pair.ahead, verdict };
}
function runPair(one, other) {
  if (data.pairs) return pairOf(data.pairs, one, other);
  const named = (row) => ({ ...row, verdict: data.verdicts[row.verdict] });
  const straight = data.baselines.find((row) => row.run === one && row.baseline === other);
  const back = data.baselines.find((row) => row.run === other && row.baseline === one);
  return straight ? named(straight) : back ? turned(named(back)) : null;
}
const interval = (pair) => `${signed(pair.difference)} points (95 % interval ${signed(pair.low)} to ${signed(pair.high)})`;
const SAID = { equal: "equal within 1 point", better: "the first is better", worse: "the first is worse", "cannot tell": "they cannot be told apart" };

function drawComparison() {
  const one = $("first").value === "" ? -1 : Number($("first").value), other = $("second").value === "" ? -1 : Number($("second").value);
  $("comparison-chart").replaceChildren();
  $("comparison-figures").replaceChildren();
  window.tunematrix.comparison = null;
  if (one < 0 || other < 0) return $("comparison").replaceChildren(reason("Choose two runs, here or in a run's record."));
  if (one === other) return $("comparison").replaceChildren(reason("This is the same run twice; choose another."));
  const pair = runPair(one, other), said = [];
  window.tunematrix.comparison = pair;
  if (pair) {
    said.push(el("p", { class: "verdict" }, el("strong", {}, runName(one)), " minus ", el("strong", {}, runName(other)), `: ${interval(pair)}: ${SAID[pair.verdict]}.`));
    const ahead = pair.ahead === undefined ? "" : ` The first is ahead on ${pair.ahead.toLocaleString("en")}, the second on ${pair.behind.toLocaleString("en")}.`;
    said.push(el("p", { class: "quiet" }, `Mean of the differences over ${plural(pair.questions, "question")}, ${probability(pair.p)}.${ahead} This is about these two trained models alone, over other questions; with another seed it may turn round.`));
  } else {
    const dead = [one, other].filter((run) => cell("status", run) !== "ok").map(runName);
    const why = dead.length ? `${dead.join(" and ")} did not finish` : data.no_pairs || "they have no common questions, or predictions.parquet has none of one";
    said.push(reason(`No interval: ${why}.`));
  }
  said.push(aboutRecipes(one, other), differing(one, other));
  $("comparison").replaceChildren(...said.filter(Boolean));
  $("comparison-figures").replaceChildren(figures(one, other));
  return showCurves($("comparison-chart"), [one, other]);
}
function aboutRecipes(one, other) {
  if (data.group[one] !== data.group[other] || data.group[one] < 0 || data.entry[one] === data.entry[other]) return null;
  const pair = pairOf(data.settings[data.group[one]].pairs, data.entry[one], data.entry[other]);
  if (!pair) return el("p", { class: "quiet" }, "The recipes themselves cannot be compared: that takes two seeds or more that both have.");
  return el("p", {}, `As recipes, over other seeds and other questions: ${interval(pair)}, ${probability(pair.p)}: ${SAID[pair.verdict]}.`);
}
function differing(one, other) {
  const found = SETTING.filter((key) => byKey.has(key) && cell(key, one) !== cell(key, other))
    .map((key) => `${byKey.get(key).name.toLowerCase()} (${bare(byKey.get(key).kind, cell(key, one), 1)}, ${bare(byKey.get(key).kind, cell(key, other), 1)})`);
  return found.length ? el("p", { class: "bad" }, `Beware: these runs also differ in ${found.join("; ")}.`) : null;
}
function figures(one, other) {
  const measured = data.columns.filter((column) => column.better && [one, other].some((run) => typeof cell(column.key, run) === "number"));
  if (!measured.length) return reason("Neither run has a figure to compare: they did not finish, or nothing was measured.");
  const between = (column, a, b) => {
    if (typeof a !== "number" || typeof b !== "number") return DASH;
    if (column.kind === "share") return `${signed(a - b)} points`;
    return b > 0 ? `${bare("ratio", a / b, 1)}` : DASH;
  };
  const head = ["", "first", "second", "first to second"].map((text, place) => el("th", { scope: "col", class: place ? "number" : null }, el("span", {}, text || "figure")));
  return el("table", {}, el("caption", { class: "hidden" }, "Figures of both runs"), el("thead", {}, el("tr", {}, head)),
    el("tbody", {}, measured.map((column) => {
      const a = cell(column.key, one), b = cell(column.key, other);
      return el("tr", {}, el("th", { scope: "row", title: column.help }, column.name),
        [full(column, a), full(column, b), between(column, a, b)].map((text) => el("td", { class: "number" }, text)));
    })));
}

// ---- which recipe should I use? ----------------------------------------------------------------------------------------------
// The one place of the rule: of the recipes that fit the budget with every seed and end no more than the tolerance
// below the reference, the fastest; memory decides where no time was measured. Shares and bytes in, plain values out.
function recommend(setting, budget, tolerance, reference) {
  const recipes = setting.entries.filter((entry) => entry.kind === "run" || entry.kind === "baseline");
  const known = recipes.filter((entry) => entry.num_ok > 0 && entry.score !== null);
  const bases = known.filter((entry) => entry.kind === "baseline");
  if (!known.length) return { problem: `no finished recipe has ${SCORES[setting.score]}` };
  if (reference === "baseline" && bases.length !== 1) return { problem: `there is ${bases.length ? "more than one" : "no"} finished baseline to measure from` };
  const best = known.reduce((most, entry) => (entry.score > most.score ? entry : most));
  const against = reference === "baseline" ? bases[0] : best;
  const need = (entry) => entry.memory_high ?? entry.memory;
  const out = { memory: [], unknown: [], quality: [], failed: [] }, fit = [];
  for (const entry of recipes) {
    if (!entry.num_ok) out.failed.push(entry);
    else if (entry.score === null || (budget !== null && need(entry) === null)) out.unknown.push(entry);
    else if (budget !== null && need(entry) > budget) out.memory.push(entry);
    else if (entry.score < against.score - tolerance - 1e-9) out.quality.push(entry);
    else fit.push(entry);
  }
  const timed = fit.some((entry) => entry.ttt_seconds !== null);
  const last = (value) => value ?? Infinity;
  const by = (a, b) => (a === b ? 0 : a - b);
  fit.sort((one, other) => by(last(one.ttt_seconds), last(other.ttt_seconds)) || by(last(one.memory), last(other.memory)) || other.score - one.score);
  return { pick: fit[0] ?? null, others: fit.slice(1), out, against, timed, need };
}
function drawAnswer() {
  const setting = data.settings[Number($("choose-setting").value) || 0];
  const typed = (id) => ($(id).value.trim() === "" ? null : Number($(id).value));
  const size = typed("budget"), tolerance = typed("tolerance") ?? 0;
  if ($("budget").validity.badInput || $("tolerance").validity.badInput || (size !== null && !(size > 0)) || !(tolerance >= 0)) {
    return $("answer").replaceChildren(el("p", {}, "A budget is a number above zero, or nothing for no limit; a tolerance is zero or more points."));
  }
  const budget = size === null ? null : size * Number($("budget-unit").value);
  const found = recommend(setting, budget, tolerance / 100, $("reference").value);
  window.tunematrix.answer = found;
  if (found.problem) return $("answer").replaceChildren(el("p", {}, `No recipe can be named: ${found.problem}.`));
  const several = found.others?.length > 0, verb = (one, many) => (several ? many : one);
  const limits = [budget === null ? "" : `${verb("fits", "fit")} into ${size} ${$("budget-unit").selectedOptions[0].text}`,
    `${verb("ends", "end")} no more than ${tolerance} ${tolerance === 1 ? "point" : "points"} below ${$("reference").value === "best" ? "the best" : "the baseline"} (${found.against.label}, ${percent(found.against.score)})`]
    .filter(Boolean).join(" and ");
  const lines = [...(found.pick ? picked(found, setting, limits) : nothing(found, setting, limits)), ...fallenOut(found, setting), ...honesty(found, setting, tolerance)];
  $("answer").replaceChildren(lines[0], el("ul", {}, lines.slice(1).filter(Boolean).map((line) => el("li", {}, line))));
}
const costs = (entry, setting) => [percent(entry.score), entry.ttt_seconds === null ? "" : amount("ttt_seconds", entry.ttt_seconds),
  entry.memory === null ? "" : amount(setting.memory, entry.memory)].filter(Boolean).join(", ");
const below = (entry, against) => (entry === against ? "" : ` (${points(entry.score - against.score)} ${against.label})`);
function picked({ pick, others, against, timed }, setting, limits) {
  const why = others.length ? `${timed ? "the fastest" : "the one that needs the least memory (no time was measured)"} of the ${others.length + 1} recipes that ${limits}` : `the only recipe that ${limits}`;
  const time = pick.ttt_seconds === null ? "" : ` trains in ${amount("ttt_seconds", pick.ttt_seconds)} and`;
  const memory = pick.memory === null ? " needs memory that was not measured" : ` needs ${amount(setting.memory, pick.memory)}`;
  const unsure = pick.num_ok < pick.num_runs ? `Beware: only ${pick.num_ok} of its ${pick.num_runs} runs finished.` : "";
  return [
    el("p", { class: "lead" }, "Use ", el("strong", {}, pick.label), `, ${why}: it reaches ${percent(pick.score)}${below(pick, against)},${time}${memory}.`),
    others.length ? `Runners-up: ${others.slice(0, 3).map((entry) => `${entry.label} (${costs(entry, setting)})`).join("; ")}${others.length > 3 ? `; and ${others.length - 3} slower` : ""}.` : "",
    unsure,
  ];
}
function nothing({ out, against, need }, setting, limits) {
  const near = [...out.quality].sort((one, other) => other.score - one.score)[0];
  const small = [...out.memory].sort((one, other) => need(one) - need(other)).find((entry) => entry.score !== null);
  return [
    el("p", { class: "lead" }, `No recipe ${limits}.`),
    near ? `Nearest in quality within the budget: ${near.label} (${costs(near, setting)}), ${points(near.score - against.score)} ${against.label}.` : "",
    small ? `Smallest of those over the budget: ${small.label} (${costs(small, setting)}).` : "",
  ];
}
function fallenOut({ out, against, need }, setting) {
  return [
    out.memory.length ? `Over the budget: ${list(out.memory.map((entry) => `${entry.label} (${amount(setting.memory, need(entry))})`), 5)}.` : "",
    out.quality.length ? `Too far below ${against.label}: ${list([...out.quality].sort((one, other) => other.score - one.score).map((entry) => `${entry.label} (${signed(entry.score - against.score)})`), 5)}.` : "",
    out.failed.length ? `Did not finish: ${list(out.failed.map((entry) => `${entry.label} (${entry.status})`), 5)}.` : "",
    out.unknown.length ? `Not measured: ${list(out.unknown.map((entry) => entry.label), 5)}.` : "",
  ];
}
function honesty({ pick, against }, setting, tolerance) {
  const finer = setting.resolution !== null && tolerance / 100 < setting.resolution ? " The tolerance asked for is finer than that." : "";
  const size = setting.resolution === null ? "" : (100 * setting.resolution).toFixed(1);
  const several = setting.seeds > 1;
  const pair = pick && pick !== against ? pairOf(setting.pairs, pick.label, against.label) : null;
  const direct = pair ? `${pick.label} minus ${against.label}: ${interval(pair)}, over other seeds and questions.` : "";
  if (!size) return [direct, `${several ? `${setting.seeds} seeds` : "One seed"}, and no scores by question to pair: how large a difference must be to mean anything is not known.`];
  const so = several ? `${setting.seeds} seeds: differences below about ${size} points cannot be told apart (half a usual 95 % interval against the baseline).`
    : `One seed: differences below about ${size} points cannot be told apart, even between these trained models; other seeds may move them further.`;
  return [direct, so + finer, `Memory is ${(byKey.get(setting.memory)?.name ?? setting.memory).toLowerCase()}: ${byKey.get(setting.memory)?.help ?? "not measured"}${several ? "; of several seeds the highest has to fit" : ""}.`];
}

// ---- example pictures ---------------------------------------------------------------------------------------------------------
const counted = (answers) => {
  const counts = new Map();
  for (const answer of answers) counts.set(answer, (counts.get(answer) ?? 0) + 1);
  return [...counts].sort((one, other) => other[1] - one[1]).map(([answer, count]) => (count > 1 ? `${answer} ×${count}` : answer)).join(", ");
};
function drawExamples() {
  $("more-examples").hidden = true;
  if (!data.examples.length) { $("examples-note").textContent = ""; return $("examples-table").replaceChildren(reason("No example pictures: examples/examples.json is not there, so the task wrote none.")); }
  const answering = rows.map((row) => ({ row, run: row.members.find((run) => data.answers[run]) })).filter(({ run }) => run !== undefined);
  $("examples-note").textContent = "In the order of the table above, and filtered like it. ✓ is the full score, ✗ none; a number is the share of it that the answer gets.";
  if (!answering.length) return $("examples-table").replaceChildren(reason("No run that the table shows has predictions (predictions.parquet)."));
  const some = answering.slice(0, state.examples);
  $("more-examples").hidden = some.length === answering.length;
  const heads = data.examples.map((example) => el("th", { scope: "col", class: "example" },
    example.picture ? el("img", { src: example.picture, alt: `Picture of question ${example.id}` }) : reason("no picture"),
    el("span", { class: "question" }, example.question), el("small", {}, example.answers.length ? `people: ${counted(example.answers)}` : "no gold answers")));
  $("examples-table").replaceChildren(el("table", {}, el("caption", { class: "hidden" }, "Answers of each run to the example questions"),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, el("span", {}, "Recipe")), heads)),
    el("tbody", {}, some.map(({ row, run }) => el("tr", {},
      el("th", { scope: "row" }, el("button", { type: "button", class: "link", onclick: () => openRun(run) }, breakable(row.grouped || cell("seed", run) === null ? row.label : runName(run)))),
      data.answers[run].map(answerCell))))));
}
function answerCell(answer) {
  if (!answer) return el("td", {}, DASH);
  const [text, chance, score] = answer;
  const right = score >= 1, wrong = score === 0;
  const mark = score === null ? "" : right ? "✓" : wrong ? "✗" : String(score);
  const spoken = score === null ? "" : right ? "right" : wrong ? "wrong" : `partly right, ${score}`;
  return el("td", {}, text || "(empty)", " ", el("span", { class: right ? "good" : wrong ? "bad" : "", "aria-hidden": "true" }, mark),
    el("span", { class: "hidden" }, spoken), chance === null ? "" : el("small", {}, ` ${Math.round(100 * chance)} %`));
}

// ---- the rest of the page -------------------------------------------------------------------------------------------------------
function drawAbout() {
  const parts = data.notes.length ? [el("h3", {}, "Left out of this page"), el("ul", { class: "list" }, data.notes.map((note) => el("li", {}, note)))] : [];
  parts.push(el("h3", {}, "Command of the sweep"), ...(data.command ? commandBox(data.command, "") : [reason("sweep.json is not there, so the command is not known.")]));
  for (const setting of data.settings) {
    if (data.settings.length > 1) parts.push(el("h3", {}, setting.title || "Other runs"));
    else parts.push(el("h3", {}, "What the figures say"));
    parts.push(el("p", {}, setting.findings.join(" ")));
    parts.push(facts(Object.entries(setting.shared).map(([key, value]) => [column(key).name, value])));
  }
  parts.push(more("What the columns mean", facts(data.columns.map((one) => [one.name, one.help]))));
  parts.push(more("What the statuses mean", facts(Object.entries(data.statuses))));
  $("about-text").replaceChildren(...parts);
}
function fill() {
  const statuses = [...new Set(data.runs.status)], kinds = data.kinds.filter((kind) => Array.from({ length: numRuns }, (_, run) => run).some((run) => kindOf(run) === kind));
  const failed = statuses.some((status) => status !== "ok");
  options($("status"), [["", "all"], ...(failed && statuses.length > 1 ? [["!ok", "not finished"]] : []), ...statuses.map((status) => [status, status])]);
  options($("kind"), [["", "all"], ...kinds.map((kind) => [kind, { run: "recipes", baseline: "baseline", control: "controls", tuning: "tried rates" }[kind]])]);
  const titles = data.settings.map((setting, place) => [String(place), setting.title || "other runs"]);
  options($("setting"), [["", "all"], ...titles]);
  options($("choose-setting"), titles);
  $("setting-label").hidden = $("choose-setting-label").hidden = data.settings.length < 2;
  const numeric = data.columns.filter((one) => one.kind !== "text" && !one.hidden);
  const axes = (wanted) => [...(byKey.has(wanted) ? [] : [[wanted, `${column(wanted).name} (not measured)`]]), ...numeric.map((one) => [one.key, one.name])];
  const x = "peak_allocated_bytes", y = data.settings[0]?.score ?? "accuracy";
  options($("axis-x"), axes(x), x);
  options($("axis-y"), axes(y), y);
  const runs = Array.from({ length: numRuns }, (_, run) => [String(run), runName(run) + (cell("status", run) === "ok" ? "" : ` (${cell("status", run)})`)]);
  const finished = runs.filter(([run]) => cell("status", run) === "ok" && ["run", "baseline"].includes(kindOf(run)));
  const base = finished.find(([run]) => kindOf(run) === "baseline")?.[0] ?? finished[1]?.[0] ?? "";
  const others = finished.filter(([run]) => run !== base && kindOf(run) === "run");
  const like = ([run]) => cell("seed", run) === cell("seed", base) && data.group[run] === data.group[base];
  const first = (others.find(like) ?? others[0])?.[0] ?? "";
  options($("first"), [["", "choose a run"], ...runs], first);
  options($("second"), [["", "choose a run"], ...runs], base);
  const count = (status) => data.runs.status.filter((own) => own === status).length;
  const seeds = new Set((data.runs.seed ?? []).filter((seed) => seed !== null)).size;
  const shared = data.settings[0]?.shared ?? {};
  $("facts").textContent = [plural(numRuns, "run"), seeds ? plural(seeds, "seed") : "", statuses.map((status) => `${count(status).toLocaleString("en")} ${status}`).join(", "),
    shared.model ? `model ${shared.model}` : "", shared.dataset ? `data ${shared.dataset}` : "", shared.gpu_name || shared.device].filter(Boolean).join(" · ");
}
function listen() {
  for (const form of document.querySelectorAll("main form")) form.addEventListener("submit", (event) => event.preventDefault());
  const again = () => { state.page = 0; state.examples = EXAMPLES; refresh(); };
  for (const id of ["status", "kind", "setting", "grouped"]) $(id).addEventListener("change", again);
  let waiting;
  $("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(again, numRuns > 500 ? 120 : 0); });
  $("filters").addEventListener("reset", () => setTimeout(again));
  for (const id of ["axis-x", "axis-y", "show-controls", "log-x"]) $(id).addEventListener("change", drawPlot);
  for (const id of ["first", "second"]) $(id).addEventListener("change", drawComparison);
  $("swap").addEventListener("click", () => { [$("first").value, $("second").value] = [$("second").value, $("first").value]; drawComparison(); });
  for (const id of ["budget", "budget-unit", "tolerance", "reference", "choose-setting"]) $(id).addEventListener("input", drawAnswer);
  $("more-examples").addEventListener("click", () => { state.examples += EXAMPLES; drawExamples(); });
  $("record").addEventListener("click", (event) => { if (event.target === $("record")) $("record").close(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { drawPlot(); drawComparison(); });
  let width = innerWidth, settled;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    clearTimeout(settled);
    settled = setTimeout(drawPlot, 150);
  });
}
async function main() {
  window.tunematrix = { data, recommend, rowsOf, front };
  fill();
  listen();
  drawColumns();
  drawAbout();
  drawAnswer();
  const plot = refresh();
  await Promise.all([plot, drawComparison()]);
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}
main().catch((error) => {
  document.querySelector("main").prepend(reason(`The page could not be built: ${error.message}. The figures stand in runs.csv and summary.md beside it.`));
  throw error;
});
