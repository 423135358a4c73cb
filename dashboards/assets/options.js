// Series as an ECharts option: scales, bands, marks, tooltips.

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

// The vertical axis: values, or their logarithms (so that bands can be stacked on a log axis too).
const scaleOf = (log) =>
  log
    ? { log, up: (value) => (value > 0 ? Math.log10(value) : null), down: (value) => 10 ** value }
    : { log, up: (value) => value, down: (value) => value };

const textStyle = (font) => ({ color: colour("soft"), fontFamily: font, fontSize: 11.5 });

function chartOption(spec, views, series, log, font) {
  const scale = scaleOf(log);
  const format = spec.format || number;
  const alone = views.length === 1;
  const beyond = log || !spec.steep ? null : steepStart(series);
  const upAxis = upOption(spec, series, scale, format, font, beyond);
  const drawnSeries = series.flatMap((one, order) => [
    ...bandOptions(one, order, scale),
    lineOption(one, alone, scale),
  ]);
  const main = drawnSeries.find((one) => one.z === 3);
  if (main) main.markLine = markLines(spec, views, series, scale.up, format, font);
  if (main && beyond) main.markPoint = arrows(beyond, upAxis.max);
  return {
    animation: false,
    textStyle: { fontFamily: font },
    aria: { enabled: true, label: { description: describe(spec, series, format) } },
    grid: {
      left: 2,
      right: 16,
      top: 12 + (alone && spec.ended ? 12 : 0),
      bottom: 4,
      containLabel: true,
    },
    legend: legendOption(alone && !spec.axis, series),
    tooltip: {
      trigger: "axis",
      confine: true,
      transitionDuration: 0,
      formatter: (shown) => tooltip(shown, series, format),
      axisPointer: { lineStyle: { color: colour("faint") } },
      ...tooltipColours(font),
    },
    xAxis: acrossOption(series, font),
    yAxis: { ...upAxis, name: typeof spec.up === "function" ? spec.up(views, alone ? null : series[0].key) : spec.up },
    dataZoom: [
      {
        type: "inside",
        filterMode: "filter",
        zoomOnMouseWheel: "ctrl",
        moveOnMouseWheel: false,
        moveOnMouseMove: false,
        preventDefaultMouseMove: false,
        ...(chosen.zoom ? { startValue: chosen.zoom[0], endValue: chosen.zoom[1] } : {}),
      },
    ],
    // The toolbox is off screen: only its zoom by dragging is used.
    toolbox: {
      left: -200,
      feature: {
        dataZoom: { yAxisIndex: false, filterMode: "filter", brushStyle: { color: colour("accent"), opacity: 0.12 } },
      },
    },
    series: drawnSeries,
  };
}

const tooltipColours = (font) => ({
  backgroundColor: colour("card"),
  borderColor: colour("line"),
  textStyle: { ...textStyle(font), color: colour("ink"), fontSize: 12.5 },
});

function describe(spec, series, format) {
  const last = (one) => `${one.name}, last ${format(one.y.findLast((y) => y !== null))}`;
  return `${spec.title}: ${series.slice(0, 12).map(last).join("; ")}.`;
}

const pointsOf = (one, value) => one.x.map((x, row) => [x, value(row)]).filter(([x]) => x !== null);

function lineOption(one, alone, { up }) {
  const ink = seriesColour(one.index);
  const few = one.y.filter((y) => y !== null).length < 60;
  return {
    type: "line",
    name: one.name,
    data: pointsOf(one, (row) => (one.y[row] === null ? null : up(one.y[row]))),
    itemStyle: { color: ink },
    lineStyle: {
      width: alone ? 1.8 : 1.5,
      opacity: alone ? 1 : 0.85,
      color: ink,
      type: one.line || seriesLine(one.index),
    },
    symbol: "circle",
    symbolSize: few ? 4 : 3,
    showSymbol: few,
    z: 3,
  };
}

// A band is two stacked lines: a hidden one along its lower edge, and its height filled in.
function bandOptions(one, order, { up }) {
  const ink = seriesColour(one.index);
  return (one.bands || []).flatMap(([low, high, shade], layer) => {
    const edge = (side, row) => (side.y[row] === null ? null : up(side.y[row]));
    const known = (row) => edge(low, row) !== null && edge(high, row) !== null;
    const common = {
      type: "line",
      name: one.name,
      stack: `${order}-${layer}`,
      stackStrategy: "all",
      symbol: "none",
      silent: true,
      lineStyle: { width: 0 },
      itemStyle: { color: ink },
    };
    return [
      { ...common, data: pointsOf(one, (row) => (known(row) ? edge(low, row) : null)) },
      {
        ...common,
        data: pointsOf(one, (row) => (known(row) ? edge(high, row) - edge(low, row) : null)),
        areaStyle: { color: ink, opacity: shade },
      },
    ];
  });
}

// The lines that the legend lists; `drawNamed` writes them over the chart where `lifted`.
const legendOption = (lifted, series) => ({ lifted, show: false, data: series.map((one) => one.name) });

function acrossOption(series, font) {
  const places = series.flatMap((one) => one.x).filter((x) => x !== null);
  const [first, last] = [Math.min(...places), Math.max(...places)];
  const { format } = AXES[chosen.axis];
  const steps =
    chosen.axis === "round" ? { minInterval: 1 } : format === seconds ? { interval: timeStep(last, 5) } : {};
  return {
    type: "value",
    min: first,
    max: last > first ? last : first + 1,
    name: AXES[chosen.axis].title,
    axisLabel: { ...textStyle(font), formatter: format, hideOverlap: true, alignMaxLabel: "right" },
    axisLine: { onZero: false, lineStyle: { color: colour("line") } },
    axisTick: { show: false },
    splitLine: { show: false },
    splitNumber: 6,
    ...steps,
  };
}

