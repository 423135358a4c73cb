// Forecasts against truth, and the raw series of clients: lines over time, with gaps.

const FORECAST_RANKS = [
  ["only", "Forecast against truth"],
  ["lowest", "Forecast against truth: lowest test error"],
  ["median", "Forecast against truth: median test error"],
  ["highest", "Forecast against truth: highest test error"],
];

// An hour of the clock as a date where hour 0 has one, else as a day and a time; a step by its number.
function timeWords(value, origin, clocked, short = false) {
  if (!clocked) return Math.round(value).toLocaleString("en");
  const minutes = Math.round(value * 60);
  const two = (part) => String(part).padStart(2, "0");
  const clock = `${two(Math.floor(minutes / 60) % 24)}:${two(minutes % 60)}`;
  const day = Math.floor(minutes / 1440);
  if (!origin) return short && clock === "00:00" ? `day ${day + 1}` : `day ${day + 1}, ${clock}`;
  const date = new Date(Date.parse(`${origin}T00:00:00Z`) + day * 86400000).toISOString().slice(0, 10);
  return short && clock === "00:00" ? date : `${date} ${clock}`;
}

// Points of a line, with a break where the steps jump.
function brokenLine(xs, ys, steps, jump) {
  const points = [];
  xs.forEach((x, row) => {
    if (row && steps[row] - steps[row - 1] > jump) points.push([x, null]);
    points.push([x, ys[row]]);
  });
  return points;
}

// Ticks at whole hours, days or weeks: few, so that dates do not overlap.
function timeTicks(first, last, most) {
  const steps = [0.25, 0.5, 1, 2, 3, 6, 12, 24, 48, 96, 168, 336, 672, 1344, 2688, 4368, 8736];
  const step = steps.find((one) => (last - first) / one <= most) || Math.ceil((last - first) / most / 8736) * 8736;
  const ticks = [];
  for (let tick = Math.ceil(first / step) * step; tick <= last; tick += step) ticks.push(tick);
  return ticks;
}

// What all charts over time share.
function overTime({ first, last, origin, clocked, quantity, width, font }) {
  const count = Math.max(2, Math.floor(width / 150));
  const ticks = clocked ? { customValues: timeTicks(first, last, count) } : {};
  return {
    animation: false,
    textStyle: { fontFamily: font },
    aria: { enabled: true },
    grid: { left: 2, right: 16, top: 14, bottom: 4, containLabel: true },
    xAxis: {
      type: "value",
      min: first,
      max: last > first ? last : first + 1,
      splitNumber: count,
      axisLabel: {
        ...textStyle(font),
        hideOverlap: true,
        showMaxLabel: false,
        formatter: (value) => timeWords(value, origin, clocked, true),
        ...ticks,
      },
      name: clocked ? "time" : "step",
      axisLine: { onZero: false, lineStyle: { color: colour("line") } },
      axisTick: { show: false },
      splitLine: { show: false },
    },
    yAxis: {
      type: "value",
      scale: true,
      name: quantity,
      axisLine: { show: false },
      axisTick: { show: false },
      axisLabel: { ...textStyle(font), formatter: (value) => number(value) },
      splitLine: { lineStyle: { color: colour("grid") } },
    },
  };
}

// A tooltip with a row for each line.
function linesTip(heading, shown, words) {
  const rows = shown.map((one) =>
    el("tr", {}, el("th", {}, swatchOf(one.color), one.seriesName), el("td", {}, el("b", {}, words(one)))),
  );
  return el("div", { class: "tips" }, heading, el("table", {}, rows));
}

function timeTooltip(font, origin, clocked, format) {
  return {
    trigger: "axis",
    confine: true,
    transitionDuration: 0,
    axisPointer: { lineStyle: { color: colour("faint") } },
    ...tooltipColours(font),
    formatter: (shown) => {
      const known = shown.filter((one) => one.value[1] !== null && one.seriesName[0] !== "\u0000");
      if (!known.length) return "";
      return linesTip(timeWords(known[0].value[0], origin, clocked), known, (one) => format(one.value[1]));
    },
  };
}

