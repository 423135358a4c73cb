// What probes found beside the run: its predicted course, the limit of the local rate, drift by cause, and words.

const ENDS_OF_BAND = [".low", ".high"];

// A chart of a measured loss and its predicted courses, one from each probed round.
function predictedSpec(column, name, title, up, help) {
  const keysOf = (views) => [
    ...new Set(views.flatMap((view) => (view.theory ? view.theory.predicted : []))),
  ].filter((key) => key.startsWith(`theory.${column}.`));
  return {
    id: `predicted-${column}`,
    up,
    section: "Theory",
    title,
    wide: true,
    help,
    lines: (views) => [
      [column, name],
      ...keysOf(views).map((key) => [key, `predicted from round ${Number(key.split(".")[2]).toLocaleString("en")}`]),
    ],
    between: (key) => (key.startsWith("theory.") ? ENDS_OF_BAND.map((end) => key + end) : null),
    when: (views) => keysOf(views).length > 0,
  };
}

const COURSE =
  "Predicted: the mean course of FedAvg on a quadratic with the curvature of the probed round. The line has the factor of the slowest direction and the middle of the floor; the band has all factors and floors between mu and L. Assumptions are below.";

const THEORY_CHARTS = [
  predictedSpec("optimality_gap", "optimality gap", "Predicted and measured gap", "objective above its minimum", COURSE),
  predictedSpec("objective", "global objective", "Predicted and measured objective", "objective, with penalties", COURSE),
  {
    id: "local-rate",
    up: "local learning rate",
    section: "Theory",
    title: "Local rate and its limit",
    log: false,
    help: "The local rate of the next round, and 2 / L in probed rounds: a gradient step of that rate or more does not descend along the steepest direction. The steepest client has the largest curvature along it.",
    lines: [
      ["theory.local_lr", "local rate"],
      ["theory.limit", "limit 2 / L"],
      ["theory.steepest_limit", "limit of the steepest client"],
    ],
    levels: (view) => (view.theory && view.theory.limit ? [view.theory.limit] : []),
    when: (views) => views.some((view) => seriesOf(view, "theory.limit")),
  },
];

// One bar for each probed round: the causes on each other, with the residual; parts below 0 hang under the axis.
function causesOption({ rounds, unit, parts, totals, errors }, font) {
  const known = (value) => value !== null && value !== undefined;
  const below = rounds.map((_, row) => parts.reduce((sum, [, values]) => sum + Math.min(0, values[row] ?? 0), 0));
  const seen = Math.min(...below) < -0.005 * Math.max(...totals.map((total) => total ?? 0)); // else it is no bar
  return {
    animation: false,
    textStyle: { fontFamily: font },
    aria: { enabled: true },
    grid: { left: 2, right: 16, top: 14, bottom: 4, containLabel: true },
    tooltip: {
      trigger: "axis",
      confine: true,
      transitionDuration: 0,
      axisPointer: { type: "shadow" },
      ...tooltipColours(font),
      formatter: ([{ dataIndex: row }]) =>
        tipOf(
          `round ${rounds[row].toLocaleString("en")}`,
          ...parts.map(([name, values]) => `${name} ${number(values[row])}`),
          `total ${number(totals[row])}${errors[row] ? ` ± ${number(errors[row], 1)}` : ""}`,
        ),
    },
    xAxis: {
      type: "category",
      name: "probed round",
      data: rounds.map((round) => round.toLocaleString("en")),
      axisLabel: { ...textStyle(font), hideOverlap: true },
      axisTick: { show: false },
      axisLine: { onZero: false, lineStyle: { color: colour("line") } },
    },
    yAxis: {
      type: "value",
      name: unit,
      ...(seen ? {} : { min: 0 }),
      axisLabel: { ...textStyle(font), formatter: (value) => number(value) },
      splitLine: { lineStyle: { color: colour("grid") } },
    },
    series: parts.map(([name, values], index) => ({
      type: "bar",
      name,
      stack: "causes",
      data: values.map((value) => (known(value) ? value : "-")),
      barMaxWidth: 46,
      barCategoryGap: "35%",
      itemStyle: { color: causeInk(index, parts.length) },
    })),
  };
}

// The residual is no cause, so it is grey.
const causeInk = (index, count) => (index === count - 1 ? colour("faint") : seriesColour(index));

// Each probed round in words: totals, prediction, warnings, remarks.
function probeWords(words) {
  const remarks = new Set();
  const blocks = words.flatMap((one) => {
    const fresh = one.remarks.filter((remark) => !remarks.has(remark));
    for (const remark of fresh) remarks.add(remark);
    return [
      el("h4", {}, `After round ${one.round.toLocaleString("en")}`),
      el(
        "ul",
        {},
        [one.drift, one.theory].filter(Boolean).map((sentence) => el("li", {}, sentence)),
        one.warnings.map((warning) => el("li", { class: "warning" }, warning)),
        fresh.map((remark) => el("li", { class: "help" }, remark)),
      ),
    ];
  });
  return blocks;
}

function probeWordsCard(state) {
  const card = el("section", { class: "card wide probes", id: "probes", hidden: true });
  return {
    card,
    section: "Theory",
    draw() {
      const able = state.views.map((view, index) => [view, index]).filter(([view]) => view.theory && view.theory.words.length);
      card.hidden = !able.length;
      card.replaceChildren(
        el("h3", {}, "Probed rounds"),
        ...able.flatMap(([view, index]) => [
          ...(state.views.length > 1 ? [el("p", { class: "run" }, state.labels[index])] : []),
          ...probeWords(view.theory.words),
        ]),
      );
    },
    chart: () => null,
    resize() {},
  };
}

function theoryCards(state) {
  const causes = gridCard(
    "causes",
    "Theory",
    "Drift by cause",
    "Expected squared error of a round's aggregate against the ideal, by cause. The residual is what causes add to, or take from, each other; with it the parts add up to the total.",
    state,
    (view) => Boolean(view.theory && view.theory.bars),
    (holder, view) => {
      paintChart(holder, (font) => causesOption(view.theory.bars, font));
      const { parts } = view.theory.bars;
      return parts.map(([name], index) => legendOf(causeInk(index, parts.length), name));
    },
    () => [],
  );
  return [...THEORY_CHARTS.map((spec) => chartCard(spec, state)), causes, probeWordsCard(state)];
}
