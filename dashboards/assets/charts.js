// The charts: what each shows, and how its series become an ECharts option.

const quantiles = ["p05", "p25", "p50", "p75", "p95"];
const CHARTS = [
  {
    id: "loss", section: "Convergence", title: "Loss",
    help: "Training loss is the clients' own, during local work; validation loss is the server's model on held-out examples.",
    lines: [["validation_loss", "validation"], ["train_loss", "training"], ["federated_loss", "on the clients"]], ended: true,
  },
  {
    id: "score", section: "Convergence", title: "Score",
    help: (views) => (views.length > 1 ? "Of the server's model, on held-out examples or on the clients." : "The band is the spread over clients of the server's model: 5% to 95%, and the middle half."),
    lines: [["validation_accuracy", "validation accuracy"], ["federated_accuracy", "accuracy on the clients"],
      ["validation_mae", "validation error (mean absolute)"], ["federated_mae", "error on the clients"]],
    band: "client_spread.score", ended: true,
  },
  {
    id: "gap", section: "Convergence", title: "Optimality gap",
    help: "How far the objective is above its known minimum.", lines: [["optimality_gap", "f(x) − f*"]], ended: true,
  },
  {
    id: "distance", section: "Convergence", title: "How far each criterion is", wide: true, timeline: true, log: true,
    help: (views) => (views.length > 1 ? "How far a criterion's condition is from being met; a gap is where it is met."
      : "Above: the state of each criterion in each round. Below: how far its condition is from being met; a gap is where it is met."),
    lines: (views) => [...new Set(views.flatMap((view) => view.criteria.map((one) => one.name)))]
      .map((name) => [`criteria.${name}.distance`, name.replaceAll("_", " ")]),
  },
  {
    id: "rate", section: "Convergence", title: "Rate",
    help: (views) => `What one round leaves of the distance to the limit, fitted to the rounds so far, with its 90% interval. ${
      views.length === 1 && views[0].rate ? `Now: ${views[0].rate}.` : ""}`,
    lines: [["rate.factor", "fitted rate"]], between: ["rate.low", "rate.high"],
  },
  {
    id: "step", section: "Convergence", title: "Steps of the server",
    help: "How far a round moved the model, in all and relative to its size; and the norm of the mean gradient where it was measured.",
    lines: [["step_norm", "step norm"], ["relative_change", "relative change"], ["gradient_norm", "gradient norm"]],
  },
  {
    id: "drift", section: "Client drift", title: "Client drift",
    help: "Mean squared distance of local parameters from the broadcast ones, over local steps; a band over the cohort.",
    band: "client_drift",
  },
  {
    id: "cosine", section: "Client drift", title: "Direction of updates",
    help: "Cosine of each client's update with the mean update: 1 is the same way, 0 across, below 0 against it.",
    band: "cosine", range: [-1, 1], log: false,
  },
  {
    id: "dispersion", section: "Client drift", title: "Dispersion",
    help: "Weighted mean squared distance of updates from their mean, and of gradients at the broadcast model where measured.",
    lines: [["update_dispersion", "update dispersion"], ["gradient_dissimilarity", "gradient dissimilarity"],
      ["gradient_diversity", "gradient diversity"]],
  },
  { id: "norms", section: "Client drift", title: "Size of updates", help: "Norm of each client's update; a band over the cohort.", band: "update_norm" },
  {
    id: "layers", section: "Client drift", title: "Dispersion by layer", wide: true,
    help: "Which layers the clients disagree on. At most twelve are drawn: those with the largest dispersion.",
    lines: (views) => [...new Set(views.flatMap((view) => view.layers))].map((name) => [`by_layer.${name}.update_dispersion`, name]),
  },
  { id: "bytes", section: "Time and bytes", title: "Data sent", help: "Model arrays sent each way, in all.", axis: "bytes", format: bytes },
  { id: "time", section: "Time and bytes", title: "Simulated time", help: "A round lasts as long as its slowest client.", axis: "simulated", format: seconds },
  { id: "speed", section: "Time and bytes", title: "Speed of this simulation", help: "Clients trained a second, here.", lines: [["clients_per_second", "clients a second"]] },
  { id: "people", section: "Time and bytes", title: "Respondents", help: "Clients whose update came in, and those that failed; not drawn where they never change.", lines: [["respondents", "respondents"], ["failures", "failures"]],
    when: (views) => views.some((view) => ["respondents", "failures"].some((key) => new Set((seriesOf(view, key) || { y: [] }).y).size > 1)) },
];

const linesOf = (spec, views) => (typeof spec.lines === "function" ? spec.lines(views) : spec.lines || []);

