// All runs as lines through one axis for each factor and measure (parallel coordinates), drawn as SVG.

const MOST_LANES = 10;
const LANE = 104; // least pixels between two axes
const SVG = "http://www.w3.org/2000/svg";

function svg(tag, props = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(props)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// The axes: factors, then measures in which runs differ. `of(run)` is a place from 0 (below) to 1, or null.
function lanesOf(view) {
  const factors = view.factors.map((factor) => {
    const last = Math.max(1, factor.levels.length - 1);
    const texts = factor.values.map((value) => (factor.numeric ? String(Number(value.toPrecision(6))) : value));
    const place = (run) => {
      const at = factor.levels.indexOf(texts[view.runs[run].arm]);
      return at < 0 ? null : factor.levels.length === 1 ? 0.5 : at / last;
    };
    return { key: factor.key, name: factor.key.split(".").at(-1) === "kind" ? factor.key.split(".").at(-2) : factor.key.split(".").at(-1), ticks: factor.levels.map((name, at) => [at / last, name]), of: place };
  });
  const order = [...new Set([view.measure, ...Object.keys(view.measures)])].filter((key) => key);
  const measures = order.flatMap((key) => {
    const values = view.values[key],
      known = values.filter((value) => value !== null);
    const [low, high] = [Math.min(...known), Math.max(...known)];
    if (!(high > low)) return [];
    const format = measureFormat(view, key);
    return [{ key, name: measureName(view, key), ticks: [[0, format(low)], [1, format(high)]], of: (run) => (values[run] === null ? null : (values[run] - low) / (high - low)) }];
  });
  return [...factors, ...measures].slice(0, MOST_LANES);
}

function lanesCard(state) {
  const { view } = state;
  const lanes = lanesOf(view);
  const chosenLane = lanes.findIndex((lane) => lane.key === view.measure);
  return studyCard(state, {
    id: "lanes",
    section: "Factors",
    title: "All runs",
    wide: true,
    grid: true,
    help: "One line a run, through its value on each axis. Point at a line, or choose arms above, to follow it.",
    has: () => lanes.length > 1 && view.runs.some((_, run) => lanes.some((lane) => view.measures[lane.key] && lane.of(run) !== null)),
    draw(holder) {
      titleAxes(holder, "highest value of each axis", `axes: ${lanes.map((lane) => lane.name).join(", ")}`);
      const scroll = holder.querySelector(".scroll") || holder.appendChild(el("div", { class: "scroll lanes" }));
      const tip = holder.querySelector(".tip") || holder.appendChild(el("div", { class: "tip", hidden: true }));
      const width = Math.max(scroll.clientWidth || holder.clientWidth, lanes.length * LANE);
      const [top, bottom, height] = [44, 14, 330];
      const step = width / lanes.length;
      const x = (lane) => step * (lane + 0.5),
        y = (part) => top + (1 - part) * (height - top - bottom);
      const lines = svg("g", { fill: "none", "stroke-width": "1.3" });
      const measured = lanes.filter((lane) => view.measures[lane.key]);
      view.runs.forEach((run, index) => {
        if (!measured.some((lane) => lane.of(index) !== null)) return;
        const points = lanes.map((lane, at) => [x(at), lane.of(index)]).filter(([, part]) => part !== null).map(([across, part]) => [across, y(part)]);
        if (points.length < 2) return; // one axis alone makes no line
        const faint = state.hidden.has(run.arm);
        const line = svg("polyline", { points: points.map((one) => one.map((value) => value.toFixed(1)).join()).join(" "), stroke: faint ? colour("line") : armColour(run.arm), opacity: faint ? "0.5" : "0.6" });
        line.dataset.run = index;
        if (faint) lines.prepend(line);
        else lines.append(line);
      });
      const axes = lanes.map((lane, at) => {
        const ink = colour("soft"),
          group = svg("g");
        group.append(svg("line", { x1: x(at), x2: x(at), y1: y(1), y2: y(0), stroke: colour("faint"), "stroke-width": at === chosenLane ? "2.5" : "1" }));
        group.append(svgText(cutText(lane.name, step - 10), x(at), 12, ink, "600"));
        let free = Infinity;
        for (const [part, words] of lane.ticks) {
          const up = y(part);
          if (free - up < 15) continue;
          free = up;
          group.append(svgText(cutText(words, step / 2 + 20), x(at) + 6, part === 1 ? up - 8 : Math.min(up + 4, height - 3), ink, "400", "start"));
        }
        return group;
      });
      const picture = svg("svg", { width, height, role: "img", "aria-label": `${view.runs.length} runs as lines through ${lanes.map((lane) => lane.name).join(", ")}` }, lines, ...axes);
      picture.style.display = "block";
      scroll.replaceChildren(picture);
      if (scroll.scrollWidth > scroll.clientWidth + 1) {
        scroll.tabIndex = 0;
        scroll.setAttribute("role", "region");
        scroll.setAttribute("aria-label", "all runs; scrolls sideways");
      } else scroll.removeAttribute("tabindex");
      lines.onpointerover = ({ target }) => mark(target.dataset?.run, lines);
      lines.onpointermove = (event) => {
        const index = event.target.dataset?.run;
        tip.hidden = index === undefined;
        if (tip.hidden) return;
        const box = holder.getBoundingClientRect(),
          run = view.runs[index];
        const value = view.measure ? `${measureName(view, view.measure)} ${measureFormat(view, view.measure)(view.values[view.measure][index])}` : "";
        tip.replaceChildren(el("div", { style: "font-weight:600" }, `${view.arms[run.arm]}, seed ${run.seed}`), el("div", {}, value));
        tip.style.left = `${Math.max(0, Math.min(event.clientX - box.left + 14, box.width - tip.offsetWidth - 4))}px`;
        tip.style.top = `${event.clientY - box.top + 16}px`;
      };
      lines.onpointerleave = () => {
        tip.hidden = true;
        mark(undefined, lines);
      };
      noteUnder(holder, lanes.length < view.factors.length + Object.keys(view.measures).length ? [`Axes are the factors and the measures in which runs differ, at most ${MOST_LANES}.`] : []);
    },
  });
}

function mark(index, lines) {
  for (const line of lines.children) line.classList.toggle("marked", index !== undefined && line.dataset.run === index);
}

function svgText(words, x, y, ink, weight, anchor = "middle") {
  const text = svg("text", { x, y, fill: ink, "text-anchor": anchor, "font-size": "11.5", "font-weight": weight });
  text.setAttribute("style", `color: ${ink}; paint-order: stroke; stroke: ${colour("card")}; stroke-width: 4px; stroke-linejoin: round`);
  text.textContent = words;
  return text;
}

// A text cut to a width, measured as SVG draws it.
function cutText(words, width) {
  ruler.font = `600 11.5px ${getComputedStyle(document.body).fontFamily}`;
  return cut(ruler, String(words), width);
}
