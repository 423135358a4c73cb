// The cards: each holds a chart or a grid, redraws it on demand, and hides where there is nothing to draw.

function makeCard(id, title, help, wide) {
  const tools = el("div", { class: "head" }, el("h3", {}, title));
  const words = el("p", { class: "help" }, help || "");
  const card = el("section", { class: wide ? "card wide" : "card", id: `card-${id}`, hidden: true }, tools, words);
  return { card, tools, words };
}

// A card whose chart is drawn by ECharts.
function chartCard(spec, state) {
  const { card, tools, words } = makeCard(spec.id, spec.title, "", spec.wide);
  const timeline = spec.timeline ? card.appendChild(el("div", { class: "grid" })) : null;
  const holder = card.appendChild(el("div", { class: "chart" }));
  const font = getComputedStyle(document.body).fontFamily;
  let chart = null,
    log = null,
    metric = null,
    offered = "",
    runs = 0;

  const logButton = el(
    "button",
    {
      type: "button",
      class: "small",
      title: "logarithmic scale",
      onclick: () => {
        log = !log;
        draw();
      },
    },
    "log",
  );
  const slot = el("span");
  tools.append(slot, logButton);

  function offer(views) {
    const metrics = views.length > 1 ? metricsOf(spec, views) : [];
    const key = JSON.stringify(metrics);
    if (key === offered) return;
    offered = key;
    if (!metrics.some(([one]) => one === metric)) metric = metrics.length ? metrics[0][0] : null;
    slot.replaceChildren(
      ...(metrics.length > 1
        ? [
            picker(
              metrics,
              metric,
              (value) => {
                metric = value;
                log = null;
                draw();
              },
              `series of ${spec.title}`,
            ),
          ]
        : []),
    );
  }

  function draw() {
    const { views } = state;
    if (views.length !== runs) {
      runs = views.length;
      log = null;
    }
    offer(views);
    words.textContent = typeof spec.help === "function" ? spec.help(views) : spec.help;
    const series = !spec.when || spec.when(views) ? chartSeries(spec, state, metric) : [];
    const lanes = timeline && views.length === 1 && views[0].criteria.length > 0;
    card.hidden = !series.length && !lanes;
    if (card.hidden) {
      drawn.forget(spec.id);
      return;
    }
    if (timeline) {
      timeline.hidden = !lanes;
      if (lanes) {
        paintTimeline(timeline, views[0]);
        if (!card.querySelector(".legend")) frameOf(timeline).notes.after(el("div", { class: "legend" }));
        card.querySelector(".legend").replaceChildren(...STATES.map(([, name, tone]) => legendOf(colour(tone), name)));
      }
    }
    hideFrame(holder, !series.length);
    if (!series.length) return;
    if (!chart) {
      chart = echarts.init(holder, null, { renderer: "canvas" });
      chart.on("finished", () => drawn.finish(spec.id));
      chart.on("datazoom", () => state.zoomed(chart));
      chart.getZr().on("dblclick", () => state.zoom(null));
    }
    drawn.expect(spec.id);
    if (log === null) log = spec.log ?? wantsLog(series);
    logButton.setAttribute("aria-pressed", String(log));
    const option = chartOption(spec, views, series, log, font);
    drawNamed(chart, holder, option);
    noteUnder(holder, notesUnder(spec, views, series, log, spec.format || number));
    if (matchMedia("(pointer: fine)").matches) {
      chart.dispatchAction({ type: "takeGlobalCursor", key: "dataZoomSelect", dataZoomSelectActive: true });
    }
  }
  return {
    card,
    section: spec.section,
    draw,
    chart: () => chart,
    resize() {
      chart?.resize();
      if (timeline && !timeline.hidden && !card.hidden) paintTimeline(timeline, state.views[0]);
    },
  };
}

const WIDE = new Set(["clients", "districts", "surface", ...FORECAST_RANKS.map(([rank]) => `forecast-${rank}`)]);

// A card with a canvas drawn here; of several runs it shows one at a time.
function gridCard(id, section, title, help, state, has, paint, choices) {
  const { card, tools, words } = makeCard(id, title, help, WIDE.has(id));
  const holder = card.appendChild(el("div", { class: id === "sizes" ? "chart" : "grid" }));
  const legend = card.appendChild(el("div", { class: "legend" }));
  let run = 0,
    offered = "";
  const picked = {};
  function draw() {
    const able = state.views
      .map((view, index) => [String(index), state.labels[index]])
      .filter(([index]) => has(state.views[index]));
    card.hidden = !able.length;
    if (card.hidden) {
      drawn.forget(id);
      return;
    }
    if (!able.some(([index]) => Number(index) === run)) run = Number(able[0][0]);
    drawn.expect(id);
    const view = state.views[run],
      offers = choices(view);
    for (const [name, options] of offers)
      if (!options.some(([value]) => value === picked[name])) picked[name] = options[0][0];
    const key = JSON.stringify([able, offers]);
    if (key !== offered) {
      offered = key;
      const pickers = offers
        .filter(([, options]) => options.length > 1)
        .map(([name, options, label]) =>
          picker(
            options,
            picked[name],
            (value) => {
              picked[name] = value;
              draw();
            },
            label,
          ),
        );
      const runs =
        able.length > 1
          ? [
              picker(
                able,
                String(run),
                (value) => {
                  run = Number(value);
                  draw();
                },
                "run",
              ),
            ]
          : [];
      tools.replaceChildren(tools.firstChild, ...runs, ...pickers);
    }
    words.textContent = typeof help === "function" ? help(view) : help;
    words.hidden = !words.textContent;
    legend.replaceChildren(...(paint(holder, view, picked) || []).filter(Boolean));
    drawn.finish(id);
  }
  return {
    card,
    section,
    draw,
    chart: () => null,
    resize: () => {
      if (!card.hidden) draw();
    },
  };
}

