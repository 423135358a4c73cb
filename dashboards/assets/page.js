// The page: words first, then cards of charts. `makePage(root)` returns what shows runs and shows them again as they grow.

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
  let chart = null, log = null, metric = null, offered = "", runs = 0;

  const logButton = el("button", { type: "button", class: "small", title: "logarithmic scale", onclick: () => { log = !log; draw(); } }, "log");
  const slot = el("span");
  tools.append(slot, logButton);

  function offer(views) {
    const metrics = views.length > 1 ? metricsOf(spec, views) : [];
    const key = JSON.stringify(metrics);
    if (key === offered) return;
    offered = key;
    if (!metrics.some(([one]) => one === metric)) metric = metrics.length ? metrics[0][0] : null;
    slot.replaceChildren(...(metrics.length > 1 ? [picker(metrics, metric, (value) => { metric = value; log = null; draw(); }, `what ${spec.title} shows`)] : []));
  }

  function draw() {
    const { views } = state;
    if (views.length !== runs) { runs = views.length; log = null; }
    offer(views);
    words.textContent = typeof spec.help === "function" ? spec.help(views) : spec.help;
    const series = !spec.when || spec.when(views) ? chartSeries(spec, state, metric) : [];
    const lanes = timeline && views.length === 1 && views[0].criteria.length > 0;
    card.hidden = !series.length && !lanes;
    if (card.hidden) { drawn.forget(spec.id); return; }
    if (timeline) {
      timeline.hidden = !lanes;
      if (lanes) {
        paintTimeline(timeline, views[0]);
        if (!card.querySelector(".legend")) timeline.after(el("div", { class: "legend" }));
        card.querySelector(".legend").replaceChildren(...STATES.map(([, name, tone]) => legendOf(colour(tone), name)));
      }
    }
    holder.hidden = !series.length;
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
    const kept = chart.getOption()?.legend?.[0]?.selected;
    if (chart.getWidth() !== holder.clientWidth) chart.resize();
    const option = chartOption(spec, views, series, log, font);
    if (kept && option.legend) option.legend.selected = kept;
    chart.setOption(option, { notMerge: true });
    if (matchMedia("(pointer: fine)").matches) {
      chart.dispatchAction({ type: "takeGlobalCursor", key: "dataZoomSelect", dataZoomSelectActive: true });
    }
  }
  return { card, section: spec.section, draw, chart: () => chart, resize() { chart?.resize(); if (timeline && !timeline.hidden && !card.hidden) paintTimeline(timeline, state.views[0]); } };
}

// A card that is drawn on a canvas of ours; of several runs it shows one at a time.
function gridCard(id, section, title, help, state, has, paint, choices) {
  const { card, tools, words } = makeCard(id, title, help, id === "clients");
  const holder = card.appendChild(el("div", { class: id === "sizes" ? "chart" : "grid" }));
  const legend = card.appendChild(el("div", { class: "legend" }));
  let run = 0, offered = "";
  const picked = {};
  function draw() {
    const able = state.views.map((view, index) => [String(index), state.labels[index]]).filter(([index]) => has(state.views[index]));
    card.hidden = !able.length;
    if (card.hidden) { drawn.forget(id); return; }
    if (!able.some(([index]) => Number(index) === run)) run = Number(able[0][0]);
    drawn.expect(id);
    const view = state.views[run], offers = choices(view);
    for (const [name, options] of offers) if (!options.some(([value]) => value === picked[name])) picked[name] = options[0][0];
    const key = JSON.stringify([able, offers]);
    if (key !== offered) {
      offered = key;
      const pickers = offers.filter(([, options]) => options.length > 1).map(([name, options, label]) => picker(options, picked[name], (value) => { picked[name] = value; draw(); }, label));
      const runs = able.length > 1 ? [picker(able, String(run), (value) => { run = Number(value); draw(); }, "which run")] : [];
      tools.replaceChildren(tools.firstChild, ...runs, ...pickers);
    }
    words.textContent = typeof help === "function" ? help(view) : help;
    legend.replaceChildren(...(paint(holder, view, picked) || []).filter(Boolean));
    drawn.finish(id);
  }
  return { card, section, draw, chart: () => null, resize: () => { if (!card.hidden) draw(); } };
}

