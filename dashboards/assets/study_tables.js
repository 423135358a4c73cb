// The words and tables of a study's page.

const MOST_ROWS = 12; // rows of the table of runs that are seen at once

function studyHead(view) {
  const [first, ...rest] = view.words;
  return el(
    "section",
    { class: "verdict" },
    el("h1", { class: "title" }, view.title),
    el("p", { class: "words", id: "verdict" }, first),
    rest.length ? el("ul", { class: "reasons", id: "reasons" }, rest.map((words) => el("li", {}, words))) : null,
    el("p", { class: "facts" }, view.facts.join(" · ")),
  );
}

const capital = (words) => words[0].toUpperCase() + words.slice(1);
const armName = (view, arm) => el("span", {}, armSwatch(arm), view.arms[arm]);
const tableCard = (id, title, help, ...parts) => el("section", { class: "card wide", id }, el("h3", {}, title), el("p", { class: "help" }, help), ...parts);

function rankingTable(view) {
  if (!view.rankings.length) return null;
  const { rows, key, kind } = view.rankings[0];
  const table = plainTable(
    ["arm", kind, "95% interval", kind === "median" ? "reached the target" : "runs"],
    rows.map(({ arm }, row) => [armName(view, arm), ...view.ranks[row].slice(1).map((text) => text || "–")]),
    "ranks",
  );
  return tableCard("table-ranking", `${capital(measureName(view, key))} by arm`, "The numbers of the chart, for the measure of the question.", table);
}

const COMPARED = ["change", "95% interval", "direction", "test", "p", "p, corrected", "seeds needed"];

function comparisonTables(view) {
  const cards = [];
  const pair = (one) => el("span", {}, armSwatch(one.second), `${view.arms[one.second]} against ${view.arms[one.first]}`);
  if (view.comparisons.length) {
    const many = view.comparisons.length > 1 ? ` p is corrected for ${view.comparisons.length} comparisons (Holm).` : "";
    const help = `${capital(measureName(view, view.measure))}, pair by pair.${many} Seeds needed: for four of five studies to see ${view.stated}.`;
    const head = many ? COMPARED : COMPARED.filter((_, at) => at !== 5);
    const cells = (one) => (many ? one.text : one.text.filter((_, at) => at !== 5));
    cards.push(tableCard("table-differences", "Differences", help, plainTable(["pair", ...head], view.comparisons.map((one) => [pair(one), ...cells(one)]), "differences")));
  }
  if (view.others.length) {
    const help = `What else differs. The study did not ask for these; p is corrected for all ${view.others.length} of them (Holm).`;
    const rows = view.others.map((one) => [pair(one), measureName(view, one.measure), ...one.text.filter((_, at) => ![3, 6].includes(at))]);
    const head = ["pair", "measure", ...COMPARED.filter((_, at) => ![3, 6].includes(at))];
    cards.push(el("details", { class: "card wide", id: "table-others" }, el("summary", {}, "Other measures"), el("p", { class: "help" }, help), plainTable(head, rows, "others")));
  }
  return cards;
}

function sharedTable(view) {
  if (!view.shared.length) return null;
  const cell = (names) => el("span", { class: "long" }, names.join(", ") || "nothing");
  const rows = view.shared.map(({ pairs, shared, differ }) => [pairs, cell(shared), cell(differ)]);
  const words = view.shared.some(({ differ }) => differ.length)
    ? "For a seed, both runs of a pair have these parts in common bit for bit. Where the arms must differ in a part, chance in that part is a part of their difference."
    : "For a seed, both runs of a pair have all of these parts in common bit for bit, so chance in them is no part of the difference.";
  return tableCard("table-shared", "What the runs of a pair share", words, plainTable(["pairs", "the same", "different"], rows, "shared"));
}

function tuningTables(view) {
  return view.tuning.map((one, index) =>
    tableCard(
      `table-tuning-${index}`,
      one.name ? `What tuning found for ${one.name}` : "What tuning found",
      one.words[0] || "",
      el("ul", { class: "reasons" }, one.words.slice(1).map((words) => el("li", {}, words))),
      one.flat.length ? plainTable(["parameter", "best", "about as good", "importance"], one.flat, `tuned-${index}`) : "",
    ),
  );
}