const METRIC_NAMES = {
  client_drift: "client drift",
  cosine: "cosine to the mean update",
  train_loss: "training loss",
  update_norm: "norm of the update",
  changed: "share changed by faults",
  clients: "respondents",
};

function makeCards(state) {
  const charts = CHARTS.map((spec) => chartCard(spec, state));
  const clients = gridCard(
    "clients",
    "Client drift",
    "Clients by round",
    "One row per client, one column per round. Blank: the client did not take part.",
    state,
    (view) => view.grid && Object.keys(view.grid.metrics).length,
    (holder, view, picked) => [...paintClients(holder, view.grid, picked.metric, picked.order), worstOf(view)],
    (view) => [
      ["metric", Object.keys(view.grid.metrics).map((one) => [one, METRIC_NAMES[one] || one]), "quantity"],
      [
        "order",
        [
          ["client", "by client"],
          ["mean", "by mean"],
        ],
        "order of clients",
      ],
    ],
  );
  const sizes = gridCard(
    "sizes",
    "Data",
    "Examples per client",
    (view) => sizesWords(view),
    state,
    (view) => view.partition.size_percentiles,
    (holder, view) => {
      const chart = echarts.getInstanceByDom(holder) || echarts.init(holder, null, { renderer: "canvas" });
      const font = getComputedStyle(document.body).fontFamily;
      drawNamed(chart, holder, sizesOption(view.partition, font, holder.clientWidth));
    },
    () => [],
  );
  const labels = gridCard(
    "labels",
    "Data",
    "Labels per client",
    (view) => labelWords(view),
    state,
    (view) => view.partition.label_counts,
    (holder, view, picked) => paintLabels(holder, view.partition, picked.order),
    () => [
      [
        "order",
        [
          ["label", "by main label"],
          ["client", "by client"],
        ],
        "order of clients",
      ],
    ],
  );
  const districts = gridCard(
    "districts",
    "Districts",
    "Districts by round",
    "One row per district, one column per round: the mean over its clients that responded.",
    state,
    (view) => view.city && view.city.districts,
    (holder, view, picked) => paintClients(holder, view.city.districts, picked.metric, picked.order),
    (view) => [
      ["metric", Object.keys(view.city.districts.metrics).map((one) => [one, METRIC_NAMES[one] || one]), "quantity"],
      [
        "order",
        [
          ["client", "by district"],
          ["mean", "by mean"],
        ],
        "order of districts",
      ],
    ],
  );
  const samples = gridCard(
    "samples",
    "Samples",
    "Samples of the final model",
    (view) => view.samples.words,
    state,
    (view) => Boolean(view.samples),
    (holder, view) => paintSamples(holder, view.samples),
    () => [],
  );
  const forecasts = forecastCards(state);
  charts.splice(charts.findLastIndex((one) => one.section === "Samples") + 1, 0, samples);
  const drift = charts.findIndex((one) => one.section === "Client drift");
  charts.splice(drift, 0, ...forecasts, ...surfaceCards(state), ...theoryCards(state));
  const at = charts.findIndex((one) => one.section === "Time and bytes");
  return [...charts.slice(0, at), clients, districts, sizes, labels, ...charts.slice(at)];
}

// The picture of samples, each of its pixels several pixels of the screen.
function paintSamples(holder, { picture, width, height }) {
  const scale = Math.max(1, Math.min(6, Math.floor(holder.clientWidth / width)));
  holder.replaceChildren(
    el("img", { src: picture, alt: "samples of the final model", class: "samples", width: width * scale, height: height * scale }),
  );
}

function sizesWords({ partition: { measures, clients, size_percentiles: percent } }) {
  const of = (name, place) => number(measures[name] ?? percent[Math.round(place * (percent.length - 1))], 6);
  return `${(clients || 0).toLocaleString("en")} clients; the smallest has ${of("smallest_client", 0)} training examples, the median ${of("median_client", 0.5)}, the largest ${of("largest_client", 1)}.`;
}

function labelWords({ partition: { measures, names } }) {
  const skew =
    measures.label_js === undefined
      ? ""
      : ` Mean distance from the labels of all clients: Jensen-Shannon divergence ${number(measures.label_js)} (at most 1), earth mover's distance ${number(measures.label_emd)} (at most 2).`;
  const few = names.length <= MOST_NAMED;
  return `One ${few ? "row" : "column"} per client, one ${few ? "column" : "row"} per label. A darker cell is a larger share of the client's examples (square root).${skew}`;
}
