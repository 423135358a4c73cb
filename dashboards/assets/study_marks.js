// Charts of points: ranking, differences, cost against score, two factors, trials of a tuning.

const MOST_ARMS_RANKED = 60;

// A chart with a named row for each entry; `names` from the top down.
function rowsOption({ names, unit, format, font, width, across = {} }) {
  const text = textStyle(font),
    room = Math.min(260, width * 0.36);
  ruler.font = `12px ${font}`;
  const lines = Math.max(...names.map((name) => Math.ceil((1.15 * ruler.measureText(name).width) / room)));
  return {
    animation: false,
    textStyle: { fontFamily: font },
    aria: { enabled: true },
    height: names.length * Math.max(26, 14 * lines + 8) + 46,
    grid: { left: 4, right: 22, top: 6, bottom: 4, containLabel: true },
    xAxis: {
      type: "value",
      name: unit,
      scale: true,
      splitNumber: width < 420 ? 3 : 6,
      axisLabel: { ...text, hideOverlap: true, formatter: format },
      axisLine: { show: false },
      splitLine: { lineStyle: { color: colour("grid") } },
      ...across,
    },
    yAxis: {
      type: "category",
      name: "arm",
      inverse: true,
      data: names,
      axisTick: { show: false },
      axisLine: { onZero: false, lineStyle: { color: colour("line") } },
      axisLabel: { ...text, interval: 0, width: room, overflow: "break", lineHeight: 14 },
    },
  };
}

// An interval as a thick line; without an upper end it goes to `end`, dashed.
const intervalOption = (row, low, high, ink, end) => ({
  type: "line",
  data: [
    [low, row],
    [high ?? end, row],
  ],
  symbol: "none",
  silent: true,
  lineStyle: { color: ink, width: 4, opacity: 0.45, type: high === null ? "dashed" : "solid", cap: "round" },
  z: 3,
});

const itemTip = (font, formatter) => ({ trigger: "item", confine: true, transitionDuration: 0, ...tooltipColours(font), formatter });

function rankingCard(state) {
  const { view } = state;
  const of = (key) => view.rankings.find((one) => one.key === key);
  return studyCard(state, {
    id: "ranking",
    section: "Ranking",
    title: "Arms in order",
    wide: true,
    help: ({ measure }) => {
      const { kind, better } = of(measure);
      const what = kind === "mean" ? "Mean over seeds with Student's 95% interval" : "Kaplan and Meier's median over seeds with its 95% interval";
      const order = better ? (view.grouped ? "; the best arm of each comparison first" : "; the best arm first") : "; in the study's order, since no direction is better";
      return `${what}${order}. Small dots are runs${kind === "median" ? ", triangles runs that missed the target" : ""}. Intervals of arms may overlap although their pairs differ: the differences below decide.`;
    },
    has: () => view.rankings.length > 0,
    choices: () => [["measure", view.rankings.map((one) => [one.key, one.name]), "measure"]],
    draw(holder, { measure }) {
      const { rows, kind } = of(measure);
      const kept = rows.slice(0, MOST_ARMS_RANKED);
      const format = measureFormat(view, measure);
      const values = view.values[measure],
        bounds = view.bounds[measure] || [];
      const end = Math.max(...values.filter((one) => one !== null));
      const place = new Map(kept.map((one, row) => [one.arm, row]));
      const dots = view.runs
        .map((run, index) => ({ run, index }))
        .filter(({ run, index }) => values[index] !== null && place.has(run.arm))
        .map(({ run, index }) => ({
          value: [values[index], place.get(run.arm)],
          run: index,
          symbol: bounds[index] ? "triangle" : "circle",
          itemStyle: { color: armColour(run.arm), opacity: 0.45 },
        }));
      const points = kept
        .map((one, row) => ({ one, row }))
        .filter(({ one }) => one.estimate !== null)
        .map(({ one, row }) => ({ value: [one.estimate, row], rank: one, itemStyle: { color: armColour(one.arm), borderColor: colour("card"), borderWidth: 1.5 } }));
      const option = rowsOption({ names: kept.map((one) => view.arms[one.arm]), unit: measureName(view, measure), format, font: state.font, width: holder.clientWidth });
      const told = ({ estimate, low, high }) =>
        `${kind} ${format(estimate)}${low === null ? "" : `, interval ${format(low)} to ${high === null ? "?" : format(high)}`}`;
      option.aria.label = { description: `${measureName(view, measure)}: ${kept.slice(0, 12).map((one) => `${view.arms[one.arm]}, ${told(one)}`).join("; ")}.` };
      option.tooltip = itemTip(state.font, ({ data }) =>
        data.rank
          ? tipOf(view.arms[data.rank.arm], told(data.rank), `${data.rank.n} runs${data.rank.missed ? `, ${data.rank.missed} missed the target` : ""}`)
          : tipOf(`${bounds[data.run] ? "≥ " : ""}${format(values[data.run])}`, `${view.arms[view.runs[data.run].arm]}, seed ${view.runs[data.run].seed}`),
      );
      option.series = [
        { type: "scatter", data: dots, symbolSize: 5, z: 2 },
        ...kept.flatMap((one, row) => (one.low === null ? [] : [intervalOption(row, one.low, one.high, armColour(one.arm), end)])),
        { type: "scatter", data: points, symbol: "diamond", symbolSize: 13, z: 4 },
      ];
      const none = kept.filter((one) => one.estimate === null && one.n).map((one) => view.arms[one.arm]);
      const notes = none.length ? [`Half of the runs or more missed the target, so there is no median: ${none.join(", ")}.`] : [];
      if (rows.length > kept.length) notes.push(`${kept.length} of ${rows.length} arms are drawn.`);
      drawStudy("ranking", holder, option, notes);
    },
  });
}

