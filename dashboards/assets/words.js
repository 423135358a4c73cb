// The words and tables of the page.

// The verdict and what was reached: of one run in words, of several as tables.
function verdictOf(view) {
  const [state, ...rest] = view.verdict.split(" ");
  const reasons = view.reasons.map((reason) => el("li", {}, reason));
  return el(
    "section",
    { class: "verdict" },
    el("h1", { class: "title" }, view.title),
    el("p", { class: "words", id: "verdict" }, el("b", { class: view.state }, state), ` ${rest.join(" ")}`),
    reasons.length ? el("ul", { class: "reasons", id: "reasons" }, reasons) : null,
    view.hint ? el("p", { class: "hint" }, view.hint) : null,
    el("p", { class: "facts" }, view.header.slice(1).join(" · ")),
  );
}

function reachedOf(view) {
  if (!view.reached.length) return null;
  const rows = view.reached.map(([name, value, aside]) =>
    el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, value, aside ? el("span", {}, aside) : null)),
  );
  return el("section", { class: "card reached", id: "reached" }, el("table", {}, el("tbody", {}, rows)));
}

function plainTable(head, rows, id) {
  return el(
    "div",
    { class: "scroll" },
    el(
      "table",
      { class: "plain", id },
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          head.map((name) => el("th", { scope: "col" }, name)),
        ),
      ),
      el(
        "tbody",
        {},
        rows.map((row) =>
          el(
            "tr",
            {},
            row.map((cell) => el("td", {}, cell)),
          ),
        ),
      ),
    ),
  );
}

function comparedOf({ views, labels, compare, group }) {
  const ended = [...new Set(views.map((view) => view.state))]
    .map((state) => `${views.filter((view) => view.state === state).length} ${state}`)
    .join(", ");
  const head = el(
    "section",
    { class: "verdict" },
    el(
      "h1",
      { class: "title" },
      `${views.length} runs${compare.differ.length ? ` that differ in ${compare.differ.join(", ")}` : ""}`,
    ),
    el("p", { class: "words", id: "verdict" }, `${ended}.`),
    compare.words.map((one) => el("p", { class: "hint" }, `${one}.`)),
  );
  const name = (index) => el("span", {}, el("i", { style: `background:${seriesColour(group[index])}` }), labels[index]);
  const words = el(
    "section",
    { class: "card wide" },
    el("h3", {}, "How each run ended"),
    plainTable(
      ["run", "verdict", "reasons"],
      views.map((view, index) => [name(index), view.verdict, el("span", { style: "white-space:normal" }, view.reasons.join("; "))]),
      "verdicts",
    ),
  );
  const reached = el(
    "section",
    { class: "card wide" },
    el("h3", {}, "What each run reached"),
    plainTable(
      ["run", "ended", ...compare.measures],
      compare.rows.map((row, index) => [name(index), ...row]),
      "reached",
    ),
  );
  const pairs = compare.pairs.map((pair) =>
    el(
      "section",
      { class: "card wide pairs" },
      el("h3", {}, pair.title),
      el(
        "p",
        { class: "help" },
        `Pairs of runs with the same seed (${pair.seeds.join(", ")}): the mean difference and Student's 95% interval for it.`,
      ),
      plainTable(["measure", "mean difference", "95% interval", "direction", "pairs"], pair.rows, "pairs"),
    ),
  );
  return [
    head,
    el("div", { class: "cards", style: "margin-top:18px" }, words, reached, pairs),
    compare.notes.length
      ? el(
          "ul",
          { class: "notes" },
          compare.notes.map((note) => el("li", {}, note)),
        )
      : null,
  ];
}

// The clients with the largest drift in most rounds, in a sentence under the grid.
function worstOf(view) {
  const { words, clients } = view.widest;
  return clients.length ? el("span", { class: "worst" }, `${words}: ${clients.join(" · ")}`) : null;
}

// The events of the city: a row for each kind and name.
function cityEventsTable({ city }) {
  const rows = city.events.map(([kind, name, rounds, times, words]) => [
    kind,
    name,
    rounds,
    times,
    el("span", { style: "white-space:normal" }, words),
  ]);
  return plainTable(["event", "name", "rounds", "times", "first message"], rows, "city-events");
}

function restOf(views, labels) {
  const many = views.length > 1;
  const of = (index) => (many ? `${labels[index]}: ` : "");
  const notes = views.flatMap((view, index) => view.notes.map((note) => el("li", {}, of(index), note)));
  const events = views.flatMap((view, index) =>
    view.events.map((event) =>
      [
        many ? labels[index] : null,
        event.round === null ? "" : String(event.round),
        event.kind.replaceAll("_", " "),
        event.message,
      ].filter((cell) => cell !== null),
    ),
  );
  return [
    events.length
      ? [
          el("h2", {}, "Events"),
          el(
            "div",
            { class: "card" },
            plainTable([...(many ? ["run"] : []), "round", "event", "message"], events, "events"),
          ),
        ]
      : [],
    notes.length ? [el("h2", {}, "Notes on this page"), el("ul", { class: "notes", id: "notes" }, notes)] : [],
  ].flat();
}
