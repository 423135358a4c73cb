// Grids of cells on a canvas (criteria, clients by rounds, labels), which ECharts' common build does not draw.

const SEQUENTIAL = ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"];
const SEQUENTIAL_ON_DARK = ["#6b46a8", "#5f62c0", "#4a86c8", "#2fa5ad", "#35b779", "#6ece58", "#b5de2b", "#fde725"];
const DIVERGING = ["#a50026", "#d73027", "#f46d43", "#fdae61", "#e9e9e9", "#abd9e9", "#74add1", "#4575b4", "#313695"];
const STATES = [
  ["unmeasured", "not measured", "grid"],
  ["waiting", "condition not met", "wait"],
  ["counting", "met, not yet long enough", "fair"],
  ["holds", "holds", "good"],
];

const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

function ramp(stops, part) {
  const at = Math.min(Math.max(part, 0), 1) * (stops.length - 1);
  const low = Math.min(Math.floor(at), stops.length - 2);
  const [a, b] = [channels(stops[low]), channels(stops[low + 1])];
  return a.map((value, index) => Math.round(value + (b[index] - value) * (at - low)));
}

function niceTicks(low, high, most) {
  const raw = Math.max(1, (high - low) / most),
    power = 10 ** Math.floor(Math.log10(raw));
  const step = Math.max(1, [1, 2, 5, 10].find((one) => one * power >= raw) * power);
  const ticks = [];
  for (let value = Math.ceil(low / step) * step; value <= high; value += step) ticks.push(value);
  return ticks;
}

// Fill the plot with an image of one pixel a cell; `smooth` shades between the cells' middles.
function paintImage(context, area, image, smooth = false) {
  const off = el("canvas", { width: image.width, height: image.height });
  off.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = smooth;
  context.drawImage(off, area.x, area.y, area.width, area.height);
}

// A name cut to a width, with an ellipsis.
function cut(context, name, width) {
  if (context.measureText(name).width <= width) return name;
  let end = name.length - 1;
  while (end > 1 && context.measureText(`${name.slice(0, end)}…`).width > width) end -= 1;
  return `${name.slice(0, end)}…`;
}

// Paint cells with axes around them. `paint(context, area)` fills the plot; rows and ticks are labelled; `up` and
// `across` are the titles of the axes. The canvas keeps the boxes of its labels as `texts` and the plot as `plot`, for tests.
function paintGrid(holder, { height, rows, ticks, paint, cellText, label, up, across, most = 0.35 }) {
  titleAxes(holder, up, across);
  const canvas = holder.querySelector("canvas") || holder.appendChild(el("canvas", { role: "img" }));
  canvas.setAttribute("aria-label", label);
  const width = Math.max(holder.clientWidth, 120),
    sharp = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * sharp);
  canvas.height = Math.round((height + 22) * sharp);
  canvas.style.height = `${height + 22}px`;
  const context = canvas.getContext("2d");
  context.scale(sharp, sharp);
  context.font = `11.5px ${getComputedStyle(document.body).fontFamily}`;
  const room = Math.min(
    Math.max(...rows.map(([, name]) => context.measureText(name).width), 0) + 10,
    width * most,
  );
  const ink = colour("soft");
  canvas.texts = [];
  const write = (name, x, y) => {
    context.fillText(name, x, y);
    const wide = context.measureText(name).width;
    const from = context.textAlign === "right" ? x - wide : x - wide / 2;
    const top = context.textBaseline === "top" ? y : y - 6;
    canvas.texts.push({ words: name, x: from, y: top, width: wide, height: 12, ink });
  };
  const area = { x: room, y: 0, width: width - room - 4, height };
  canvas.plot = area;
  paint(context, area);
  context.fillStyle = ink;
  context.textBaseline = "middle";
  context.textAlign = "right";
  for (const [part, name] of rows)
    write(cut(context, name, room - 8), room - 6, Math.min(Math.max(part * height, 6), height - 6));
  context.textBaseline = "top";
  context.textAlign = "center";
  let free = -Infinity;
  for (const [part, name] of ticks) {
    const half = context.measureText(name).width / 2;
    const x = Math.min(Math.max(area.x + part * area.width, area.x + half), width - half);
    if (x - half < free) continue;
    write(name, x, height + 6);
    free = x + half + 8;
  }
  const tip = holder.querySelector(".tip") || holder.appendChild(el("div", { class: "tip", hidden: true }));
  canvas.onpointermove = (event) => {
    const box = canvas.getBoundingClientRect();
    const x = (event.clientX - box.left - area.x) / area.width,
      y = (event.clientY - box.top) / area.height;
    const words = x >= 0 && x < 1 && y >= 0 && y < 1 ? cellText(x, y) : null;
    tip.hidden = !words;
    if (!words) return;
    tip.replaceChildren(...words.map((line, index) => el("div", index ? {} : { style: "font-weight:600" }, line)));
    tip.style.left = `${Math.max(0, Math.min(event.clientX - box.left + 14, width - tip.offsetWidth - 4))}px`;
    tip.style.top = `${event.clientY - box.top + 16}px`;
  };
  canvas.onpointerleave = () => {
    tip.hidden = true;
  };
}