// Differences of pairs of arms, as a change with its interval around 0.
function differencesCard(state) {
  const { view } = state;
  const scales = view.comparisons.map((one) => one.scale);
  const scale = scales.filter((one) => one === "ratio").length * 2 >= scales.length ? "ratio" : "difference";
  const kept = view.comparisons.filter((one) => one.scale === scale && one.change !== null).slice(0, MOST_ARMS_RANKED);
  const firsts = new Set(kept.map((one) => one.first));
  const alone = firsts.size === 1 ? view.arms[kept[0].first] : "";
  const name = (one) => (alone ? view.arms[one.second] : `${view.arms[one.second]} against ${view.arms[one.first]}`);
  const unit = () => {
    const { name: what, better } = view.measures[view.measure];
    return `${scale === "ratio" ? "change" : "difference"} of ${what}${better ? ` (${better} is better)` : ""}`;
  };
  return studyCard(state, {
    id: "differences",
    section: "Ranking",
    title: alone ? `Differences from ${alone}` : "Differences of pairs",
    wide: true,
    help: "Pair by pair: both runs of a pair have the same seed. The line is Student's 95% interval; a hollow mark is a difference that cannot be told from none.",
    has: () => kept.length > 0,
    draw(holder) {
      const format = scale === "ratio" ? percent : measureFormat(view, view.measure);
      const option = rowsOption({ names: kept.map(name), unit: unit(), format, font: state.font, width: holder.clientWidth, across: { scale: false } });
      option.aria.label = { description: kept.slice(0, 12).map((one) => one.sentence).join("; ") };
      option.tooltip = itemTip(state.font, ({ data }) => tipOf(`${data.one.text[0]} (${data.one.text[1]})`, data.one.sentence));
      const points = kept.map((one, row) => ({
        value: [one.change, row],
        one,
        itemStyle: one.differs
          ? { color: armColour(one.second), borderColor: armColour(one.second), borderWidth: 2 }
          : { color: colour("card"), borderColor: armColour(one.second), borderWidth: 2 },
      }));
      const zero = { symbol: "none", silent: true, label: { show: false }, lineStyle: { color: colour("faint"), type: "dashed" }, data: [{ xAxis: 0 }] };
      option.series = [
        ...kept.flatMap((one, row) => (one.low === null ? [] : [intervalOption(row, one.low, one.high, armColour(one.second), one.high)])),
        { type: "scatter", data: points, symbol: "diamond", symbolSize: 12, z: 4, markLine: zero },
      ];
      const rest = view.comparisons.length - kept.length;
      drawStudy("differences", holder, option, rest ? [`${rest} more pairs are in the table alone.`] : []);
    },
  });
}