const METRIC_NAMES = { client_drift: "client drift", cosine: "cosine to the mean update", train_loss: "training loss", update_norm: "size of the update" };

function makeCards(state) {
  const charts = CHARTS.map((spec) => chartCard(spec, state));
  const clients = gridCard("clients", "Client drift", "Every client, every round",
    "A row a client, a column a round. Blank: the client took no part.", state, (view) => view.grid && Object.keys(view.grid.metrics).length,
    (holder, view, picked) => [...paintClients(holder, view.grid, picked.metric, picked.order), worstOf(view)],
    (view) => [["metric", Object.keys(view.grid.metrics).map((one) => [one, METRIC_NAMES[one] || one]), "what is drawn"],
      ["order", [["client", "by client"], ["mean", "by mean"]], "order of clients"]]);
  const sizes = gridCard("sizes", "Data", "Examples a client", (view) => sizesWords(view), state,
    (view) => view.partition.size_percentiles, (holder, view) => {
      const chart = echarts.getInstanceByDom(holder) || echarts.init(holder, null, { renderer: "canvas" });
      chart.resize();
      chart.setOption(sizesOption(view.partition, getComputedStyle(document.body).fontFamily), { notMerge: true });
    }, () => []);
  const labels = gridCard("labels", "Data", "Labels of each client", (view) => labelWords(view), state, (view) => view.partition.label_counts,
    (holder, view, picked) => paintLabels(holder, view.partition, picked.order), () => [["order", [["label", "by main label"], ["client", "by client"]], "order of clients"]]);
  const at = charts.findIndex((one) => one.section === "Time and bytes");
  return [...charts.slice(0, at), clients, sizes, labels, ...charts.slice(at)];
}

function sizesWords({ partition: { measures, clients } }) {
  return `${(clients || 0).toLocaleString("en")} clients; the smallest has ${number(measures.smallest_client, 6)} training examples, the median ${number(measures.median_client, 6)}, the largest ${number(measures.largest_client, 6)}.`;
}

function labelWords({ partition: { measures } }) {
  const skew = measures.label_js === undefined ? "" : ` How unequal, over examples: Jensen-Shannon divergence ${number(measures.label_js)} of at most 1, earth mover's distance ${number(measures.label_emd)} of at most 2.`;
  return `A column a client, a row a label: the stronger, the larger the label's share of the client's examples (square root).${skew}`;
}

// The verdict, and what was reached: of one run in words, of several as tables.
function verdictOf(view) {
  const [state, ...rest] = view.verdict.split(" ");
  return el("section", { class: "verdict" },
    el("h1", { class: "title" }, view.title),
    el("p", { class: "words", id: "verdict" }, el("b", { class: view.state }, state), ` ${rest.join(" ")}`),
    view.hint ? el("p", { class: "hint" }, view.hint) : null,
    el("p", { class: "facts" }, view.header.slice(1).join(" · ")));
}

function reachedOf(view) {
  if (!view.reached.length) return null;
  const rows = view.reached.map(([name, value, aside]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, value, aside ? el("span", {}, aside) : null)));
  return el("section", { class: "card reached", id: "reached" }, el("table", {}, el("tbody", {}, rows)));
}

function plainTable(head, rows, id) {
  return el("div", { class: "scroll" }, el("table", { class: "plain", id },
    el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell) => el("td", {}, cell)))))));
}

