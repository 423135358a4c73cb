// The list of the watch page: search, filters kept in the address, and rows that stay in place while their runs grow.

const FILTERS = ["search", "scenario", "outcome"];
const MOST_ROWS_SEEN = 8;
const HEADINGS = ["run", "state", "round", "loss", "score", "algorithm", "seed", "changed"];

function makeRunList(choose) {
  const query = new URLSearchParams(location.search);
  const wanted = Object.fromEntries(FILTERS.map((name) => [name, query.get(name) || ""]));
  const rows = new Map();
  let runs = [],
    total = 0,
    open = "";

  const input = el("input", { type: "search", placeholder: "search runs", "aria-label": "search runs", value: wanted.search });
  const scenario = el("select", { class: "small", "aria-label": "scenario" });
  const outcome = el("select", { class: "small", "aria-label": "outcome" });
  const found = el("span", { class: "found", role: "status" });
  const body = el("tbody");
  const table = el(
    "table",
    { class: "plain", id: "runs" },
    el("thead", {}, el("tr", {}, HEADINGS.map((name) => el("th", { scope: "col" }, name)))),
    body,
  );
  const holder = el("div", { class: "scroll" }, table);
  const hint = el("p", { class: "help more", hidden: true });
  const list = el(
    "section",
    { class: "runs card", hidden: true },
    el("div", { class: "filters", role: "search" }, input, scenario, outcome, found),
    holder,
    hint,
  );

  const want = (name, value) => {
    wanted[name] = value;
    const kept = new URLSearchParams(FILTERS.filter((one) => wanted[one]).map((one) => [one, wanted[one]]));
    history.replaceState(null, "", `${location.pathname}${kept.size ? `?${kept}` : ""}${location.hash}`);
    draw();
  };
  input.addEventListener("input", () => want("search", input.value.trim()));
  scenario.addEventListener("change", () => want("scenario", scenario.value));
  outcome.addEventListener("change", () => want("outcome", outcome.value));
  // Up and down move between the runs that are listed; Enter opens one, as on every button.
  body.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const buttons = [...body.querySelectorAll("button")];
    const next = buttons[buttons.indexOf(document.activeElement) + step];
    if (next) next.focus();
    event.preventDefault();
  });

  // The options that the listed runs offer, and the chosen one even where no run has it.
  function offer(select, all, name) {
    const values = [...new Set([...runs.map((run) => run[name === "outcome" ? "state" : name]), wanted[name]])];
    const options = ["", ...values.filter(Boolean).sort()];
    if (select.dataset.options === JSON.stringify(options)) return;
    select.dataset.options = JSON.stringify(options);
    select.replaceChildren(
      ...options.map((value) => el("option", { value, selected: value === wanted[name] }, value || all)),
    );
  }

  function fits(run) {
    const text = [run.name, run.title, run.scenario, run.algorithm, `seed ${run.seed}`].join(" ").toLowerCase();
    return (
      wanted.search.toLowerCase().split(/\s+/).every((word) => text.includes(word)) &&
      (!wanted.scenario || run.scenario === wanted.scenario) &&
      (!wanted.outcome || run.state === wanted.outcome)
    );
  }

  const ago = (age) => (age < 5 ? "now" : age < 90 ? `${Math.round(age)} s ago` : `${seconds(age)} ago`);

  function rowOf(name) {
    if (rows.has(name)) return rows.get(name);
    const go = el("button", { type: "button" }, name);
    const cells = [go, ...HEADINGS.slice(1).map(() => el("span"))];
    const row = el("tr", { onclick: () => choose(name) }, cells.map((cell, column) => el("td", {}, column ? cell : el("span", { class: "first" }, cell))));
    rows.set(name, { row, cells });
    return rows.get(name);
  }

  function fill(run) {
    const { row, cells } = rowOf(run.name);
    row.setAttribute("aria-current", String(run.name === open));
    cells[1].className = run.state;
    row.title = run.problem || "";
    [
      run.state,
      `${run.round ?? "–"}${run.rounds ? ` / ${run.rounds}` : ""}`,
      number(run.loss),
      number(run.score),
      run.algorithm,
      run.seed === null || run.seed === undefined ? "" : String(run.seed),
      ago(run.age),
    ].forEach((words, index) => {
      if (cells[index + 1].textContent !== words) cells[index + 1].textContent = words;
    });
    return row;
  }

  // As tall as a whole number of rows, so that none is cut.
  function fit() {
    const shown = [...body.children].slice(0, MOST_ROWS_SEEN);
    if (!shown.length || list.hidden) return;
    const top = table.getBoundingClientRect().top;
    const tall = Math.round(shown.at(-1).getBoundingClientRect().bottom - top + 0.49);
    const head = Math.round(table.tHead.getBoundingClientRect().height);
    const bar = holder.offsetHeight - holder.clientHeight;
    holder.style.maxHeight = body.children.length > MOST_ROWS_SEEN ? `${tall + bar}px` : "";
    holder.style.scrollPaddingTop = `${head}px`;
    const wide = holder.scrollWidth > holder.clientWidth + 1,
      more = body.children.length > MOST_ROWS_SEEN;
    hint.hidden = !wide && !more;
    hint.textContent = `Scroll the list${more ? ` down for all ${body.children.length.toLocaleString("en")} runs ↓` : ""}${wide ? `${more ? "," : ""} sideways for more columns →` : ""}`;
  }

  function draw() {
    list.hidden = !runs.length;
    offer(scenario, "all scenarios", "scenario");
    offer(outcome, "all outcomes", "outcome");
    const listed = runs.filter(fits);
    const fresh = listed.map(fill);
    if (fresh.length !== body.children.length || fresh.some((row, index) => row !== body.children[index])) {
      const active = document.activeElement,
        down = holder.scrollTop;
      body.replaceChildren(...fresh);
      if (body.contains(active)) active.focus({ preventScroll: true });
      holder.scrollTop = down;
    }
    const unlisted = total > runs.length ? `, the newest of ${total.toLocaleString("en")}` : "";
    found.textContent = `${listed.length.toLocaleString("en")} of ${runs.length.toLocaleString("en")} runs${unlisted}`;
    fit();
  }
  new ResizeObserver(fit).observe(list);

  return {
    list,
    show(answer, name) {
      open = name;
      runs = answer.runs;
      total = answer.found || runs.length;
      const names = new Set(runs.map((run) => run.name));
      for (const gone of [...rows.keys()].filter((one) => !names.has(one))) rows.delete(gone);
      draw();
    },
  };
}