// Cost against score: runs as small dots, arms at their medians, and the arms that no other beats joined by a line.
function tradeoffCard(state) {
  const { view } = state;
  const pairs = view.tradeoff;
  const names = (key) => [...new Set(pairs.map((one) => one[key]))].map((one) => [one, measureName(view, one)]);
  return studyCard(state, {
    id: "tradeoff",
    section: "Cost",
    title: "Cost against score",
    wide: true,
    help: "Large dots are the medians of arms, small ones runs. The line joins the arms on the Pareto front: no other arm is both cheaper and better.",
    has: () => pairs.length > 0,
    choices: () => [
      ["cost", names("cost"), "cost"],
      ["score", names("score"), "score"],
    ],
    draw(holder, { cost, score }) {
      const found = pairs.find((one) => one.cost === cost && one.score === score);
      if (!found) {
        drawStudy("tradeoff", holder, { ...plainAxes(state.font, { name: measureName(view, cost) }, { name: measureName(view, score) }), series: [] }, ["No two arms have both numbers."]);
        return [];
      }
      const { points, front } = found;
      const [across, up] = [measureFormat(view, cost), measureFormat(view, score)];
      const faint = (arm) => state.hidden.has(arm);
      const ink = (arm) => (faint(arm) ? colour("wait") : armColour(arm));
      const better = view.measures[score].better;
      const option = plainAxes(
        state.font,
        { name: `${measureName(view, cost)} (less is cheaper)`, scale: true, splitNumber: holder.clientWidth < 420 ? 3 : 6, axisLabel: { ...textStyle(state.font), hideOverlap: true, formatter: across } },
        { name: `${measureName(view, score)} (${better} is better)`, scale: true, axisLabel: { ...textStyle(state.font), formatter: up } },
      );
      option.grid.right = 30;
      const line = front.map((arm) => points[arm]);
      option.aria.label = { description: `On the Pareto front: ${front.map((arm) => `${view.arms[arm]}, ${across(points[arm][0])} for ${up(points[arm][1])}`).join("; ")}.` };
      option.tooltip = itemTip(state.font, ({ data }) =>
        tipOf(data.run === undefined ? view.arms[data.arm] : `${view.arms[data.arm]}, seed ${view.runs[data.run].seed}`, `${measureName(view, cost)} ${across(data.value[0])}`, `${measureName(view, score)} ${up(data.value[1])}`, data.run === undefined && front.includes(data.arm) ? "on the Pareto front" : ""),
      );
      option.series = [
        {
          type: "scatter",
          symbolSize: 5,
          z: 2,
          data: view.runs.flatMap(({ arm }, run) => {
            const value = [view.values[cost][run], view.values[score][run]];
            return value.includes(null) ? [] : [{ value, arm, run, itemStyle: { color: ink(arm), opacity: 0.4 } }];
          }),
        },
        { type: "line", data: line, symbol: "none", silent: true, lineStyle: { color: colour("soft"), width: 1.5, type: "dashed" }, z: 3 },
        {
          type: "scatter",
          z: 4,
          data: points.flatMap((value, arm) =>
            value ? [{ value, arm, symbolSize: front.includes(arm) ? 17 : 12, itemStyle: { color: ink(arm), borderColor: front.includes(arm) ? colour("ink") : colour("card"), borderWidth: front.includes(arm) ? 2 : 1 } }] : [],
          ),
        },
      ];
      drawStudy("tradeoff", holder, option, [`On the front, from the cheapest: ${front.map((arm) => view.arms[arm]).join(", ")}.`]);
    },
  });
}

// Two factors: a line for each value of one, over the values of the other, with intervals.
function interactionCard(state) {
  const { view } = state;
  const pairKey = (one) => JSON.stringify([one.across, one.lines]);
  const pairs = [...new Map(view.interactions.map((one) => [pairKey(one), `${one.across} by ${one.lines}`]))];
  const measures = [...new Set(view.interactions.map((one) => one.measure))].map((key) => [key, measureName(view, key)]);
  return studyCard(state, {
    id: "interaction",
    section: "Factors",
    title: "Two factors together",
    wide: true,
    help: "Mean over seeds, with Student's 95% interval; other factors are averaged. Lines that are not parallel: the effect of one factor depends on the other.",
    has: () => view.interactions.length > 0,
    choices: () => [
      ["pair", pairs, "factors"],
      ["measure", measures, "measure"],
    ],
    draw(holder, { pair, measure }) {
      const found = view.interactions.find((one) => pairKey(one) === pair && one.measure === measure);
      const format = measureFormat(view, measure);
      const { columns, rows, cells, across, lines, bounded } = found || { columns: [], rows: [], cells: [] };
      const shift = (row) => (rows.length > 1 ? ((row - (rows.length - 1) / 2) / rows.length) * 0.16 : 0);
      const ticks = columns.map((_, at) => at);
      const option = plainAxes(
        state.font,
        {
          name: across || "",
          min: -0.5,
          max: columns.length - 0.5,
          axisTick: { show: false, customValues: ticks },
          axisLabel: { ...textStyle(state.font), customValues: ticks, formatter: (at) => columns[at] ?? "", width: Math.max(40, (holder.clientWidth - 60) / Math.max(1, columns.length) - 8), overflow: "truncate", hideOverlap: true },
        },
        { name: measureName(view, measure), scale: true, axisLabel: { ...textStyle(state.font), formatter: format } },
      );
      const levels = rows.map((row) => `${lines} ${row}`);
      option.legend = { lifted: true, show: false, data: levels };
      option.aria.label = { description: levels.map((name, row) => `${name}: ${columns.map((column, at) => `${column} ${format(cells[row][at]?.[0] ?? null)}`).join(", ")}`).join("; ") };
      option.tooltip = itemTip(state.font, ({ data }) => {
        const [mean, low, high, runs] = cells[data.row][data.at];
        return tipOf(`${columns[data.at]}, ${levels[data.row]}`, `mean ${format(mean)}${low === null ? "" : ` (${format(low)} to ${format(high)})`}`, `${runs} runs`);
      });
      option.series = levels.flatMap((name, row) => {
        const ink = seriesColour(row);
        const known = cells[row].map((cell, at) => ({ cell, at })).filter(({ cell }) => cell);
        return [
          {
            type: "line",
            name,
            data: known.map(({ cell, at }) => ({ value: [at + shift(row), cell[0]], row, at })),
            symbol: "circle",
            symbolSize: 8,
            itemStyle: { color: ink },
            lineStyle: { color: ink, width: 1.8, type: seriesLine(row) },
            z: 3,
          },
          ...known
            .filter(({ cell }) => cell[1] !== null)
            .map(({ cell, at }) => ({
              type: "line",
              name,
              data: [
                [at + shift(row), cell[1]],
                [at + shift(row), cell[2]],
              ],
              symbol: "none",
              silent: true,
              itemStyle: { color: ink },
              lineStyle: { color: ink, width: 3, opacity: 0.4 },
            })),
        ];
      });
      drawStudy("interaction", holder, option, bounded ? ["A run that missed its target counts at what it spent, a lower bound."] : []);
    },
  });
}

