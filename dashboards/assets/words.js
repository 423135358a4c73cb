// The words and tables of the page.

// The text above the runs: what they are for, what they show, and what is claimed of them.
function introductionOf(text) {
  if (!text) return null;
  const parts = text.sections.flatMap(([heading, words]) => [el("h3", {}, heading), el("p", {}, words)]);
  const claims = text.claims.map(({ words, holds, state }) =>
    el("li", {}, words, " ", el("b", { class: holds ? "converged" : "diverged" }, state)),
  );
  return el(
    "section",
    { class: "card introduction", id: "introduction" },
    el("h1", { class: "title" }, text.title),
    el("p", { class: "hint" }, text.lead),
    text.changes.length ? el("p", { class: "facts" }, `Changed: ${text.changes.join(", ")}`) : null,
    ...parts,
    claims.length ? el("h3", {}, "What this lesson claims") : null,
    claims.length ? el("ul", { id: "claims" }, claims) : null,
  );
}

// The verdict and what was reached: of one run in words, of several as tables.
function verdictOf(view) {
  const [state, ...rest] = view.verdict.split(" ");
  const reasons = view.reasons.map((reason) => el("li", {}, reason));
  return el(
    "section",
    { class: "verdict" },
    el("h1", { class: "title" }, view.title),
    el("p", { class: "words", id: "verdict" }, el("b", { class: view.state }, state), ` ${rest.join(" ")}`),
    view.happened ? el("p", { class: "happened", id: "happened" }, el("b", {}, "What happened: "), view.happened) : null,
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

// Why the run went as it did: causes with evidence, and what to try.
function explanationOf({ explanation }) {
  if (!explanation) return null;
  const causes = explanation.findings.map((one) =>
    el(
      "li",
      {},
      el("b", {}, one.title),
      el("ul", {}, one.evidence.map((clause) => el("li", {}, clause))),
      one.clients.length ? el("p", { class: "help" }, `Clients: ${one.clients.join(", ")}`) : null,
      one.try ? el("p", { class: "try" }, `Try: ${one.try}`, one.sets ? el("code", {}, one.sets) : null) : null,
    ),
  );
  return el(
    "section",
    { class: "card why", id: "why" },
    el("h3", {}, "Why"),
    causes.length ? el("ol", {}, causes) : el("p", {}, "No cause was found that kept this run from its best."),
    el("p", { class: "help" }, explanation.source),
  );
}

// The three signs of convergence: the answer, and its number in words.
function signsOf({ signs }) {
  if (!signs || !signs.length) return null;
  const rows = signs.map(([sign, says, why]) =>
    el("tr", {}, el("th", { scope: "row" }, sign), el("td", {}, says, el("span", {}, why))),
  );
  return el("section", { class: "card reached", id: "signs" }, el("h3", {}, "Signs of convergence"), el("table", {}, el("tbody", {}, rows)));
}

// What was guessed, filled or dropped when the data were read.
function noticesOf({ notices }) {
  if (!notices || !notices.length) return null;
  return el(
    "section",
    { class: "card notices", id: "notices" },
    el("h3", {}, "Notices"),
    el("ul", {}, notices.map((notice) => el("li", {}, notice))),
  );
}

// A table in a container of its own: where it is wider than the page it scrolls there, under a first column that stays.
function plainTable(head, rows, id) {
  const hint = el("p", { class: "help more", hidden: true }, "Scroll the table sideways for more columns →");
  const holder = el(
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
            row.map((cell, column) => el("td", {}, column ? cell : el("span", { class: "first" }, cell))),
          ),
        ),
      ),
    ),
  );
  new ResizeObserver(() => {
    const wide = holder.scrollWidth > holder.clientWidth + 1;
    hint.hidden = !wide;
    if (wide) {
      holder.tabIndex = 0;
      holder.setAttribute("role", "region");
      holder.setAttribute("aria-label", `table: ${head.join(", ")}`);
    } else holder.removeAttribute("tabindex");
  }).observe(holder);
  return el("div", {}, holder, hint);
}

// The first names of a list, and how many more there are.
const listed = (names, most, what) =>
  names.length > most + 1 ? `${names.slice(0, most).join(", ")} and ${names.length - most} more ${what}` : names.join(", ");

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
      `${views.length} runs${compare.differ.length ? ` that differ in ${listed(compare.differ, 8, "keys")}` : ""}`,
    ),
    el("p", { class: "words", id: "verdict" }, `${ended}.`),
    compare.words.map((one) => el("p", { class: "hint" }, `${one}.`)),
  );
  const name = (index) => el("span", {}, swatch(group[index]), labels[index]);
  const words = el(
    "section",
    { class: "card wide" },
    el("h3", {}, "How each run ended"),
    plainTable(
      ["run", "verdict", "what happened", "reasons"],
      views.map((view, index) => [
        name(index),
        view.verdict,
        el("span", { class: "long" }, view.happened),
        el("span", { class: "long" }, view.reasons.join("; ")),
      ]),
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
        `${pair.seeds.length === 1 ? "One pair" : "Pairs"} of runs with the same seed (${listed(pair.seeds, 20, "seeds")})${
          pair.columns.includes("p") ? ": the mean change, Student's 95% interval for it, and its p" : ""
        }.`,
      ),
      pair.marks.length ? el("p", { class: "help marks" }, `Not shared by the pairs: ${pair.marks.join("; ")}.`) : null,
      plainTable(pair.columns, pair.rows, "pairs"),
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

// The events of a run: a row for each kind and name. The run's events.jsonl lists each event.
function eventsOf(views, labels) {
  const many = views.length > 1;
  const rows = views.flatMap((view, index) =>
    view.events.map(([kind, name, rounds, times, message]) => [
      ...(many ? [labels[index]] : []),
      kind,
      name,
      rounds,
      times,
      el("span", { class: "long" }, message),
    ]),
  );
  const head = [...(many ? ["run"] : []), "event", "name", "rounds", "times", "first message"];
  return rows.length ? [el("h2", {}, "Events"), el("div", { class: "card" }, plainTable(head, rows, "events"))] : [];
}

// Notes on what the page leaves out; of several runs, a note that several share is written once.
function notesOf(views, labels) {
  const runs = new Map();
  views.forEach((view, index) => view.notes.forEach((note) => runs.set(note, [...(runs.get(note) || []), labels[index]])));
  const of = (names) =>
    views.length === 1 ? "" : names.length === views.length ? "All runs: " : names.length > 3 ? `${names.length} runs: ` : `${names.join(", ")}: `;
  const notes = [...runs].map(([note, names]) => el("li", {}, of(names), note));
  return notes.length ? [el("h2", {}, "Notes on this page"), el("ul", { class: "notes", id: "notes" }, notes)] : [];
}

const restOf = (views, labels) => [...eventsOf(views, labels), ...notesOf(views, labels)];
