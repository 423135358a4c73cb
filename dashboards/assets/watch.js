// The watch page: a list of runs, and the open run, redrawn whenever its record has grown.
{
  const EVERY = 1500;
  const list = el("section", { class: "runs card", hidden: true }),
    quiet = el("p", { class: "quiet", id: "quiet" }, "Looking for runs …");
  const host = el("div");
  const root = document.getElementById("page");
  root.append(host);
  const page = makePage(host, "fedscape watch: redrawn as the record grows.", [list, quiet]);
  let open = decodeURIComponent(location.hash.slice(1)),
    seen = "",
    drawnList = "";
  let busy = false;

  const ago = (age) => (age < 5 ? "now" : age < 90 ? `${Math.round(age)} s ago` : `${seconds(age)} ago`);

  function showList({ runs }) {
    const text = JSON.stringify([open, runs.map((run) => ({ ...run, age: ago(run.age) }))]);
    if (text === drawnList) return;
    drawnList = text;
    list.hidden = !runs.length;
    const rows = runs.map((run) => {
      const go = el("button", { type: "button", onclick: () => choose(run.name) }, run.name);
      return el(
        "tr",
        { "aria-current": String(run.name === open), onclick: () => choose(run.name) },
        [
          go,
          el("span", { class: run.state }, run.state),
          `${run.round ?? "–"}${run.rounds ? ` / ${run.rounds}` : ""}`,
          number(run.loss),
          number(run.score),
          run.algorithm,
          run.seed === null || run.seed === undefined ? "" : String(run.seed),
          ago(run.age),
        ].map((cell) => el("td", {}, cell)),
      );
    });
    list.replaceChildren(
      el(
        "div",
        { class: "scroll", style: "max-height:260px;overflow-y:auto" },
        el(
          "table",
          { class: "plain", id: "runs" },
          el(
            "thead",
            {},
            el(
              "tr",
              {},
              ["run", "state", "round", "loss", "score", "algorithm", "seed", "changed"].map((name) =>
                el("th", {}, name),
              ),
            ),
          ),
          el("tbody", {}, rows),
        ),
      ),
    );
  }

  function choose(name) {
    if (name === open) return;
    open = name;
    seen = "";
    history.replaceState(null, "", `#${encodeURIComponent(name)}`);
    look();
  }

  function say(words) {
    quiet.textContent = words;
    quiet.hidden = !words;
  }

  const ask = async (address) => (await fetch(address)).json();

  async function look() {
    if (busy) return;
    busy = true;
    try {
      const found = await ask("runs.json");
      if (!open && found.runs?.length) open = found.runs[0].name;
      if (found.runs) showList(found);
      if (!open) {
        say(`No runs in ${found.root || "this folder"} yet; the first run appears here when it starts.`);
        return;
      }
      const wanted = open,
        answer = await ask(`run.json?${new URLSearchParams({ name: wanted, seen })}`);
      if (wanted !== open) return;
      if (answer.gone) {
        page.clear();
        say(`${wanted} no longer exists.`);
        seen = "";
        if (found.runs?.length) document.documentElement.dataset.open = "";
      } else if (answer.problem) {
        say(answer.problem);
      } else if (answer.view) {
        say("");
        page.show([answer.view], null);
        seen = answer.version;
        document.documentElement.dataset.open = wanted;
        document.documentElement.dataset.round = answer.view.round;
      }
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // what fetch raises where the server is gone
      say("The watch has ended. This page shows its last state.");
    } finally {
      busy = false;
    }
  }

  const tick = async () => {
    if (!document.hidden) await look();
    setTimeout(tick, EVERY);
  };
  addEventListener("hashchange", () => choose(decodeURIComponent(location.hash.slice(1))));
  tick();
}