function forecastOption(forecasts, client, width, font) {
  const clocked = client.hours !== null;
  const xs = clocked ? client.hours : client.steps;
  const { quantity, unit, origin, jump } = forecasts;
  const lines = [
    ["truth", client.truth, colour("ink"), "solid", 1.4],
    ["forecast", client.forecast, seriesColour(1), "solid", 1.8],
    ["persistence", client.persistence, seriesColour(0), "dotted", 1.3],
  ];
  return {
    ...overTime({ first: xs[0], last: xs.at(-1), origin, clocked, quantity, width, font }),
    tooltip: timeTooltip(font, origin, clocked, (value) => `${number(value, 4)} ${unit}`),
    legend: legendOption(true, lines.map(([name]) => ({ name }))),
    series: lines.map(([name, values, ink, type, wide], layer) => ({
      type: "line",
      name,
      data: brokenLine(xs, values, client.steps, jump),
      itemStyle: { color: ink },
      lineStyle: { color: ink, type, width: wide },
      showSymbol: xs.length < 40,
      symbol: "circle",
      symbolSize: 4,
      z: 3 - layer,
    })),
  };
}

// The error by how far ahead a forecast is made, beside that of persistence.
function leadOption(forecasts, font) {
  const { by_step, persistence_by_step, steps, unit } = forecasts;
  const lines = [
    ["forecast", by_step, seriesColour(1), "solid"],
    ...(persistence_by_step ? [["persistence", persistence_by_step, seriesColour(0), "dotted"]] : []),
  ];
  return {
    animation: false,
    textStyle: { fontFamily: font },
    aria: { enabled: true },
    grid: { left: 2, right: 16, top: 14, bottom: 4, containLabel: true },
    legend: legendOption(true, lines.map(([name]) => ({ name }))),
    tooltip: {
      trigger: "axis",
      confine: true,
      ...tooltipColours(font),
      formatter: (shown) => linesTip(steps[shown[0].dataIndex], shown, (one) => `${number(one.value)} ${unit}`),
    },
    xAxis: {
      type: "category",
      name: "time ahead",
      data: steps.map((words) => words.replace(" ahead", "")),
      axisLabel: { ...textStyle(font), hideOverlap: true },
      axisTick: { show: false },
      axisLine: { lineStyle: { color: colour("line") } },
    },
    yAxis: {
      type: "value",
      name: unit ? `error, ${unit}` : "error",
      min: 0,
      axisLabel: { ...textStyle(font), formatter: (value) => number(value) },
      splitLine: { lineStyle: { color: colour("grid") } },
    },
    series: lines.map(([name, values, ink, type]) => ({
      type: "line",
      name,
      data: values,
      itemStyle: { color: ink },
      lineStyle: { color: ink, type, width: 1.8 },
      symbol: "circle",
      symbolSize: 5,
    })),
  };
}

function paintChart(holder, option) {
  holder.className = "chart";
  const chart = echarts.getInstanceByDom(holder) || echarts.init(holder, null, { renderer: "canvas" });
  drawNamed(chart, holder, option(getComputedStyle(document.body).fontFamily));
}

function forecastCards(state) {
  const of = (view, rank) => view.forecasts && view.forecasts.clients.find((one) => one.rank === rank);
  const cards = FORECAST_RANKS.map(([rank, title]) =>
    gridCard(
      `forecast-${rank}`,
      "Forecasts",
      title,
      (view) => of(view, rank).words,
      state,
      (view) => Boolean(of(view, rank)),
      (holder, view) =>
        paintChart(holder, (font) => forecastOption(view.forecasts, of(view, rank), holder.clientWidth, font)),
      () => [],
    ),
  );
  const lead = gridCard(
    "forecast-lead",
    "Forecasts",
    "Error by time ahead",
    "Root mean squared error on the central test windows, by how far ahead a forecast is made. Persistence repeats the last reading.",
    state,
    (view) => Boolean(view.forecasts) && view.forecasts.by_step.length > 1,
    (holder, view) => paintChart(holder, (font) => leadOption(view.forecasts, font)),
    () => [],
  );
  return [...cards, lead];
}