// What a chart of several runs can show, one at a time.
function metricsOf(spec, views) {
  if (spec.axis) return [[spec.axis, spec.title]];
  const found = linesOf(spec, views).filter(([key]) => views.some((view) => seriesOf(view, key)));
  const median = spec.band && views.some((view) => seriesOf(view, `${spec.band}.p50`));
  return [...found, ...(median ? [[`${spec.band}.p50`, found.length ? "median over clients" : "median"]] : [])];
}

// The series of a chart: one run shows all of its lines, several show one metric, a line a run in the colour of its group.
function chartSeries(spec, { views, labels, group, hidden }, metric) {
  const seen = (one, row) => one && !hidden.has(group[row]) && one.y.some((value) => value !== null);
  if (spec.axis) {
    return views.map((view, row) => {
      const index = group[row];
      const table = view.series.reduce((a, b) => (b && b.of > (a ? a.of : 0) ? b : a), null);
      return table && { name: labels[row], index, x: table.axes[chosen.axis], rounds: table.axes.round, y: table.axes[spec.axis] };
    }).filter(seen);
  }
  const made = [];
  const add = (view, key, name, index) => {
    const found = seriesOf(view, key);
    if (!found) return;
    const band = spec.band && key === `${spec.band}.p50`;
    const edges = band ? [["p05", "p95", 0.13], ["p25", "p75", 0.22]].map(([low, high, shade]) => [`${spec.band}.${low}`, `${spec.band}.${high}`, shade])
      : spec.between ? [[...spec.between, 0.18]] : [];
    const few = views.length > 3 ? [] : views.length > 1 ? edges.slice(-1) : edges;
    const bands = few.map(([low, high, shade]) => [seriesOf(view, low), seriesOf(view, high), shade]).filter(([low, high]) => low && high);
    made.push({ name, index, key, ...found, bands });
  };
  if (views.length > 1) {
    views.forEach((view, row) => { if (!hidden.has(group[row])) add(view, metric, labels[row], group[row]); });
  } else {
    const lines = linesOf(spec, views);
    lines.forEach(([key, name], index) => add(views[0], key, name, index));
    if (spec.band) {
      add(views[0], `${spec.band}.p50`, lines.length ? "median client" : "median", lines.length);
      if (!lines.length) add(views[0], `${spec.band}.mean`, "mean", 1);
    }
  }
  return made;
}

function wantsLog(series) {
  const values = series.flatMap((one) => [one, ...(one.bands || []).flatMap(([low, high]) => [low, high])]).flatMap((one) => one.y).filter((value) => value !== null);
  const positive = values.filter((value) => value > 0);
  return values.length === positive.length && positive.length > 1 && Math.max(...positive) > 20 * Math.min(...positive);
}

// Ticks of a logarithmic axis, at 1, 2 and 5 (or more, or fewer) of each power of ten, as logarithms.
function logTicks(low, high) {
  const span = high - low;
  const steps = span > 5 ? [1] : span > 2 ? [1, 3] : span > 0.8 ? [1, 2, 5] : [1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9];
  const every = Math.max(1, Math.ceil(span / 7));
  const ticks = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power += 1) {
    if (steps.length === 1 && power % every) continue;
    for (const step of steps) ticks.push(power + Math.log10(step));
  }
  return ticks.filter((tick) => tick >= low - 1e-9 && tick <= high + 1e-9);
}

