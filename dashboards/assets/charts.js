// The charts: what each shows, and the series it shows it with.

const CHARTS = [
  {
    id: "loss",
    section: "Convergence",
    title: "Loss",
    help: "Training loss is the clients' own, during local work; validation loss is the server's model on held-out examples.",
    lines: [
      ["validation_loss", "validation"],
      ["train_loss", "training"],
      ["federated_loss", "on the clients"],
    ],
    ended: true,
  },
  {
    id: "score",
    section: "Convergence",
    title: "Score",
    help: (views) =>
      views.length > 1
        ? "Of the server's model, on held-out examples or on the clients."
        : "The band is the spread over clients of the server's model: 5% to 95%, and the middle half.",
    lines: [
      ["validation_accuracy", "validation accuracy"],
      ["federated_accuracy", "accuracy on the clients"],
      ["validation_error", "validation error (root mean squared)"],
      ["federated_error", "error on the clients"],
    ],
    band: "client_spread.score",
    ended: true,
  },
  {
    id: "classes",
    section: "Convergence",
    title: "Scores that count classes alike",
    help: "Balanced accuracy is the mean over classes of the share found; macro-F1 weighs false alarms too. A common class cannot hide a rare one.",
    lines: [
      ["validation_balanced_accuracy", "validation balanced accuracy"],
      ["validation_macro_f1", "validation macro-F1"],
      ["federated_balanced_accuracy", "balanced accuracy on the clients"],
    ],
    ended: true,
  },
  {
    id: "gap",
    section: "Convergence",
    title: "Optimality gap",
    help: "How far the objective is above its known minimum.",
    lines: [["optimality_gap", "f(x) − f*"]],
    ended: true,
  },
  {
    id: "distance",
    section: "Convergence",
    title: "How far each criterion is",
    wide: true,
    timeline: true,
    log: true,
    help: (views) =>
      views.length > 1
        ? "How far a criterion's condition is from being met; a gap is where it is met."
        : "Above: the state of each criterion in each round. Below: how far its condition is from being met; a gap is where it is met.",
    lines: (views) =>
      [...new Set(views.flatMap((view) => view.criteria.map((one) => one.name)))].map((name) => [
        `criteria.${name}.distance`,
        name.replaceAll("_", " "),
      ]),
  },
  {
    id: "rate",
    section: "Convergence",
    title: "Rate",
    help: (views) =>
      `What one round leaves of the distance to the limit, fitted to the rounds so far, with its 90% interval. ${
        views.length === 1 && views[0].rate ? `Now: ${views[0].rate}.` : ""
      }`,
    lines: [["rate.factor", "fitted rate"]],
    between: ["rate.low", "rate.high"],
  },
  {
    id: "step",
    section: "Convergence",
    title: "Steps of the server",
    help: "How far a round moved the model, in all and relative to its size; and the norm of the mean gradient where it was measured.",
    lines: [
      ["step_norm", "step norm"],
      ["relative_change", "relative change"],
      ["gradient_norm", "gradient norm"],
    ],
  },
  {
    id: "drift",
    section: "Client drift",
    title: "Client drift",
    help: "Mean squared distance of local parameters from the broadcast ones, over local steps; a band over the cohort.",
    band: "client_drift",
  },
  {
    id: "cosine",
    section: "Client drift",
    title: "Direction of updates",
    help: "Cosine of each client's update with the mean update: 1 is the same way, 0 across, below 0 against it.",
    band: "cosine",
    range: [-1, 1],
    log: false,
  },
  {
    id: "dispersion",
    section: "Client drift",
    title: "Dispersion",
    help: "Weighted mean squared distance of updates from their mean, and of gradients at the broadcast model where measured.",
    lines: [
      ["update_dispersion", "update dispersion"],
      ["gradient_dissimilarity", "gradient dissimilarity"],
      ["gradient_diversity", "gradient diversity"],
    ],
  },
  {
    id: "norms",
    section: "Client drift",
    title: "Size of updates",
    help: "Norm of each client's update; a band over the cohort.",
    band: "update_norm",
  },
  {
    id: "layers",
    section: "Client drift",
    title: "Dispersion by layer",
    wide: true,
    help: "Which layers the clients disagree on. At most twelve are drawn: those with the largest dispersion.",
    lines: (views) =>
      [...new Set(views.flatMap((view) => view.layers))].map((name) => [`by_layer.${name}.update_dispersion`, name]),
  },
  {
    id: "faults",
    section: "City",
    title: "Faults realised",
    help: "Share of the cohort's readings or labels that each fault changed. Marks: where a fault or a concept drift begins (+) or ends (−).",
    lines: (views) => namesIn(views, "faults").map((name) => [`faults.${name}.changed`, name]),
    log: false,
    marks: true,
  },
  {
    id: "beside",
    section: "City",
    title: "Drift and loss beside them",
    help: "Client drift and losses over the same rounds, with the same marks.",
    lines: [
      ["client_drift.mean", "client drift"],
      ["train_loss", "training loss"],
      ["validation_loss", "validation loss"],
    ],
    when: (views) => views.some((view) => view.city),
    log: true,
    marks: true,
  },
  {
    id: "concept",
    section: "City",
    title: "Concept drift",
    wide: true,
    help: "How far the data have moved from what they were: 0 not at all, 1 as far as they will. Mean over the cohort.",
    lines: (views) => namesIn(views, "drifts").map((name) => [`concept_drift.${name}.level`, name]),
    range: [0, 1],
    log: false,
    marks: true,
  },
  {
    id: "bytes",
    section: "Time and bytes",
    title: "Data sent",
    help: "Model arrays sent each way, in all.",
    axis: "bytes",
    format: bytes,
  },
  {
    id: "time",
    section: "Time and bytes",
    title: "Simulated time",
    help: "A round lasts as long as its slowest client.",
    axis: "simulated",
    format: seconds,
  },
  {
    id: "speed",
    section: "Time and bytes",
    title: "Speed of this simulation",
    help: "Clients trained a second, here.",
    lines: [["clients_per_second", "clients a second"]],
  },
  {
    id: "people",
    section: "Time and bytes",
    title: "Respondents",
    help: "Clients whose update came in, and those that failed; not drawn where they never change.",
    lines: [
      ["respondents", "respondents"],
      ["failures", "failures"],
    ],
    when: (views) =>
      views.some((view) =>
        ["respondents", "failures"].some((key) => new Set((seriesOf(view, key) || { y: [] }).y).size > 1),
      ),
  },
];