// The table of runs: a filter, columns that sort, links to the reports.
function runsTable(view) {
  const columns = [view.measure, ...Object.keys(view.measures).filter((key) => key !== view.measure)].filter((key) => key).slice(0, 6);
  const head = ["arm", "seed", "state", "rounds", ...columns.map((key) => measureName(view, key)), "verdict"];
  const value = (index, column) => {
    const run = view.runs[index];
    if (column < 4) return [run.arm, Number(run.seed), run.state, run.rounds][column];
    return column < 4 + columns.length ? view.values[columns[column - 4]][index] : run.verdict;
  };
  const shownValue = (index, key) => {
    const one = view.values[key][index];
    return one === null ? "–" : view.bounds[key]?.[index] ? `missed (≥ ${measureFormat(view, key)(one)})` : measureFormat(view, key)(one);
  };
  const text = (run) => `${view.arms[run.arm]} seed ${run.seed} ${run.state} ${run.verdict}`.toLowerCase();
  const rows = view.runs.map((run, index) => {
    const name = el("span", {}, armSwatch(run.arm), view.arms[run.arm]);
    const first = run.href ? el("a", { href: run.href, title: "the run's report" }, name) : name;
    const cells = [el("span", { class: "first" }, first), run.seed, el("span", { class: run.state }, run.state), run.rounds === null ? "–" : run.rounds.toLocaleString("en"), ...columns.map((key) => shownValue(index, key)), el("span", { class: "long" }, run.verdict)];
    return el("tr", {}, cells.map((cell) => el("td", {}, cell)));
  });
  const body = el("tbody", {}, rows);
  let sorted = null;
  const headings = head.map((name, column) => {
    const heading = el("th", { scope: "col" }, el("button", { type: "button" }, name));
    heading.firstChild.addEventListener("click", () => {
      sorted = sorted && sorted.column === column ? { column, up: !sorted.up } : { column, up: true };
      headings.forEach((one, at) => (at === column ? one.setAttribute("aria-sort", sorted.up ? "ascending" : "descending") : one.removeAttribute("aria-sort")));
      const order = rows.map((_, index) => index);
      order.sort((a, b) => compare(value(a, column), value(b, column), sorted.up) || a - b);
      body.replaceChildren(...order.map((index) => rows[index]));
      filter();
    });
    return heading;
  });
  const input = el("input", { type: "search", placeholder: "search runs", "aria-label": "search runs" });
  const found = el("span", { class: "found", role: "status" });
  function filter() {
    const words = input.value.trim().toLowerCase().split(/\s+/);
    view.runs.forEach((run, index) => {
      rows[index].hidden = !words.every((word) => text(run).includes(word));
    });
    found.textContent = `${rows.filter((row) => !row.hidden).length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} runs`;
    fit();
  }
  const table = el("table", { class: "plain", id: "runs" }, el("thead", {}, el("tr", {}, headings)), body);
  const holder = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "table of runs" }, table);
  const hint = el("p", { class: "help more", hidden: true });
  // As tall as a whole number of rows, so that none is cut.
  function fit() {
    const shown = [...body.children].filter((row) => !row.hidden);
    const last = shown[Math.min(shown.length, MOST_ROWS) - 1];
    if (!last || !holder.offsetParent) return;
    const more = shown.length > MOST_ROWS;
    holder.style.scrollPaddingTop = `${Math.round(table.tHead.getBoundingClientRect().height)}px`;
    holder.scrollTop = 0;
    const tall = last.getBoundingClientRect().bottom - table.getBoundingClientRect().top;
    holder.style.maxHeight = more ? `${Math.round(tall + 0.49) + holder.offsetHeight - holder.clientHeight}px` : "";
    const wide = holder.scrollWidth > holder.clientWidth + 1;
    hint.hidden = !wide && !more;
    hint.textContent = `Scroll the table${more ? ` down for all ${shown.length.toLocaleString("en")} runs ↓` : ""}${wide ? `${more ? "," : ""} sideways for more columns →` : ""}`;
  }
  input.addEventListener("input", filter);
  new ResizeObserver(fit).observe(holder);
  filter();
  return el("section", { class: "card wide runs" }, el("h3", {}, "Runs"), el("p", { class: "help" }, "A name with a link opens the run's report. A heading sorts."), el("div", { class: "filters", role: "search" }, input, found), holder, hint);
}

// Numbers before texts, what is missing last.
function compare(a, b, up) {
  const none = (value) => value === null || value === "" || Number.isNaN(value);
  if (none(a) || none(b)) return none(a) - none(b);
  const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en");
  return up ? order : -order;
}