function chartOption(spec, views, series, log, font) {
  const up = log ? (value) => (value > 0 ? Math.log10(value) : null) : (value) => value;
  const down = log ? (value) => 10 ** value : (value) => value;
  const format = spec.format || number;
  const drawnSeries = [], alone = views.length === 1;
  series.forEach((one, order) => {
    const ink = seriesColour(one.index);
    const points = (ys) => one.x.map((x, row) => [x, ys(row)]).filter(([x]) => x !== null);
    (one.bands || []).forEach(([low, high, shade], layer) => {
      const bottom = (row) => (low.y[row] === null || high.y[row] === null ? null : up(low.y[row]));
      const height = (row) => (bottom(row) === null || up(high.y[row]) === null ? null : up(high.y[row]) - bottom(row));
      const common = { type: "line", name: one.name, stack: `${order}-${layer}`, stackStrategy: "all", symbol: "none", silent: true, lineStyle: { width: 0 }, itemStyle: { color: ink } };
      drawnSeries.push({ ...common, data: points(bottom) }, { ...common, data: points(height), areaStyle: { color: ink, opacity: shade } });
    });
    drawnSeries.push({
      type: "line", name: one.name, data: points((row) => (one.y[row] === null ? null : up(one.y[row]))), itemStyle: { color: ink },
      lineStyle: { width: alone ? 1.8 : 1.5, opacity: alone ? 1 : 0.85, color: ink, type: one.name === "mean" ? "dotted" : ["solid", "dashed", "dotted"][Math.floor(one.index / 8) % 3] },
      symbol: "circle", symbolSize: one.y.length < 60 ? 4 : 3, showSymbol: one.y.filter((y) => y !== null).length < 60, z: 3,
    });
  });
  const main = drawnSeries.find((one) => one.z === 3);
  if (main) main.markLine = markLines(spec, views, series, up, format, font);
  const values = series.flatMap((one) => [one.y, ...(one.bands || []).flatMap(([low, high]) => [low.y, high.y])]).flat()
    .filter((value) => value !== null).map(up).filter((value) => value !== null);
  const bounds = log && values.length ? [Math.min(...values), Math.max(...values)] : null;
  const pad = bounds ? Math.max(0.03, (bounds[1] - bounds[0]) * 0.04) : 0;
  const ticks = bounds && logTicks(bounds[0] - pad, bounds[1] + pad);
  const text = { color: colour("soft"), fontFamily: font, fontSize: 11.5 };
  const places = series.flatMap((one) => one.x).filter((x) => x !== null);
  return {
    animation: false, textStyle: { fontFamily: font },
    aria: { enabled: true, label: { description: `${spec.title}: ${series.map((one) => `${one.name}, last ${format(one.y.findLast((y) => y !== null))}`).slice(0, 12).join("; ")}.` } },
    grid: { left: 2, right: 10, top: alone && series.length > 1 ? (spec.ended ? 44 : 34) : alone && spec.ended ? 26 : 14, bottom: 6, containLabel: true },
    legend: { show: alone && series.length > 1, type: "scroll", top: 0, left: 0, itemWidth: 16, itemHeight: 8, icon: "roundRect", textStyle: text, pageTextStyle: text, inactiveColor: colour("line"), pageIconColor: colour("soft"), data: series.map((one) => one.name) },
    tooltip: { trigger: "axis", confine: true, backgroundColor: colour("card"), borderColor: colour("line"), textStyle: { ...text, color: colour("ink"), fontSize: 12.5 }, axisPointer: { lineStyle: { color: colour("faint") } }, transitionDuration: 0, formatter: (shown) => tooltip(shown, series, format) },
    xAxis: {
      type: "value", min: Math.min(...places), max: Math.max(...places) > Math.min(...places) ? Math.max(...places) : Math.min(...places) + 1,
      axisLabel: { ...text, formatter: AXES[chosen.axis].format, hideOverlap: true, showMaxLabel: false }, axisLine: { onZero: false, lineStyle: { color: colour("line") } },
      axisTick: { show: false }, splitLine: { show: false }, splitNumber: 6,
      ...(chosen.axis === "round" ? { minInterval: 1 } : AXES[chosen.axis].format === seconds ? { interval: timeStep(Math.max(...places), 5) } : {}),
    },
    yAxis: {
      type: "value", scale: true, axisLine: { show: false }, axisLabel: { ...text, formatter: (value) => format(down(value)), ...(ticks ? { customValues: ticks } : {}) },
      axisTick: { show: false, ...(ticks ? { customValues: ticks } : {}) }, splitLine: { lineStyle: { color: colour("grid") } },
      ...(bounds ? { min: bounds[0] - pad, max: bounds[1] + pad } : spec.range ? rangeOf(spec.range, values) : format === seconds ? timeRange(values) : {}),
    },
    dataZoom: [{ type: "inside", filterMode: "filter", zoomOnMouseWheel: "ctrl", moveOnMouseWheel: false, moveOnMouseMove: false, preventDefaultMouseMove: false, ...(chosen.zoom ? { startValue: chosen.zoom[0], endValue: chosen.zoom[1] } : {}) }],
    toolbox: { left: -200, feature: { dataZoom: { yAxisIndex: false, filterMode: "filter", brushStyle: { color: colour("accent"), opacity: 0.12 } } } },
    series: drawnSeries,
  };
}

// The largest sensible axis, cut to what is there where that leaves most of it empty.
function rangeOf([low, high], values) {
  const step = (high - low) / 8;
  if (!values.length) return { min: low, max: high };
  return { min: Math.max(low, Math.floor(Math.min(...values) / step) * step), max: Math.min(high, Math.ceil(Math.max(...values) / step) * step), interval: step };
}

