// The page: words, then cards of charts. `makePage(root, words)` returns an object that shows runs, and redraws them as they grow.

function makePage(root, words, tools = [], introduction = null) {
  const state = { views: [], labels: [], compare: null, group: [], hidden: new Set() };
  const cards = makeCards(state);
  const top = el("div"),
    sections = el("div"),
    bottom = el("div"),
    scenario = el("div");
  const whole = el(
    "button",
    { type: "button", class: "small", hidden: true, onclick: () => state.zoom(null) },
    "whole run",
  );
  const axes = el("span", { class: "axes" });
  const theme = themeButton(() => render());
  const title = el("span", { class: "mark" }, "fedscape", el("span"));
  const bar = el("nav", { class: "bar" }, title, el("span", { class: "gap" }), whole, axes, theme);

  for (const section of [...new Set(cards.map((one) => one.section))]) {
    const group = el(
      "div",
      { class: "cards" },
      cards.filter((one) => one.section === section).map((one) => one.card),
    );
    sections.append(
      el("section", { "data-section": section }, el("h2", {}, section), el("div", { class: "key" }), group),
    );
  }
  root.replaceChildren(
    bar,
    ...tools,
    top,
    sections,
    bottom,
    scenario,
    el("footer", {}, `Drag over a chart to zoom in, double-click for the whole run. ${words}`),
  );

  // The colours of several runs, or of their variants: a click hides and shows them in every chart.
  function keys() {
    const names = state.compare ? (state.compare.variants.length ? state.compare.variants : state.labels) : [];
    for (const key of sections.querySelectorAll(".key")) {
      key.replaceChildren(
        ...names.map((name, index) =>
          el(
            "button",
            {
              type: "button",
              class: "small",
              "aria-pressed": String(!state.hidden.has(index)),
              onclick: () => {
                if (!state.hidden.delete(index)) state.hidden.add(index);
                keys();
                draw();
              },
            },
            swatch(index),
            el("span", {}, name),
          ),
        ),
      );
    }
  }
  const draw = () => {
    for (const section of sections.children) section.hidden = false; // a chart made in a hidden section has no size
    for (const card of cards) card.draw();
    const changed = [...sections.querySelectorAll(".cards")].flatMap(pairCards);
    for (const card of cards) if (changed.includes(card.card)) card.resize();
    for (const section of sections.children)
      section.hidden = ![...section.querySelectorAll(".card")].some((card) => !card.hidden);
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
      if (chart && chart !== source)
        chart.dispatchAction(
          range
            ? { type: "dataZoom", startValue: range[0], endValue: range[1] }
            : { type: "dataZoom", start: 0, end: 100 },
        );
    }
    state.busy = false;
  };
  let width = root.clientWidth;
  new ResizeObserver(() => {
    if (root.clientWidth === width) return;
    width = root.clientWidth;
    requestAnimationFrame(() => cards.forEach((card) => card.resize()));
  }).observe(root);

  function render() {
    const { views, labels } = state,
      one = views.length === 1;
    if (!views.length) return;
    title.lastChild.textContent = introduction ? introduction.title : one ? views[0].name : `${views.length} runs`;
    const known = Object.entries(AXES).filter(([name]) =>
      views.every((view) => view.series.every((table) => table.axes[name].some((x) => x !== null))),
    );
    if (!known.some(([name]) => name === chosen.axis)) chosen.axis = "round";
    if (axes.dataset.known !== String(known.map(([name]) => name))) {
      axes.dataset.known = String(known.map(([name]) => name));
      axes.replaceChildren(
        choice(
          known.map(([name, axis]) => [name, axis.name]),
          chosen.axis,
          (name) => {
            chosen.axis = name;
            chosen.zoom = null;
            whole.hidden = true;
            draw();
          },
          "horizontal axis",
        ),
      );
    }
    top.replaceChildren(
      ...[introductionOf(introduction)].filter(Boolean),
      ...(one ? [verdictOf(views[0]), reachedOf(views[0]), signsOf(views[0]), explanationOf(views[0]), noticesOf(views[0])] : comparedOf(state)).filter(Boolean),
    );
    bottom.replaceChildren(...restOf(views, labels));
    keys();
    draw();
  }
  const hide = (hidden) => {
    for (const part of [top, sections, bottom, scenario, axes]) part.hidden = hidden;
  };
  hide(true);
  return {
    clear() {
      hide(true);
      state.views = [];
      title.lastChild.textContent = "";
    },
    show(views, compare) {
      hide(false);
      const same =
        state.views.length === views.length && views.every((view, index) => view.name === state.views[index].name);
      if (!same) {
        chosen.zoom = null;
        whole.hidden = true;
      }
      Object.assign(state, { views, compare, labels: compare ? compare.labels : views.map((view) => view.name) });
      state.group = compare && compare.variant.length ? compare.variant : views.map((_, index) => index);
      if (!same) state.hidden.clear();
      render();
      if (!same) {
        scenario.replaceChildren(
          ...views.map((view, index) =>
            el(
              "details",
              {},
              el(
                "summary",
                {},
                views.length > 1 ? `Scenario of ${state.labels[index]}` : "Scenario with all defaults",
              ),
              el("pre", {}, view.scenario_text || "not recorded"),
              el(
                "p",
                { class: "help" },
                Object.entries(view.versions)
                  .map(([name, version]) => `${name} ${version}`)
                  .join(" · "),
              ),
            ),
          ),
        );
      }
    },
  };
}
