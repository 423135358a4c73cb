// The charts: title, help text, title of the vertical axis (`up`) and series of each. A line given by its key alone takes
// its name from the view. `between` are the keys of a band, or a function from a line's key to them.

// What the scores of runs are, with their units: accuracies of a classification, errors of a regression, else losses.
function scoreTitle(views, key) {
  const has = (view, what) => ["validation", "federated"].some((where) => seriesOf(view, `${where}_${what}`));
  const titleOf = (view) => {
    if (key ? key.endsWith("_accuracy") : has(view, "accuracy")) return "share of examples that are right";
    if (key ? key.endsWith("_error") : has(view, "error")) return view.error || "error";
    return has(view, "accuracy") ? "share of examples that are right" : has(view, "error") ? view.error || "error" : "mean loss of an example";
  };
  const shown = key ? views.filter((view) => seriesOf(view, key)) : views;
  return [...new Set(shown.map(titleOf))].join("; ");
}

const CHARTS = [
  {
    id: "loss",
    up: "mean loss of an example",
    steep: true,
    section: "Convergence",
    title: "Loss",
    help: "Training loss: clients during local work. Validation loss: the server's model on the central validation examples. Global objective: the weighted training loss of all clients, with penalties. Test loss: on the central test examples, which decide nothing.",
    lines: [
      "validation_loss",
      "train_loss",
      "federated_loss",
      ["objective", "global objective"],
      ["test_loss", "test loss"],
    ],
    ended: true,
  },
  {
    id: "score",
    up: scoreTitle,
    steep: true,
    log: false,
    section: "Convergence",
    title: "Score",
    help: (views) =>
      views.length > 1
        ? "The server's model on the validation examples or on the clients."
        : `The server's model on the validation examples${
            views.some((view) => seriesOf(view, "client_spread.score.p50"))
              ? ". The bands show its score over clients: 5% to 95%, and the middle half."
              : "."
          }`,
    lines: [
      "validation_accuracy",
      "federated_accuracy",
      "validation_error",
      "federated_error",
      ["test_accuracy", "test accuracy"],
      ["test_error", "test error"],
    ],
    band: "client_spread.score",
    ended: true,
  },
  {
    id: "classes",
    up: "mean over classes, 0 to 1",
    log: false,
    section: "Convergence",
    title: "Scores averaged over classes",
    help: "On the validation examples. Balanced accuracy is the mean recall over classes; macro-F1 also counts false alarms. A rare class weighs as much as a common one.",
    lines: [
      ["validation_balanced_accuracy", "balanced accuracy"],
      ["validation_macro_f1", "macro-F1"],
      ["federated_balanced_accuracy", "balanced, on the clients"],
      ["test_balanced_accuracy", "balanced, on test examples"],
      ["test_macro_f1", "macro-F1, on test examples"],
    ],
    ended: true,
  },
  {
    id: "frechet",
    up: "squared distance",
    section: "Samples",
    title: "Fréchet distance of samples",
    help: "Between the Gaussians of the model's samples and of as many held-out examples, on principal components (Heusel et al. 2017). Lower is better. It sees means and covariances alone.",
    lines: [
      ["validation_frechet_distance", "from validation examples"],
      ["test_frechet_distance", "from test examples"],
    ],
    ended: true,
  },
  {
    id: "samples-share",
    up: "share, 0 to 1",
    log: false,
    section: "Samples",
    title: "Precision and coverage of samples",
    help: "Precision: the share of samples that lie among real examples (Kynkäänniemi et al. 2019). Coverage: the share of real examples that have a sample nearby (Naeem et al. 2020). High precision with low coverage is a generator that repeats itself.",
    lines: [
      ["validation_sample_precision", "precision"],
      ["validation_sample_coverage", "coverage"],
      ["test_sample_precision", "precision, test examples"],
      ["test_sample_coverage", "coverage, test examples"],
    ],
    ended: true,
  },
  {
    id: "gap",
    up: "gap: objective above its minimum; distance: norm",
    section: "Convergence",
    title: "Optimality gap",
    help: "Distance of the objective from its known minimum, f(w) - f*, and of the parameters from the minimiser, |w - w*|.",
    lines: [
      ["optimality_gap", "gap"],
      ["distance_to_optimum", "distance"],
    ],
    ended: true,
  },
  {
    id: "distance",
    up: "distance from the condition, in parts of its limit",
    section: "Convergence",
    title: "Convergence criteria",
    wide: true,
    timeline: true,
    log: true,
    help: (views) =>
      views.length > 1
        ? "Distance of a criterion from its condition; the line has a gap where the condition is met."
        : "Top: the state of each criterion by round. Bottom: its distance from its condition; a line has a gap where the condition is met.",
    lines: (views) =>
      [...new Map(views.flatMap((view) => view.criteria.map((one) => [one.name, one.label])))].map(([name, label]) => [
        `criteria.${name}.distance`,
        label,
      ]),
  },
  {
    id: "rate",
    up: "factor a round",
    section: "Convergence",
    title: "Rate",
    help: (views) =>
      `The factor by which a round shrinks the distance to the limit, fitted to the rounds so far, with its 90% interval. ${
        views.length === 1 && views[0].rate ? `Last: ${views[0].rate}.` : ""
      }`,
    lines: [["rate.factor", "fitted rate"]],
    between: ["rate.low", "rate.high"],
  },
  {
    id: "step",
    up: "norm; relative change: a ratio",
    section: "Convergence",
    title: "Server steps",
    help: "Norm of a round's change of the parameters, absolute and relative to their norm; largest norm of a client's local gradient; norm of the true gradient where it was measured.",
    lines: [
      ["step_norm", "norm of the step"],
      "relative_change",
      "gradient_norm",
      ["largest_gradient_norm", "largest gradient of a client"],
    ],
  },
  {
    id: "drift",
    up: "mean squared distance of parameters",
    section: "Client drift",
    title: "Client drift",
    help: "Mean squared distance of local parameters from the broadcast parameters over local steps. The bands are over the cohort.",
    band: "client_drift",
  },
  {
    id: "cosine",
    up: "cosine, −1 to 1",
    section: "Client drift",
    title: "Direction of updates",
    help: "Cosine of each client's update with the mean update: 1 is the same direction, 0 orthogonal, below 0 opposed.",
    band: "cosine",
    range: [-1, 1],
    log: false,
  },
  {
    id: "dispersion",
    up: "mean squared distance; diversity: a ratio",
    section: "Client drift",
    title: "Update dispersion",
    help: "Weighted mean squared distance of updates from their mean; of gradients at the broadcast model where measured.",
    lines: [
      ["update_dispersion", "update dispersion"],
      ["gradient_dissimilarity", "gradient dissimilarity"],
      ["gradient_diversity", "gradient diversity"],
    ],
  },
  {
    id: "norms",
    up: "norm of the update",
    section: "Client drift",
    title: "Norm of updates",
    help: "Norm of each client's update. The bands are over the cohort.",
    band: "update_norm",
  },
  {
    id: "layers",
    up: "mean squared distance",
    section: "Client drift",
    title: "Dispersion by layer",
    wide: true,
    help: "Update dispersion within each layer. The twelve layers with the largest dispersion are drawn.",
    lines: (views) =>
      [...new Set(views.flatMap((view) => view.layers))].map((name) => [`by_layer.${name}.update_dispersion`, name]),
  },
  {
    id: "layer_norms",
    up: "norm of the pseudo-gradient",
    section: "Client drift",
    title: "Gradient norms by layer",
    wide: true,
    help: "Norm of each layer's part of the pseudo-gradient, the mean update with its sign changed. The same layers as above.",
    lines: (views) =>
      [...new Set(views.flatMap((view) => view.layers))].map((name) => [`by_layer.${name}.aggregate_norm`, name]),
  },
  {
    id: "faults",
    up: "share of readings or labels",
    section: "Faults and concept drifts",
    title: "Fault rates",
    help: "Share of the cohort's readings or labels that each fault changed. A dotted mark: a fault or a concept drift begins (+) or ends (−).",
    lines: (views) => namesIn(views, "faults").map((name) => [`faults.${name}.changed`, name]),
    log: false,
    marks: true,
  },
  {
    id: "beside",
    up: "loss; client drift: mean squared distance",
    section: "Faults and concept drifts",
    title: "Client drift and loss",
    help: "Client drift and losses of the same rounds, with the marks of faults and concept drifts.",
    lines: [
      ["client_drift.mean", "client drift"],
      "train_loss",
      "validation_loss",
    ],
    when: (views) => views.some((view) => view.city && view.city.faults.length + view.city.drifts.length > 0),
    log: true,
    marks: true,
  },
  {
    id: "concept",
    up: "level, 0 to 1",
    section: "Faults and concept drifts",
    title: "Concept drift",
    wide: true,
    help: "Level of each concept drift, mean over the cohort: 0 is the data as they were, 1 the full change.",
    lines: (views) => namesIn(views, "drifts").map((name) => [`concept_drift.${name}.level`, name]),
    range: [0, 1],
    log: false,
    marks: true,
  },
  {
    id: "bytes",
    up: "data sent, both ways",
    section: "Time and bytes",
    title: "Data sent",
    help: "Total size of the model arrays sent, both ways.",
    axis: "bytes",
    format: bytes,
  },
  {
    id: "time",
    up: "simulated time",
    section: "Time and bytes",
    title: "Simulated time",
    help: "Total simulated time. A round lasts as long as its slowest client.",
    axis: "simulated",
    format: seconds,
  },
  {
    id: "speed",
    up: "clients a second",
    section: "Time and bytes",
    title: "Simulation speed",
    help: "Clients trained per second of wall time.",
    lines: [["clients_per_second", "clients per second"]],
  },
  {
    id: "people",
    up: "clients",
    section: "Time and bytes",
    title: "Respondents",
    help: "Clients whose update arrived, and clients that failed. Hidden where neither changes.",
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

const linesOf = (spec, views) =>
  (typeof spec.lines === "function" ? spec.lines(views) : spec.lines || []).map((line) =>
    typeof line === "string" ? [line, views[0].names[line]] : line,
  );

// The metrics that a chart of several runs offers, one at a time.
function metricsOf(spec, views) {
  if (spec.axis) return [[spec.axis, spec.title]];
  const found = linesOf(spec, views).filter(([key]) => views.some((view) => seriesOf(view, key)));
  const median = spec.band && views.some((view) => seriesOf(view, `${spec.band}.p50`));
  return [...found, ...(median ? [[`${spec.band}.p50`, found.length ? "median over clients" : "median"]] : [])];
}

// The series of a chart: one run shows all its lines; several runs show one metric, a line each in the colour of its group.
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
    const between = typeof spec.between === "function" ? spec.between(key) : spec.between;
    const edges = band
      ? [
          ["p05", "p95", 0.13],
          ["p25", "p75", 0.22],
        ].map(([low, high, shade]) => [`${spec.band}.${low}`, `${spec.band}.${high}`, shade])
      : between
        ? [[...between, 0.18]]
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
      if (!lines.length) {
        add(views[0], `${spec.band}.mean`, "mean", 1);
        if (made.length > 1) made[made.length - 1].line = "dotted";
      }
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
