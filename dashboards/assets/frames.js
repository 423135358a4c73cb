// What surrounds a chart, as HTML: legend, axis titles and notes wrap at the card's edge and never cover the chart.

function frameOf(holder) {
  if (holder.frame) return holder.frame;
  const part = (name, tag = "div") => el(tag, { class: name, hidden: true });
  const frame = { legend: part("entries"), up: part("axis up"), across: part("axis across"), notes: part("notes", "ul") };
  holder.before(frame.legend, frame.up);
  holder.after(frame.across, frame.notes);
  holder.frame = frame;
  return frame;
}

function titleAxes(holder, up, across) {
  const frame = frameOf(holder);
  for (const [node, words] of [
    [frame.up, up],
    [frame.across, across],
  ]) {
    node.textContent = words || "";
    node.hidden = !words;
  }
}

function noteUnder(holder, notes) {
  const { notes: list } = frameOf(holder);
  list.replaceChildren(...notes.map((words) => el("li", {}, words)));
  list.hidden = !notes.length;
}

// One button for each line of a chart, as its option's legend lists them; a click hides or shows the line.
function legendOver(chart, holder, option) {
  const { legend } = frameOf(holder);
  const hidden = (holder.hiddenLines ??= new Set());
  const names = option.legend && option.legend.lifted ? option.legend.data : [];
  const lineOf = (name) => option.series.find((one) => one.name === name && one.lineStyle && one.lineStyle.width > 0);
  const buttons = names.map((name) => {
    const { color, type } = lineOf(name).lineStyle;
    const button = el(
      "button",
      { type: "button", "aria-pressed": String(!hidden.has(name)) },
      swatchOf(color, type),
      el("span", {}, name),
    );
    button.addEventListener("click", () => {
      if (!hidden.delete(name)) hidden.add(name);
      button.setAttribute("aria-pressed", String(!hidden.has(name)));
      chart.dispatchAction({ type: "legendToggleSelect", name });
    });
    return button;
  });
  legend.replaceChildren(...buttons);
  legend.hidden = !names.length;
  return { ...option.legend, show: false, selected: Object.fromEntries([...hidden].map((name) => [name, false])) };
}

function hideFrame(holder, hidden) {
  holder.hidden = hidden;
  if (hidden) for (const part of Object.values(frameOf(holder))) part.hidden = true;
}

// Draw an option: the names of its axes and its legend become text around the chart.
function drawNamed(chart, holder, option) {
  const [across, up] = [option.xAxis, option.yAxis].map((axis) => (Array.isArray(axis) ? axis[0] : axis));
  titleAxes(
    holder,
    up.name && up.type === "value" ? `↑ ${up.name}` : up.name,
    across.name && across.type === "value" ? `${across.name} →` : across.name,
  );
  const unnamed = (axis) => (Array.isArray(axis) ? axis.map(unnamed) : { ...axis, name: "" });
  const { height, ...rest } = option;
  const tall = height ? `${height}px` : "";
  if (holder.style.height !== tall) holder.style.height = tall;
  if (chart.getWidth() !== holder.clientWidth || chart.getHeight() !== holder.clientHeight) chart.resize();
  const legend = legendOver(chart, holder, option);
  chart.setOption(
    { ...rest, legend, xAxis: unnamed(option.xAxis), yAxis: unnamed(option.yAxis) },
    { notMerge: true },
  );
}

// Cards that are half as wide as the page fill it in pairs; a last one alone is as wide as the page.
function pairCards(group) {
  const shown = [...group.children].filter((card) => !card.hidden);
  const halves = shown.filter((card) => !card.classList.contains("wide"));
  const changed = [];
  halves.forEach((card, index) => {
    const alone = halves.length % 2 === 1 && index === halves.length - 1;
    if (card.classList.contains("alone") !== alone) changed.push(card);
    card.classList.toggle("alone", alone);
  });
  return changed;
}

// A start that is far above all later values: the axis ends above the later values, and an arrow marks the start.
const STEEP = 3;
function steepStart(series) {
  const sides = series.flatMap((one) => [one, ...(one.bands || []).flatMap(([low, high]) => [low, high])]);
  const measured = series.flatMap((one) => one.rounds.filter((_, row) => one.y[row] !== null));
  const first = Math.min(...measured);
  const of = (one, want) => one.y.filter((value, row) => value !== null && want(one.rounds[row]));
  const later = sides.flatMap((one) => of(one, (round) => round > first));
  const start = Math.max(...sides.flatMap((one) => of(one, (round) => round === first)));
  const [low, high] = [Math.min(...later), Math.max(...later)];
  if (new Set(measured).size < 4 || !(high > low) || start - low < STEEP * (high - low)) return null;
  const step = niceStep((high - low) / 3);
  const [bottom, top] = [Math.floor(low / step) * step, Math.ceil((high + step / 4) / step) * step];
  const points = series.flatMap((one) => {
    const row = one.rounds.indexOf(first);
    return row >= 0 && one.y[row] > top ? [{ name: one.name, index: one.index, x: one.x[row], value: one.y[row] }] : [];
  });
  return points.length ? { low: bottom, high: top, step, round: first, points } : null;
}

function niceStep(raw) {
  const power = 10 ** Math.floor(Math.log10(raw));
  return power * [1, 2, 5, 10].find((one) => one * power >= raw);
}

const arrows = ({ points }, top) => ({
  silent: true,
  animation: false,
  symbol: "triangle",
  symbolSize: 9,
  symbolOffset: [0, 5],
  label: { show: false },
  data: points.map((one) => ({ coord: [one.x, top], itemStyle: { color: seriesColour(one.index) } })),
});

// Sentences on what a chart does not show within its axes, and on its marks.
function notesUnder(spec, views, series, log, format) {
  const notes = [];
  const beyond = log || !spec.steep ? null : steepStart(series);
  if (beyond) {
    const shown = beyond.points.slice(0, 6).map((one) => `${one.name} ${format(one.value)}`);
    const more = beyond.points.length > 6 ? ` and ${beyond.points.length - 6} more` : "";
    notes.push(`▲ Above the axis in round ${beyond.round}: ${shown.join(", ")}${more}. "log" shows all values.`);
  }
  const low = log && !spec.timeline ? series.flatMap((one) => one.y).filter((value) => value !== null && value <= 0).length : 0;
  if (low) notes.push(`${low.toLocaleString("en")} values of 0 or less are not drawn on a logarithmic axis.`);
  const marks = views.length === 1 && spec.marks && views[0].city ? views[0].city.marks : [];
  if (marks.length) notes.push(`Marks: ${marks.map(([round, words]) => `round ${round.toLocaleString("en")}: ${words}`).join("; ")}.`);
  return notes;
}
