// The parts of a study's cards, and the charts along an axis: curves over seeds, and runs that reached the target.

// How measures are written; axes call these with more arguments than the value.
const known = (format) => (value) => (value === null || value === undefined ? "–" : format(value));
const FORMATS = {
  number: (value) => number(value),
  bytes: known((value) => bytes(value)),
  seconds: known((value) => seconds(value)),
  share: known((value) => value.toFixed(3)),
};
const ruler = el("canvas").getContext("2d"); // measures texts
const percent = (value) => `${number(100 * value, 3)}%`;
const MOST_BANDS = 6; // arms with a band each
const BEST = 6; // arms that are drawn at first where there are many
const MANY = 12; // arms from which on not all are drawn at first

// The colours of arms go by their rank, so that the best six differ most.
const ranks = [];
const inkOf = (arm) => ranks[arm] ?? arm;
const armColour = (arm) => seriesColour(inkOf(arm));
const armSwatch = (arm) => swatch(inkOf(arm));

const measureName = (view, key) => view.measures[key].name;
const measureFormat = (view, key) => FORMATS[view.measures[key].format];

// A card of a study: `choices(view)` are pickers, `draw(holder, picked)` returns the parts of the legend.
function studyCard(state, { id, section, title, help, wide, grid, has, choices = () => [], draw }) {
  const { card, tools, words } = makeCard(id, title, "", wide);
  const holder = card.appendChild(el("div", { class: grid ? "grid" : "chart" }));
  const legend = card.appendChild(el("div", { class: "legend" }));
  const offers = choices(state.view);
  const picked = Object.fromEntries(offers.map(([name, options]) => [name, options[0]?.[0]]));
  for (const [name, options, label] of offers)
    if (options.length > 1)
      tools.append(
        picker(
          options,
          picked[name],
          (value) => {
            picked[name] = value;
            paint();
          },
          `${label} of ${title}`,
        ),
      );
  function paint() {
    card.hidden = !has(state.view);
    if (card.hidden) return drawn.forget(id);
    drawn.expect(id);
    words.textContent = typeof help === "function" ? help(picked) : help;
    legend.replaceChildren(...(draw(holder, picked) || []).filter(Boolean));
    if (!echarts.getInstanceByDom(holder)) drawn.finish(id);
  }
  return { id, card, section, paint };
}

// Draw an option in a card, and count the card once it is drawn.
function drawStudy(id, holder, option, notes = []) {
  const found = echarts.getInstanceByDom(holder);
  const chart = found || echarts.init(holder, null, { renderer: "canvas" });
  if (!found) {
    chart.on("finished", () => drawn.finish(id));
    chart.getZr().on("dblclick", () => chart.dispatchAction({ type: "dataZoom", start: 0, end: 100 }));
  }
  drawNamed(chart, holder, option);
  noteUnder(holder, notes);
}

const logButton = (state) =>
  el("button", { type: "button", class: "small", title: "logarithmic scale", "aria-pressed": String(Boolean(state.log)) }, "log");

// The arms of a chart along an axis: those that are not hidden and have a curve.
const shownArms = (state, curves) =>
  curves.map((one, arm) => ({ one, arm })).filter(({ one, arm }) => one && !state.hidden.has(arm));

function alongTip(shown, series, format) {
  if (!shown.length) return "";
  const x = shown[0].axisValue;
  const rows = series.slice(0, 24).map((one) => {
    const row = one.step ? Math.max(0, one.x.findLastIndex((place) => place <= x)) : nearest(one.x, x);
    const [low, high] = (one.edges || []).map((values) => values[row]);
    const band = low === null || low === undefined || high === null || high === undefined ? "" : `${format(low)} to ${format(high)}`;
    return el("tr", {}, el("th", {}, swatch(one.index), one.name), el("td", {}, el("b", {}, format(one.y[row]))), el("td", {}, band));
  });
  return el("div", { class: "tips" }, `${AXES[chosen.axis].title} ${AXES[chosen.axis].format(x)}`, el("table", {}, rows));
}

const side = (y, x) => ({ y, rounds: x });