function comparedOf({ views, labels, compare, group }) {
  const ended = [...new Set(views.map((view) => view.state))].map((state) => `${views.filter((view) => view.state === state).length} ${state}`).join(", ");
  const head = el("section", { class: "verdict" },
    el("h1", { class: "title" }, `${views.length} runs${compare.differ.length ? `, which differ in ${compare.differ.join(", ")}` : ""}`),
    el("p", { class: "words", id: "verdict" }, `${ended}.`),
    compare.words.map((one) => el("p", { class: "hint" }, `${one}.`)));
  const name = (index) => el("span", {}, el("i", { style: `background:${seriesColour(group[index])}` }), labels[index]);
  const words = el("section", { class: "card wide" }, el("h3", {}, "How each ended"),
    plainTable(["run", "verdict"], views.map((view, index) => [name(index), el("span", { style: "white-space:normal" }, view.verdict)]), "verdicts"));
  const reached = el("section", { class: "card wide" }, el("h3", {}, "What each reached"),
    plainTable(["run", "ended", ...compare.measures], compare.rows.map((row, index) => [name(index), ...row]), "reached"));
  const pairs = compare.pairs.map((pair) => el("section", { class: "card wide pairs" }, el("h3", {}, pair.title),
    el("p", { class: "help" }, `Differences of pairs with the same seed (${pair.seeds.join(", ")}): their mean, and Student's 95% interval for it.`),
    plainTable(["", "mean difference", "95% interval", "which way", ""], pair.rows, "pairs")));
  return [head, el("div", { class: "cards", style: "margin-top:18px" }, words, reached, pairs),
    compare.notes.length ? el("ul", { class: "notes" }, compare.notes.map((note) => el("li", {}, note))) : null];
}

// The clients that drift widest, in a sentence under the grid.
function worstOf(view) {
  const named = view.grid.worst.map((one) => `${one.name} (${one.value}, ${one.rounds.toLocaleString("en")} ${one.rounds === 1 ? "round" : "rounds"})`);
  return named.length ? el("span", { class: "worst" }, `Widest drift on average: ${named.join(" · ")}`) : null;
}

function restOf(views, labels) {
  const many = views.length > 1;
  const of = (index) => (many ? `${labels[index]}: ` : "");
  const notes = views.flatMap((view, index) => view.notes.map((note) => el("li", {}, of(index), note)));
  const events = views.flatMap((view, index) => view.events.map((event) => [many ? labels[index] : null, event.round === null ? "" : String(event.round), event.kind.replaceAll("_", " "), event.message].filter((cell) => cell !== null)));
  return [
    events.length ? [el("h2", {}, "Events"), el("div", { class: "card" }, plainTable([...(many ? ["run"] : []), "round", "what", "words"], events, "events"))] : [],
    notes.length ? [el("h2", {}, "What this page leaves out"), el("ul", { class: "notes", id: "notes" }, notes)] : [],
  ].flat();
}

