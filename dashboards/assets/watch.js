// The watch page: a list of runs, and the open run, redrawn whenever its record has grown.
{
  const EVERY = 1500;
  const quiet = el("p", { class: "quiet", id: "quiet" }, "Looking for runs …");
  const host = el("div");
  const root = document.getElementById("page");
  root.append(host);
  const found = makeRunList(choose);
  const page = makePage(host, "fedscape watch: redrawn as the record grows.", [found.list, quiet]);
  let open = decodeURIComponent(location.hash.slice(1)),
    seen = "";
  let busy = false;

  function choose(name) {
    if (name === open) return;
    open = name;
    seen = "";
    history.replaceState(null, "", `${location.pathname}${location.search}#${encodeURIComponent(name)}`);
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
      const answered = await ask("runs.json");
      if (!open && answered.runs?.length) open = answered.runs[0].name;
      if (answered.runs) found.show(answered, open);
      if (!open) {
        say(`No runs in ${answered.root || "this folder"} yet; the first run appears here when it starts.`);
        return;
      }
      const wanted = open,
        answer = await ask(`run.json?${new URLSearchParams({ name: wanted, seen })}`);
      if (wanted !== open) return;
      if (answer.gone) {
        page.clear();
        say(`${wanted} no longer exists.`);
        seen = "";
        if (answered.runs?.length) document.documentElement.dataset.open = "";
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
