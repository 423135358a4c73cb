// Shared helpers: elements, colours, number formats, the axes, the reader's choices.

const el = (tag, props = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined)
      node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
};

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// Twelve colours; the first six, drawn solid, and the second six, drawn dashed, each differ for colour-blind readers too.
const COLOURS = 12;
const seriesColour = (index) => colour(`s${index % COLOURS}`);
const seriesLine = (index) => ["solid", "dashed", "dotted"][Math.min(2, Math.floor(index / (COLOURS / 2)))];

// The sample of a series in legends, keys and tables.
const swatchOf = (ink, line = "solid") => el("i", { class: "line", style: `border-top: 3px ${line} ${ink}` });
const swatch = (index, line = seriesLine(index)) => swatchOf(seriesColour(index), line);

function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e-3 && size < 1e6) {
    const short = Number(value.toPrecision(digits));
    return Math.abs(short) >= 10 ** (digits - 1) ? Math.round(short).toLocaleString("en") : String(short);
  }
  const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
  return `${Number(mantissa)}e${Number(exponent)}`;
}

function bytes(value) {
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (value < 1000) return `${value < 10 ? Number(value.toPrecision(2)) : Math.round(value)} ${unit}`;
    value /= 1000;
  }
  return `${Number(value.toPrecision(3)).toLocaleString("en")} TB`;
}

function seconds(value) {
  if (value < 1) return value === 0 ? "0" : `${number(value * 1000, 2)} ms`;
  const [size, unit] = [
    [1, "s"],
    [60, "min"],
    [3600, "h"],
    [86400, "d"],
  ].findLast(([s]) => value >= 1.5 * s || s === 1);
  return `${Number((value / size).toPrecision(3))} ${unit}`;
}

const AXES = {
  round: { title: "round", name: "Rounds", format: (value) => value.toLocaleString("en") },
  simulated: { title: "simulated time", name: "Simulated time", format: seconds },
  bytes: { title: "data sent, both ways", name: "Data sent", format: bytes },
  wall: { title: "wall time", name: "Wall time", format: seconds },
};

// The button that changes between dark and light; `repaint` draws the charts in the new colours.
function themeButton(repaint) {
  const button = el("button", { type: "button", class: "small", "aria-label": "dark or light" }, "◐");
  button.addEventListener("click", () => {
    const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem("fedscape-theme", next);
    } catch {
      /* a page opened from disk may have no storage */
    }
    repaint();
  });
  return button;
}

// The reader's choices; kept while the page is open.
const chosen = { axis: "round", zoom: null };

// The rounds in which a series was measured, and its values.
function seriesOf(view, key) {
  const table = view.series.find((one) => key in one.columns);
  if (!table || !table.columns[key].some((value) => value !== null)) return null;
  return { x: table.axes[chosen.axis], rounds: table.axes.round, y: table.columns[key] };
}

// The place of a round on the chosen axis: its own, or that of the last measured round before it.
function placeOf(view, round) {
  let place = null;
  for (const table of view.series) {
    const index = table.axes.round.findLastIndex((one) => one <= round);
    if (index >= 0 && (place === null || table.axes.round[index] > place[0])) {
      place = [table.axes.round[index], table.axes[chosen.axis][index]];
    }
  }
  return place && place[1];
}

function nearest(xs, x) {
  let low = 0,
    high = xs.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] < x) low = middle + 1;
    else high = middle;
  }
  return low > 0 && x - xs[low - 1] <= xs[low] - x ? low - 1 : low;
}

// Counts the charts and grids that have something to draw, and those that are drawn: tests and scripts wait for them.
const drawn = {
  waiting: new Set(),
  done: new Set(),
  expect(id) {
    this.waiting.add(id);
    this.update();
  },
  finish(id) {
    this.done.add(id);
    this.update();
  },
  forget(id) {
    this.waiting.delete(id);
    this.done.delete(id);
    this.update();
  },
  update() {
    document.documentElement.dataset.expected = this.waiting.size;
    document.documentElement.dataset.charts = [...this.waiting].filter((id) => this.done.has(id)).length;
  },
};

function choice(options, current, choose, label) {
  const group = el("div", { class: "choice", role: "group", "aria-label": label });
  for (const [value, name] of options) {
    const button = el("button", { type: "button", "aria-pressed": String(value === current) }, name);
    button.addEventListener("click", () => {
      for (const one of group.children) one.setAttribute("aria-pressed", String(one === button));
      choose(value);
    });
    group.append(button);
  }
  return group;
}

function picker(options, current, choose, label) {
  const select = el("select", { class: "small", "aria-label": label });
  for (const [value, name] of options) select.append(el("option", { value, selected: value === current }, name));
  select.addEventListener("change", () => choose(select.value));
  return select;
}