function makePage(root, words, tools = []) {
  const state = { views: [], labels: [], compare: null, group: [], hidden: new Set() };
  const cards = makeCards(state);
  const top = el("div"), sections = el("div"), bottom = el("div"), scenario = el("div");
  const whole = el("button", { type: "button", class: "small", hidden: true, onclick: () => state.zoom(null) }, "whole run");
  const axes = el("span", { class: "axes" });
  const theme = el("button", { type: "button", class: "small", "aria-label": "dark or light" }, "◐");
  const title = el("span", { class: "mark" }, "fedscape", el("span"));
  const bar = el("nav", { class: "bar" }, title, el("span", { class: "gap" }), whole, axes, theme);

  for (const section of [...new Set(cards.map((one) => one.section))]) {
    const group = el("div", { class: "cards" }, cards.filter((one) => one.section === section).map((one) => one.card));
    sections.append(el("section", { "data-section": section }, el("h2", {}, section), el("div", { class: "key" }), group));
  }
  root.replaceChildren(bar, ...tools, top, sections, bottom, scenario,
    el("footer", {}, `Drag over a chart to zoom in, double-click for the whole run. ${words}`));

  // The colours of several runs, or of their variants: a click hides and shows them in every chart.
  function keys() {
    const names = state.compare ? (state.compare.variants.length ? state.compare.variants : state.labels) : [];
    for (const key of sections.querySelectorAll(".key")) {
      key.replaceChildren(...names.map((name, index) => el("button", { type: "button", class: "small", "aria-pressed": String(!state.hidden.has(index)), onclick: () => {
        if (!state.hidden.delete(index)) state.hidden.add(index);
        keys();
        draw();
      } }, el("i", { style: `background:${seriesColour(index)}` }), name)));
    }
  }
  const draw = () => {
    for (const section of sections.children) section.hidden = false; // a chart made where nothing is shown has no size
    for (const card of cards) card.draw();
    for (const section of sections.children) section.hidden = ![...section.querySelectorAll(".card")].some((card) => !card.hidden);
  };
  state.zoomed = (source) => {
    const { startValue, endValue, start, end } = source.getOption().dataZoom[0];
    state.zoom(start <= 0 && end >= 100 ? null : [startValue, endValue], source);
  };
  state.zoom = (range, source) => {
    if (state.busy || String(range) === String(chosen.zoom)) return;
    state.busy = true;
    chosen.zoom = range;
    whole.hidden = range === null;
    for (const chart of cards.map((one) => one.chart())) {
      if (chart && chart !== source) chart.dispatchAction(range ? { type: "dataZoom", startValue: range[0], endValue: range[1] } : { type: "dataZoom", start: 0, end: 100 });
    }
    state.busy = false;
  };
  theme.addEventListener("click", () => {
    const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try { localStorage.setItem("fedscape-theme", next); } catch { /* a page opened from disk may have no storage */ }
    render();
  });
  let width = root.clientWidth;
  new ResizeObserver(() => {
    if (root.clientWidth === width) return;
    width = root.clientWidth;
    requestAnimationFrame(() => cards.forEach((card) => card.resize()));
  }).observe(root);

  function render() {
    const { views, labels } = state, one = views.length === 1;
    if (!views.length) return;
    title.lastChild.textContent = one ? views[0].name : `${views.length} runs`;
    const known = Object.entries(AXES).filter(([name]) => views.every((view) => view.series.every((table) => table.axes[name].some((x) => x !== null))));
    if (!known.some(([name]) => name === chosen.axis)) chosen.axis = "round";
    if (axes.dataset.known !== String(known.map(([name]) => name))) {
      axes.dataset.known = String(known.map(([name]) => name));
      axes.replaceChildren(choice(known.map(([name, axis]) => [name, axis.name]), chosen.axis, (name) => { chosen.axis = name; chosen.zoom = null; whole.hidden = true; draw(); }, "horizontal axis"));
    }
    top.replaceChildren(...(one ? [verdictOf(views[0]), reachedOf(views[0])] : comparedOf(state)).filter(Boolean));
    bottom.replaceChildren(...restOf(views, labels));
    keys();
    draw();
  }
  const hide = (hidden) => { for (const part of [top, sections, bottom, scenario, axes]) part.hidden = hidden; };
  hide(true);
  return {
    clear() {
      hide(true);
      state.views = [];
      title.lastChild.textContent = "";
    },
    show(views, compare) {
      hide(false);
      const same = state.views.length === views.length && views.every((view, index) => view.name === state.views[index].name);
      if (!same) { chosen.zoom = null; whole.hidden = true; }
      Object.assign(state, { views, compare, labels: compare ? compare.labels : views.map((view) => view.name) });
      state.group = compare && compare.variant.length ? compare.variant : views.map((_, index) => index);
      if (!same) state.hidden.clear();
      render();
      if (!same) {
        scenario.replaceChildren(...views.map((view, index) => el("details", {}, el("summary", {}, views.length > 1 ? `Scenario of ${state.labels[index]}` : "The scenario, with every default"),
          el("pre", {}, view.scenario_text || "not recorded"), el("p", { class: "help" }, Object.entries(view.versions).map(([name, version]) => `${name} ${version}`).join(" · ")))));
      }
    },
  };
}