function timeRange(values) {
  const step = timeStep(Math.max(...values), 4) || 1;
  return { min: 0, max: Math.ceil(Math.max(...values) / step) * step || 1, interval: step };
}

// A step of time that reads well, for about so many ticks.
function timeStep(span, ticks) {
  const steps = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600, 43200, 86400];
  const raw = span / ticks;
  if (raw > 86400) return Math.ceil(raw / 86400) * 86400;
  if (raw >= 1) return steps.find((one) => one >= raw);
  const power = 10 ** Math.floor(Math.log10(raw || 1));
  return power * [1, 2, 5, 10].find((one) => one * power >= raw);
}

// Where the run ended, and the target.
function markLines(spec, views, series, up, format, font) {
  const data = [];
  const label = { fontFamily: font, fontSize: 11, color: colour("soft") };
  if (views.length === 1 && spec.ended) {
    const { state, round, target } = views[0];
    const place = placeOf(views[0], round);
    const tone = { converged: "good", diverged: "bad" }[state];
    if (tone && place !== null) data.push({ xAxis: place, lineStyle: { color: colour(tone) }, label: { ...label, color: colour(tone), formatter: state, position: "end", align: "right", padding: [0, 4, 0, 0] } });
    if (target && target.value !== null && series.some((one) => one.key === target.metric) && up(target.value) !== null) {
      data.push({ yAxis: up(target.value), lineStyle: { color: colour("faint") }, label: { ...label, formatter: `target ${format(target.value)}`, position: "insideStartTop" } });
    }
  }
  return data.length ? { symbol: "none", silent: true, animation: false, lineStyle: { type: "dashed", width: 1.2 }, data } : undefined;
}

function tooltip(shown, series, format) {
  if (!shown.length) return "";
  const x = shown[0].axisValue;
  const visible = new Set(shown.map((one) => one.seriesName));
  const rows = [];
  let round = null;
  for (const one of series) {
    const row = nearest(one.x, x);
    if (round === null || Math.abs(one.x[row] - x) < round.off) round = { value: one.rounds[row], off: Math.abs(one.x[row] - x) };
    const late = x > one.x[one.x.length - 1] || x < one.x[0];
    if (late && !visible.has(one.name)) continue;
    const spread = (one.bands || []).map(([low, high]) => (low.y[row] === null ? "" : `${format(low.y[row])} to ${format(high.y[row])}`)).filter(Boolean);
    const mark = el("i", { style: `background:${seriesColour(one.index)}` });
    rows.push(el("tr", {}, el("th", {}, mark, one.name), el("td", {}, el("b", {}, format(one.y[row]))), el("td", {}, spread.slice(-1)[0] || "")));
  }
  const head = chosen.axis === "round" ? `round ${round.value.toLocaleString("en")}` : `${AXES[chosen.axis].format(x)} · round ${round.value.toLocaleString("en")}`;
  return el("div", { class: "tips" }, head, el("table", {}, rows.slice(0, 24)));
}

// Client sizes: a bar a client in order of size, or the percentiles where there are many.
function sizesOption(partition, font) {
  const text = { color: colour("soft"), fontFamily: font, fontSize: 11.5 };
  const all = partition.sizes && partition.sizes.length === partition.clients;
  const values = all ? [...partition.sizes].sort((a, b) => b - a) : partition.size_percentiles;
  const name = (row) => (all ? `${values.length - row} of ${values.length} clients have at most` : `${row}% of clients have at most`);
  return {
    animation: false, textStyle: { fontFamily: font }, aria: { enabled: true },
    grid: { left: 6, right: 14, top: 14, bottom: 6, containLabel: true },
    tooltip: { trigger: "axis", confine: true, backgroundColor: colour("card"), borderColor: colour("line"), textStyle: { ...text, color: colour("ink") }, formatter: ([one]) => `${name(one.dataIndex)} ${number(values[one.dataIndex], 5)} examples` },
    xAxis: { type: "category", data: values.map((_, row) => (all ? row + 1 : `${row}%`)), axisLabel: { ...text, interval: Math.max(0, Math.ceil(values.length / 6) - 1) }, axisTick: { show: false }, axisLine: { lineStyle: { color: colour("line") } } },
    yAxis: { type: "value", axisLabel: { ...text, formatter: (value) => number(value) }, splitLine: { lineStyle: { color: colour("grid") } } },
    series: [{ type: all && values.length <= 40 ? "bar" : "line", step: "middle", barMaxWidth: 64, data: values, itemStyle: { color: colour("s0") }, areaStyle: { opacity: 0.25 }, showSymbol: false }],
  };
}