function upOption(spec, series, { log, up, down }, format, font, beyond) {
  const sides = series.flatMap((one) => [one, ...(one.bands || []).flatMap(([low, high]) => [low, high])]);
  const known = sides.flatMap((one) => one.y).filter((value) => value !== null);
  const values = known.map(up).filter((value) => value !== null);
  let range = {},
    ticks = {};
  if (log && values.length) {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const pad = Math.max(0.03, (high - low) * 0.04);
    range = { min: low - pad, max: high + pad };
    const found = logTicks(range.min, range.max);
    if (found.length > 1) ticks = { customValues: found };
  } else if (beyond) range = { min: beyond.low, max: beyond.high, interval: beyond.step };
  else if (spec.range) range = rangeOf(spec.range, values);
  else if (format === seconds) range = timeRange(values);
  return {
    type: "value",
    scale: true,
    axisLine: { show: false },
    axisLabel: { ...textStyle(font), formatter: (value) => format(down(value)), ...ticks },
    axisTick: { show: false, ...ticks },
    splitLine: { lineStyle: { color: colour("grid") } },
    ...range,
  };
}

// The given range, cut to the values where most of it would be empty.
function rangeOf([low, high], values) {
  const step = (high - low) / 8;
  if (!values.length) return { min: low, max: high };
  return {
    min: Math.max(low, Math.floor(Math.min(...values) / step) * step),
    max: Math.min(high, Math.ceil(Math.max(...values) / step) * step),
    interval: step,
  };
}

function timeRange(values) {
  const step = timeStep(Math.max(...values), 4) || 1;
  return { min: 0, max: Math.ceil(Math.max(...values) / step) * step || 1, interval: step };
}

// A round step of time for about this many ticks.
function timeStep(span, ticks) {
  const steps = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600, 43200, 86400];
  const raw = span / ticks;
  if (raw > 86400) return Math.ceil(raw / 86400) * 86400;
  if (raw >= 1) return steps.find((one) => one >= raw);
  const power = 10 ** Math.floor(Math.log10(raw || 1));
  return power * [1, 2, 5, 10].find((one) => one * power >= raw);
}

// Marks: where the run ended, the target, levels of the chart, and where faults and drifts begin or end.
function markLines(spec, views, series, up, format, font) {
  const data = [];
  const label = { fontFamily: font, fontSize: 11, color: colour("soft") };
  if (views.length === 1 && spec.ended) {
    const { state, round, target } = views[0];
    const place = placeOf(views[0], round);
    const tone = { converged: "good", diverged: "bad" }[state];
    if (tone && place !== null)
      data.push({
        xAxis: place,
        lineStyle: { color: colour(tone) },
        label: {
          ...label,
          color: colour(tone),
          formatter: () => state,
          position: "end",
          align: "right",
          padding: [0, 4, 0, 0],
        },
      });
    if (
      target &&
      target.value !== null &&
      series.some((one) => one.key === target.metric) &&
      up(target.value) !== null
    ) {
      data.push({
        yAxis: up(target.value),
        lineStyle: { color: colour("faint") },
        label: { ...label, formatter: () => `target ${format(target.value)}`, position: "insideStartTop" },
      });
    }
  }
  const levels = views.length === 1 && spec.levels ? spec.levels(views[0]) : [];
  for (const [value, words] of levels)
    if (up(value) !== null)
      data.push({
        yAxis: up(value),
        lineStyle: { color: colour("bad") },
        label: { ...label, formatter: () => words, position: "insideStartBottom" },
      });
  const marks = views.length === 1 && spec.marks && views[0].city ? views[0].city.marks : [];
  for (const [round] of marks) {
    const place = placeOf(views[0], round);
    if (place === null) continue;
    data.push({
      xAxis: place,
      lineStyle: { color: colour("fair"), type: "dotted" },
      label: { show: false },
    });
  }
  return data.length
    ? { symbol: "none", silent: true, animation: false, lineStyle: { type: "dashed", width: 1.2 }, data }
    : undefined;
}

// A tooltip of lines of text, the first in bold. Text is never read as markup.
const tipOf = (first, ...lines) =>
  el("div", { class: "tips" }, el("b", {}, first), ...lines.filter(Boolean).map((one) => el("div", {}, one)));

function tooltip(shown, series, format) {
  if (!shown.length) return "";
  const x = shown[0].axisValue;
  const visible = new Set(shown.map((one) => one.seriesName));
  const rows = [];
  let round = null;
  for (const one of series) {
    const row = nearest(one.x, x);
    if (round === null || Math.abs(one.x[row] - x) < round.off)
      round = { value: one.rounds[row], off: Math.abs(one.x[row] - x) };
    const late = x > one.x[one.x.length - 1] || x < one.x[0];
    if (late && !visible.has(one.name)) continue;
    const spread = (one.bands || [])
      .map(([low, high]) => (low.y[row] === null ? "" : `${format(low.y[row])} to ${format(high.y[row])}`))
      .filter(Boolean);
    const mark = swatch(one.index, one.line);
    rows.push(
      el(
        "tr",
        {},
        el("th", {}, mark, one.name),
        el("td", {}, el("b", {}, format(one.y[row]))),
        el("td", {}, spread.slice(-1)[0] || ""),
      ),
    );
  }
  const head =
    chosen.axis === "round"
      ? `round ${round.value.toLocaleString("en")}`
      : `${AXES[chosen.axis].format(x)} · round ${round.value.toLocaleString("en")}`;
  return el("div", { class: "tips" }, head, el("table", {}, rows.slice(0, 24)));
}
