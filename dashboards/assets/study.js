// The page of a study. It is self-contained.
{
  const view = JSON.parse(document.getElementById("data").textContent);
  const root = document.getElementById("page");
  const state = { view, hidden: new Set(), font: getComputedStyle(document.body).fontFamily };
  if (view.arms.length > MANY) view.rankings[0]?.rows.forEach(({ arm }, rank) => (ranks[arm] = rank));
  const best = (view.rankings[0]?.rows || []).map(({ arm }) => arm);
  const onlyBest = () => new Set(view.arms.map((_, arm) => arm).filter((arm) => !best.slice(0, BEST).includes(arm)));
  if (view.arms.length > MANY) state.hidden = onlyBest();

  const cards = [
    rankingCard(state),
    differencesCard(state),
    reachedCard(state),
    ...view.curves.map((curve) => curveCard(state, curve)),
    tradeoffCard(state),
    interactionCard(state),
    lanesCard(state),
    tuningCard(state),
  ];
  const KEYED = ["Target", "Curves", "Cost", "Factors"];
  const SECTIONS = ["Ranking", "Target", "Curves", "Cost", "Factors", "Tuning"];
  const tables = { Ranking: [rankingTable(view), ...comparisonTables(view)], Tuning: tuningTables(view) };
  const sections = SECTIONS.map((name) => {
    const own = cards.filter((one) => one.section === name).map((one) => one.card);
    const group = el("div", { class: "cards" }, [...own, ...(tables[name] || []).filter(Boolean)]);
    const words = (name === "Tuning" ? view.tuned : []).map((one) => el("p", { class: "hint" }, one));
    return el("section", { "data-section": name }, el("h2", {}, name), ...words, el("div", { class: "key" }), group);
  });

  // The colours of the arms: a click hides and shows one in every chart.
  function keys() {
    const choose = (words, hidden) =>
      el("button", { type: "button", class: "small pick", onclick: () => { state.hidden = hidden(); keys(); paint(); } }, words);
    const every = new Set(view.arms.map((_, arm) => arm));
    const quick = () => view.arms.length > BEST ? [choose("all", () => new Set()), choose("none", () => new Set(every)), choose(`best ${BEST}`, onlyBest)] : [];
    for (const section of sections) {
      if (!KEYED.includes(section.dataset.section)) continue;
      const one = (name, arm) => {
        const toggle = () => {
          if (!state.hidden.delete(arm)) state.hidden.add(arm);
          keys();
          paint();
        };
        return el("button", { type: "button", class: "small", "aria-pressed": String(!state.hidden.has(arm)), onclick: toggle }, armSwatch(arm), el("span", {}, name));
      };
      const active = document.activeElement,
        key = section.querySelector(".key"),
        at = [...key.children].indexOf(active);
      key.replaceChildren(...(view.arms.length > 1 ? [...quick(), ...view.arms.map(one)] : []));
      if (at >= 0) key.children[at].focus();
    }
  }

  function paint() {
    for (const section of sections) section.hidden = false; // a chart made in a hidden section has no size
    cards.forEach((one) => one.paint());
    const changed = sections.flatMap((section) => pairCards(section.querySelector(".cards")));
    cards.filter((one) => changed.includes(one.card)).forEach((one) => one.paint());
    for (const section of sections) section.hidden = ![...section.querySelectorAll(".card")].some((card) => !card.hidden);
  }

  const able = Object.keys(AXES).filter((axis) => axis in view.survival || view.curves.some((curve) => axis in curve.axes));
  const axes = el("span", { class: "axes" });
  if (able.length > 1)
    axes.append(
      choice(
        able.map((axis) => [axis, AXES[axis].name]),
        chosen.axis,
        (axis) => {
          chosen.axis = axis;
          paint();
        },
        "horizontal axis",
      ),
    );
  const title = el("span", { class: "mark" }, "fedscape", el("span", {}, view.name));
  root.append(
    ...[
      el("nav", { class: "bar" }, title, el("span", { class: "gap" }), axes, themeButton(() => paint())),
      studyHead(view),
      noticesOf(view),
      ...sections,
      el("h2", {}, "Runs"),
      el("div", { class: "cards" }, [sharedTable(view), runsTable(view)].filter(Boolean)),
      ...(view.notes.length ? [el("h2", {}, "Notes on this page"), el("ul", { class: "notes", id: "notes" }, view.notes.map((note) => el("li", {}, note)))] : []),
      el("footer", {}, "Made by fedscape. This page is self-contained and opens without a network; links to reports work beside its runs."),
    ].filter(Boolean),
  );
  keys();
  paint();
  let width = root.clientWidth;
  new ResizeObserver(() => {
    if (root.clientWidth === width) return;
    width = root.clientWidth;
    requestAnimationFrame(paint);
  }).observe(root);
}
