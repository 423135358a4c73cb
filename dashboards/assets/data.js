// The page of the clients' data. It is self-contained.
{
  const view = JSON.parse(document.getElementById("data").textContent);
  const root = document.getElementById("page");
  const font = getComputedStyle(document.body).fontFamily;
  const cards = [];

  // A card that draws itself by the picked choice.
  function dataCard(id, title, help, choices, draw, { wide = false, tall = false, grid = false } = {}) {
    const { card, tools } = makeCard(id, title, help, wide);
    const holder = card.appendChild(el("div", { class: grid ? "grid" : tall ? "chart map" : "chart" }));
    const legend = card.appendChild(el("div", { class: "legend" }));
    let picked = choices.length ? choices[0][0] : null;
    const paint = () => legend.replaceChildren(...(draw(holder, picked) || []));
    if (choices.length > 1)
      tools.append(
        picker(
          choices,
          picked,
          (value) => {
            picked = value;
            paint();
          },
          `quantity of ${title}`,
        ),
      );
    card.hidden = false;
    cards.push({ id, card, paint });
  }

  // Draw with ECharts, and count the chart once it is drawn.
  function chart(id, holder, option) {
    const found = echarts.getInstanceByDom(holder);
    const made = found || echarts.init(holder, null, { renderer: "canvas" });
    if (!found) made.on("finished", () => drawn.finish(id));
    drawNamed(made, holder, option);
  }

  const some = view.looked_at < view.clients ? ` Of a sample of ${view.looked_at.toLocaleString("en")} clients.` : "";
  const shown = `${view.names.length.toLocaleString("en")} of ${view.clients.toLocaleString("en")} clients`;
  const showing = view.names.length < view.clients ? ` Shown: ${shown}.` : "";

  if (view.map) {
    const choices = [
      ...(view.map.districts.length ? [["district", "district"]] : []),
      ...Object.entries(view.map.labels),
    ];
    const first = choices.findIndex(([name]) => view.map.faults.includes(name));
    if (first > 0) choices.unshift(...choices.splice(first, 1));
    dataCard(
      "map",
      "Places of the clients",
      `One dot per site, coloured by the selected quantity; distances in kilometres.${some}`,
      choices,
      (holder, by) => {
        chart("map", holder, mapOption(view.map, by, font, { width: holder.clientWidth, height: holder.clientHeight }));
        return mapLegend(view.map, by);
      },
      { wide: true, tall: true },
    );
  }
  if (view.series)
    dataCard(
      "series",
      "Readings of a few clients",
      "As the clients hold them, faults included. Training comes first in time; the validation and test parts are shaded.",
      view.series.clients.map((one, index) => [String(index), one.name]),
      (holder, index) => {
        const one = view.series.clients[Number(index)];
        chart("series", holder, seriesOption(one, view.series.origin, holder.clientWidth, font));
        return seriesLegend(one);
      },
      { wide: true },
    );
  const named = view.names.length === view.clients && view.clients <= MOST_NAMED;
  dataCard(
    "sizes",
    "Examples per client",
    named ? "Training examples of each client." : "Number of clients by number of training examples, over all clients.",
    [],
    (holder) =>
      chart(
        "sizes",
        holder,
        named ? sizesOption(view, font, holder.clientWidth) : histogramOption(view.histogram, font),
      ),
  );
  if (view.label_counts)
    dataCard(
      "labels",
      "Labels per client",
      `One ${view.names.length <= MOST_NAMED ? "row per client, one column" : "column per client, one row"} per label. A darker cell is a larger share of the client's examples (square root).${showing}`,
      [
        ["label", "by main label"],
        ["client", "by client"],
      ],
      (holder, order) => {
        paintLabels(holder, view, order);
        drawn.finish("labels");
      },
      { grid: true },
    );
  const curves = Object.entries(view.curves).map(([name, one]) => [name, one.label]);
  const shifts = view.curves.feature_shift?.values ?? [];
  const below = shifts.some((value) => value < 0)
    ? " The energy distance is estimated without bias, so values below 0 mean a distance near 0."
    : "";
  if (curves.length)
    dataCard(
      "distance",
      "Distance of each client from all clients",
      `One value per client, from the largest to the smallest. The table above explains the measures.${below}${some}`,
      curves.sort(([a], [b]) => (b === "feature_shift") - (a === "feature_shift")),
      (holder, name) => chart("distance", holder, curveOption(view.curves[name], font, holder.clientWidth)),
    );
  if (Object.keys(view.faults).length)
    dataCard(
      "faults",
      "Data changed by faults",
      `One column per client, one row per fault. A darker cell is a larger share of changed readings or labels (square root).${showing}`,
      [
        ["most", "most first"],
        ["client", "by client"],
      ],
      (holder, order) => {
        const legend = paintFaults(holder, view, order);
        drawn.finish("faults");
        return legend;
      },
      { grid: true },
    );

  const theme = themeButton(() => cards.forEach((one) => one.paint()));
  const facts = Object.entries(view.facts).map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`);
  const seed = view.seed === null ? [] : [`seed ${view.seed}`];
  root.append(
    el("nav", { class: "bar" }, el("span", { class: "mark" }, "fedscape", el("span", {}, view.name)), el("span", { class: "gap" }), theme),
    el(
      "section",
      { class: "verdict" },
      el("h1", { class: "title" }, view.title),
      el("p", { class: "words", id: "verdict" }, view.sentence),
      el("p", { class: "facts" }, [...seed, ...facts].join(" · ")),
    ),
    reachedOf({ reached: [...view.rows, ...view.extremes] }),
    noticesOf(view) || "",
    el("section", {}, el("h2", {}, "The clients' data"), el("div", { class: "cards" }, cards.map((one) => one.card))),
    el("footer", {}, "Made by fedscape. This page is self-contained and opens without a network."),
  );
  pairCards(root.querySelector(".cards"));
  cards.forEach((one) => drawn.expect(one.id));
  cards.forEach((one) => one.paint());
  let width = root.clientWidth;
  new ResizeObserver(() => {
    if (root.clientWidth === width) return;
    width = root.clientWidth;
    requestAnimationFrame(() => cards.forEach((one) => one.paint()));
  }).observe(root);
}