// Trials of a tuning: the value that each gave, along one parameter.
function tuningCard(state) {
  const { tuning } = state.view;
  const able = tuning.map((one, index) => [String(index), one.name || "the scenario"]).filter(([index]) => tuning[index].trials.length && tuning[index].keys.length);
  const keys = [...new Set(tuning.flatMap((one) => one.keys))].map((key) => [key, key]);
  return studyCard(state, {
    id: "tuning",
    section: "Tuning",
    title: "Trials",
    wide: true,
    help: "One dot a complete trial: its median over the seeds of the tuning. A wide floor is a flat optimum. Triangles are lower bounds: the target was missed.",
    has: () => able.length > 0,
    choices: () => [
      ["arm", able, "arm"],
      ["key", keys, "parameter"],
    ],
    draw(holder, { arm, key }) {
      const one = tuning[Number(arm)],
        at = one.keys.indexOf(key),
        format = FORMATS[one.format];
      const trials = at < 0 ? [] : one.trials.filter((trial) => trial.values[at] !== null);
      const plain = trials.every((trial) => typeof trial.values[at] === "number");
      const xs = trials.map((trial) => trial.values[at]);
      const log = plain && Math.min(...xs) > 0 && Math.max(...xs) > 20 * Math.min(...xs);
      const levels = plain ? [] : [...new Set(xs.map(String))];
      const option = plainAxes(
        state.font,
        plain
          ? { type: log ? "log" : "value", name: key, scale: true, axisLabel: { ...textStyle(state.font), hideOverlap: true, formatter: (value) => number(value) } }
          : { type: "category", name: key, data: levels },
        { name: one.measure, scale: true, axisLabel: { ...textStyle(state.font), formatter: format } },
      );
      const best = (one.better === "higher" ? Math.max : Math.min)(...trials.map((trial) => trial.value));
      option.aria.label = { description: `${trials.length} trials of ${one.name}; the best value is ${format(best)}.` };
      option.tooltip = itemTip(state.font, ({ data }) => tipOf(`${data.trial.missed ? "≥ " : ""}${format(data.trial.value)}`, ...one.keys.map((name, index) => `${name} ${typeof data.trial.values[index] === "number" ? number(data.trial.values[index]) : data.trial.values[index]}`)));
      option.series = [
        {
          type: "scatter",
          data: trials.map((trial) => ({
            value: [plain ? trial.values[at] : String(trial.values[at]), trial.value],
            trial,
            symbol: trial.missed ? "triangle" : "circle",
            symbolSize: trial.value === best ? 15 : 8,
            itemStyle: { color: colour(trial.value === best ? "s1" : "s0"), opacity: 0.75 },
          })),
        },
      ];
      drawStudy("tuning", holder, option, trials.length ? [] : ["No trial of this arm has this parameter."]);
    },
  });
}