// The names of faults or concept drifts of any of the runs.
const namesIn = (views, what) => [...new Set(views.flatMap((view) => (view.city ? view.city[what] : [])))];

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
    return views
      .map((view, row) => {
        const index = group[row];
        const table = view.series.reduce((a, b) => (b && b.of > (a ? a.of : 0) ? b : a), null);
        return (
          table && {
            name: labels[row],
            index,
            x: table.axes[chosen.axis],
            rounds: table.axes.round,
            y: table.axes[spec.axis],
          }
        );
      })
      .filter(seen);
  }
  const made = [];
  const add = (view, key, name, index) => {
    const found = seriesOf(view, key);
    if (!found) return;
    const band = spec.band && key === `${spec.band}.p50`;
    const edges = band
      ? [
          ["p05", "p95", 0.13],
          ["p25", "p75", 0.22],
        ].map(([low, high, shade]) => [`${spec.band}.${low}`, `${spec.band}.${high}`, shade])
      : spec.between
        ? [[...spec.between, 0.18]]
        : [];
    const few = views.length > 3 ? [] : views.length > 1 ? edges.slice(-1) : edges;
    const bands = few
      .map(([low, high, shade]) => [seriesOf(view, low), seriesOf(view, high), shade])
      .filter(([low, high]) => low && high);
    made.push({ name, index, key, ...found, bands });
  };
  if (views.length > 1) {
    views.forEach((view, row) => {
      if (!hidden.has(group[row])) add(view, metric, labels[row], group[row]);
    });
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
  const values = series
    .flatMap((one) => [one, ...(one.bands || []).flatMap(([low, high]) => [low, high])])
    .flatMap((one) => one.y)
    .filter((value) => value !== null);
  const positive = values.filter((value) => value > 0);
  return values.length === positive.length && positive.length > 1 && Math.max(...positive) > 20 * Math.min(...positive);
}