const roundTicks = (first, last, width) =>
  niceTicks(first, last, Math.max(2, width / 90)).map((round) => [
    (round - first + 0.5) / (last - first + 1),
    round.toLocaleString("en"),
  ]);

// The state of each criterion by round, one row each.
function paintTimeline(holder, view) {
  const last = view.round,
    rounds = last + 1,
    tall = 22,
    gap = 6;
  const height = view.criteria.length * (tall + gap);
  const tone = Object.fromEntries(STATES.map(([state, , name]) => [state, colour(name)]));
  paintGrid(holder, {
    height,
    rows: view.criteria.map((one, row) => [(row + 0.5) / view.criteria.length, one.label]),
    ticks: roundTicks(0, last, holder.clientWidth),
    most: 0.5,
    up: "criterion",
    across: "round",
    label: `States of ${view.criteria.map((one) => `${one.label}: ${one.words}`).join("; ")}`,
    paint(context, area) {
      view.criteria.forEach((one, row) => {
        for (const [from, to, state] of one.spans) {
          context.fillStyle = tone[state];
          const x = area.x + (from / rounds) * area.width;
          context.fillRect(
            x,
            row * (tall + gap) + gap / 2,
            Math.max(((to - from + 1) / rounds) * area.width, 0.6),
            tall,
          );
        }
      });
    },
    cellText(x, y) {
      const round = Math.min(last, Math.floor(x * rounds)),
        one = view.criteria[Math.floor(y * view.criteria.length)];
      const span = one && one.spans.find(([from, to]) => round >= from && round <= to);
      return (
        span && [
          `${one.label}: ${STATES.find(([state]) => state === span[2])[1]}`,
          `rounds ${span[0]} to ${span[1]}`,
        ]
      );
    },
  });
}

function decode(cells) {
  const text = atob(cells),
    codes = new Uint8Array(text.length);
  for (let index = 0; index < text.length; index += 1) codes[index] = text.charCodeAt(index);
  return codes;
}

const valueOf = (picture, code) => {
  const part = (code - 1) / 253;
  return picture.log
    ? picture.low * (picture.high / picture.low) ** part
    : picture.low + part * (picture.high - picture.low);
};

// Clients (or the rows that `grid.names` names) by rounds, coloured by a metric. Rows in order, or by their mean over rounds.
function paintClients(holder, grid, metric, order) {
  const picture = grid.metrics[metric],
    codes = decode(picture.cells),
    { rows, columns } = grid;
  const stops =
    metric === "cosine"
      ? DIVERGING
      : document.documentElement.dataset.theme === "dark"
        ? SEQUENTIAL_ON_DARK
        : SEQUENTIAL;
  const means = Array.from({ length: rows }, (_, row) => {
    const known = codes.subarray(row * columns, (row + 1) * columns).filter((code) => code > 0 && code < 255);
    return known.length ? known.reduce((sum, code) => sum + code, 0) / known.length : -1;
  });
  const sorted = Array.from({ length: rows }, (_, row) => row);
  if (order === "mean") sorted.sort((a, b) => means[b] - means[a]);
  const image = new ImageData(columns, rows),
    bad = channels(colour("bad")),
    empty = channels(colour("empty"));
  sorted.forEach((row, at) => {
    for (let column = 0; column < columns; column += 1) {
      const code = codes[row * columns + column];
      image.data.set(
        [...(code === 0 ? empty : code === 255 ? bad : ramp(stops, (code - 1) / 253)), 255],
        (at * columns + column) * 4,
      );
    }
  });
  const clientsOf = (row) => [Math.ceil((row * grid.clients) / rows), Math.ceil(((row + 1) * grid.clients) / rows) - 1];
  const roundsOf = (column) => [
    Math.ceil((column * grid.rounds) / columns) + 1,
    Math.ceil(((column + 1) * grid.rounds) / columns),
  ];
  const span = ([from, to], one, many) =>
    from === to
      ? `${one} ${from.toLocaleString("en")}`
      : `${many} ${from.toLocaleString("en")} to ${to.toLocaleString("en")}`;
  const whoOf = ([from, to]) => {
    const name = (client) => (grid.known && grid.known[client] !== undefined ? grid.known[client] : null);
    const ends = [name(from), name(to)];
    if (ends.includes(null)) return span([from, to], "client", "clients");
    return from === to ? ends[0] : `clients ${from} to ${to}: ${ends.join(" to ")}`;
  };
  const labelled =
    order === "mean"
      ? [
          [0.02, "largest"],
          [0.98, "smallest"],
        ]
      : grid.names
        ? grid.names.map((name, row) => [(row + 0.5) / rows, name]).filter((_, row) => row % Math.ceil(rows / 24) === 0)
        : grid.known
          ? knownRows(grid)
          : niceTicks(0, grid.clients - 1, 6).map((client) => [
              (client + 0.5) / grid.clients,
              client.toLocaleString("en"),
            ]);
  const absent = grid.names ? "no client responded" : "did not take part";
  paintGrid(holder, {
    height: Math.min(Math.max(rows * 22, 60), 346),
    rows: labelled,
    ticks: roundTicks(1, grid.rounds, holder.clientWidth),
    up: order === "mean" ? `${grid.names ? "district" : "client"}, largest mean first` : grid.names ? "district" : "client",
    across: "round",
    label: `${metric} of ${grid.clients} ${grid.names ? "districts" : "clients"} over ${grid.rounds} rounds`,
    paint: (context, area) => paintImage(context, area, image),
    cellText(x, y) {
      const row = sorted[Math.floor(y * rows)],
        column = Math.floor(x * columns),
        code = codes[row * columns + column];
      const what =
        code === 0 ? absent : code === 255 ? "not a finite number" : `about ${number(valueOf(picture, code))}`;
      const who = grid.names ? grid.names[row] : whoOf(clientsOf(row));
      return [what, who, span(roundsOf(column), "round", "rounds")];
    },
  });
  const scale = el("canvas", { class: "scale", width: 160, height: 1 }),
    pixels = new ImageData(160, 1);
  for (let x = 0; x < 160; x += 1) pixels.data.set([...ramp(stops, x / 159), 255], x * 4);
  scale.getContext("2d").putImageData(pixels, 0, 0);
  return [
    el("span", {}, number(picture.low)),
    scale,
    el("span", {}, `${number(picture.high)} ${METRIC_NAMES[metric] || metric}${picture.log ? ", logarithmic scale" : ""}`),
    legendOf(colour("empty"), absent),
    ...(codes.includes(255) ? [legendOf(colour("bad"), "not a finite number")] : []),
  ];
}