// Curves of one quantity: the median over seeds of each arm, and its band where few arms are drawn.
function curveSeries(state, curve) {
  const arms = shownArms(state, curve.axes[chosen.axis] || []);
  return arms.map(({ one, arm }) => {
    const edges = one.low ? [one.low, one.high] : null;
    const bands = edges && arms.length <= MOST_BANDS ? [[side(edges[0], one.x), side(edges[1], one.x), arms.length > 3 ? 0.09 : 0.16]] : [];
    return { name: state.view.arms[arm], index: inkOf(arm), x: one.x, rounds: one.x, y: one.mid, bands, edges };
  });
}

function curveCard(state, curve) {
  let log = null;
  const made = studyCard(state, {
    id: `curve-${curve.key.replaceAll(".", "-")}`,
    section: "Curves",
    title: capital(curve.name),
    help: "Median over seeds; the band is from 10% to 90% of the runs. A run that ended keeps its last value.",
    has: () => curveSeries(state, curve).length > 0,
    draw(holder) {
      const series = curveSeries(state, curve);
      if (log === null) log = wantsLog(series);
      button.setAttribute("aria-pressed", String(log));
      const spec = { id: curve.key, title: curve.name, up: curve.unit, steep: chosen.axis === "round" };
      const option = chartOption(spec, [], series, log, state.font);
      option.tooltip.formatter = (shown) => alongTip(shown, series, number);
      const few = series.length > MOST_BANDS ? [`Bands are drawn for ${MOST_BANDS} arms or fewer.`] : [];
      drawStudy(made.id, holder, option, [...notesUnder(spec, [], series, log, number), ...few]);
    },
  });
  const button = logButton({ log });
  button.addEventListener("click", () => {
    log = !log;
    made.paint();
  });
  made.card.querySelector(".head").append(button);
  return made;
}

// The share of runs that reached the target: steps up, a tick where a run ended without it.
function reachedSeries(state) {
  const arms = shownArms(state, state.view.survival[chosen.axis] || []);
  const end = Math.max(...arms.map(({ one }) => one.x.at(-1)));
  return arms.map(({ one, arm }) => {
    const more = one.reached.at(-1) === 1 && one.x.at(-1) < end ? [end] : [];
    const [x, y] = [[...one.x, ...more], [...one.reached, ...more.map(() => 1)]];
    const edges = [one.low, one.high].map((values) => [...values, ...more.map(() => null)]);
    const bands = arms.length <= 2 ? [[side(edges[0], x), side(edges[1], x), 0.14]] : [];
    return { name: state.view.arms[arm], index: inkOf(arm), x, rounds: x, y, bands, edges, step: true, missed: one.missed, n: one.n };
  });
}

function reachedCard(state) {
  return studyCard(state, {
    id: "reached-target",
    section: "Target",
    title: "Runs that reached the target",
    wide: true,
    help: "Share of the runs of an arm that reached the target by then (one minus Kaplan and Meier's curve). A tick: a run ended there without it. Two arms have their 95% band.",
    has: () => shownArms(state, state.view.survival[chosen.axis] || []).length > 0,
    draw(holder) {
      const series = reachedSeries(state);
      const option = chartOption({ id: "reached", title: "Runs that reached the target", up: "share of runs" }, [], series, false, state.font);
      for (const one of option.series) one.step = "end";
      for (const one of option.series) one.showSymbol = false;
      Object.assign(option.yAxis, { min: 0, max: 1, interval: 0.25 });
      const ticks = series.flatMap((one) =>
        one.missed.map((at) => ({
          value: [at, one.y[Math.max(0, one.x.findLastIndex((x) => x <= at))]],
          itemStyle: { color: seriesColour(one.index) },
        })),
      );
      option.series.push({ type: "scatter", data: ticks, symbol: "rect", symbolSize: [2, 12], silent: true, z: 4 });
      option.tooltip.formatter = (shown) => alongTip(shown, series, percent);
      const missed = series.filter((one) => one.missed.length).map((one) => `${one.name} ${one.missed.length} of ${one.n}`);
      drawStudy("reached-target", holder, option, missed.length ? [`Runs without the target: ${missed.slice(0, 12).join(", ")}.`] : []);
    },
  });
}