// The names of some rows, evenly spaced: those of clients whose names the record has.
function knownRows({ known, clients, rows }) {
  const found = new Map();
  for (const [client, name] of Object.entries(known)) {
    const row = Math.floor((client * rows) / clients);
    if (client < clients && !found.has(row)) found.set(row, name);
  }
  const every = Math.ceil(rows / 24);
  const kept = [];
  let next = 0;
  for (const row of [...found.keys()].sort((a, b) => a - b)) {
    if (row < next) continue;
    kept.push([(row + 0.5) / rows, found.get(row)]);
    next = row + every;
  }
  return kept;
}

const legendOf = (ink, words) => el("span", {}, el("i", { style: `background:${ink}` }), words);

// The labels of each client, darker for a larger share. Few clients: a row each, by name; many: a column each.
function paintLabels(holder, partition, order) {
  const counts = partition.label_counts,
    clients = counts.length,
    classes = counts[0].length,
    few = clients <= MOST_NAMED;
  const totals = counts.map((row) => row.reduce((sum, one) => sum + one, 0));
  const main = counts.map((row) => row.indexOf(Math.max(...row)));
  const sorted = counts.map((_, client) => client);
  if (order === "label")
    sorted.sort(
      (a, b) => main[a] - main[b] || counts[b][main[b]] / (totals[b] || 1) - counts[a][main[a]] / (totals[a] || 1),
    );
  const [empty, full] = [channels(colour("empty")), channels(colour("s0"))];
  const image = few ? new ImageData(classes, clients) : new ImageData(clients, classes);
  sorted.forEach((client, place) => {
    for (let label = 0; label < classes; label += 1) {
      const part = totals[client] ? Math.sqrt(counts[client][label] / totals[client]) : 0;
      const pixel = few ? place * classes + label : label * clients + place;
      image.data.set([...empty.map((value, index) => Math.round(value + (full[index] - value) * part)), 255], pixel * 4);
    }
  });
  const nameOf = (label) => (partition.classes && partition.classes[label]) || String(label);
  const labels = Array.from({ length: classes }, (_, label) => [(label + 0.5) / classes, nameOf(label)]);
  const every = (most) => (_, index) => index % Math.max(1, Math.ceil(classes / most)) === 0;
  paintGrid(holder, {
    height: few ? Math.max(clients * 20, 60) : Math.min(Math.max(classes * 20, 60), 300),
    label: `Labels of ${clients} clients over ${classes} classes`,
    rows: few
      ? sorted.map((client, row) => [(row + 0.5) / clients, partition.names[client]])
      : labels.filter(every(16)),
    ticks: few
      ? labels.filter(every(Math.max(2, holder.clientWidth / 40)))
      : order === "label"
        ? []
        : niceTicks(0, clients - 1, Math.max(2, holder.clientWidth / 90)).map((at) => [
            (at + 0.5) / clients,
            partition.names[at],
          ]),
    up: few ? "client" : "label",
    across: few ? "label" : order === "label" ? "clients, by main label" : "clients",
    paint: (context, area) => paintImage(context, area, image),
    cellText(x, y) {
      const [across, down] = [Math.floor(x * image.width), Math.floor(y * image.height)];
      const [client, label] = few ? [sorted[down], across] : [sorted[across], down];
      return [
        `${counts[client][label]} of ${totals[client]} examples`,
        `client ${partition.names[client]}`,
        `label ${nameOf(label)}`,
      ];
    },
  });
}
