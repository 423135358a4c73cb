// Charts of the clients' data: sizes, distances from all clients, shares changed by faults, places.

// Number of clients by number of examples: one bar per bin.
function histogramOption({ edges, counts }, font) {
  const whole = edges.every((edge, bin) => !bin || edge === edges[bin - 1] + 1);
  const bin = (index) =>
    whole || edges[index + 1] - edges[index] === 1
      ? number(edges[index], 6)
      : `${number(edges[index], 6)} to ${number(edges[index + 1] - 1, 6)}`;
  return {
    ...plainAxes(
      font,
      {
        type: "category",
        data: counts.map((_, index) => number(edges[index], 6)),
        name: "training examples",
      },
      { name: "clients", minInterval: 1 },
    ),
    tooltip: {
      trigger: "axis",
      confine: true,
      axisPointer: { type: "shadow" },
      ...tooltipColours(font),
      formatter: ([one]) =>
        tipOf(`${counts[one.dataIndex].toLocaleString("en")} clients have ${bin(one.dataIndex)} examples`),
    },
    series: [
      { type: "bar", data: counts, barCategoryGap: "8%", barMaxWidth: 90, itemStyle: { color: colour("s0"), borderRadius: [2, 2, 0, 0] } },
    ],
  };
}

// One value per client, from the largest to the smallest: bars with names where they are few.
function curveOption({ label, values, names }, font, width) {
  if (names.length)
    return namedBars({ names, values, font, width, unit: label, tip: (row) => `${label} ${number(values[row])}` });
  const few = values.length <= 60;
  const share = (index) => (values.length > 1 ? (100 * index) / (values.length - 1) : 0);
  return {
    ...plainAxes(
      font,
      few
        ? { type: "category", data: values.map((_, index) => String(index + 1)), name: "clients, largest first" }
        : { min: 0, max: 100, name: "clients, % (largest first)" },
      { name: label, scale: !few },
    ),
    tooltip: {
      trigger: "axis",
      confine: true,
      ...tooltipColours(font),
      formatter: ([one]) =>
        tipOf(
          few
            ? `client ${one.dataIndex + 1} of ${values.length} in this order: ${number(values[one.dataIndex])}`
            : `${number(share(one.dataIndex))}% of clients have at least ${number(values[one.dataIndex])}`,
        ),
    },
    series: [
      few
        ? { type: "bar", data: values, barCategoryGap: "12%", barMaxWidth: 60, itemStyle: { color: colour("s0"), borderRadius: [2, 2, 0, 0] } }
        : {
            type: "line",
            data: values.map((value, index) => [share(index), value]),
            showSymbol: false,
            lineStyle: { width: 1.8 },
            itemStyle: { color: colour("s0") },
            areaStyle: { opacity: 0.15 },
          },
    ],
  };
}

// One row per fault, one column per client, darker for a larger share of changed readings or labels.
function paintFaults(holder, view, order) {
  const names = Object.keys(view.faults),
    clients = view.names.length;
  const of = (client) => names.reduce((sum, name) => sum + (view.faults[name][client] || 0), 0);
  const sorted = view.names.map((_, client) => client);
  if (order === "most") sorted.sort((a, b) => of(b) - of(a));
  const top = Math.max(...names.flatMap((name) => view.faults[name].map((one) => one || 0))) || 1;
  const [empty, full] = [channels(colour("empty")), channels(colour("s1"))];
  const image = new ImageData(clients, names.length);
  names.forEach((name, y) =>
    sorted.forEach((client, x) => {
      const part = Math.sqrt((view.faults[name][client] || 0) / top);
      image.data.set(
        [...empty.map((value, index) => Math.round(value + (full[index] - value) * part)), 255],
        (y * clients + x) * 4,
      );
    }),
  );
  paintGrid(holder, {
    height: Math.min(Math.max(names.length * 56, 60), 252),
    up: "fault",
    across: order === "most" ? "clients, most changed first" : "clients",
    label: `What ${names.length} faults changed of ${clients} clients`,
    rows: names.map((name, y) => [(y + 0.5) / names.length, name]),
    ticks:
      order === "most"
        ? [
            [0.02, "most"],
            [0.98, "least"],
          ]
        : niceTicks(0, clients - 1, Math.max(2, holder.clientWidth / 90)).map((at) => [
            (at + 0.5) / clients,
            view.names[at],
          ]),
    paint(context, area) {
      const off = el("canvas", { width: clients, height: names.length });
      off.getContext("2d").putImageData(image, 0, 0);
      context.imageSmoothingEnabled = false;
      context.drawImage(off, area.x, area.y, area.width, area.height);
    },
    cellText(x, y) {
      const client = sorted[Math.floor(x * clients)],
        name = names[Math.floor(y * names.length)];
      return [`${number(100 * (view.faults[name][client] || 0))}% changed by ${name}`, `client ${view.names[client]}`];
    },
  });
  return [legendOf(colour("empty"), "nothing"), legendOf(colour("s1"), `${number(100 * top)}% changed`)];
}

// A map of the sites, coloured by the selected quantity. Both axes have one scale, so that circles stay circles.
function mapOption(map, by, font, { width, height }) {
  const byDistrict = by === "district";
  const values = byDistrict ? map.district : map.values[by];
  const known = values.filter((value) => value !== null);
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const stops = document.documentElement.dataset.theme === "dark" ? SEQUENTIAL_ON_DARK : SEQUENTIAL;
  const ink = (value) =>
    value === null
      ? colour("empty")
      : byDistrict
        ? seriesColour(value)
        : `rgb(${ramp(stops, high > low ? (value - low) / (high - low) : 0.5).join()})`;
  const what = (index) =>
    byDistrict
      ? map.districts[map.district[index]] || `district ${map.district[index]}`
      : `${map.labels[by]} ${number(values[index])}`;
  const middle = (list) => (Math.min(...list) + Math.max(...list)) / 2;
  const span = (list) => Math.max(Math.max(...list) - Math.min(...list), 1e-6) * 1.08;
  const room = { x: Math.max(width - 72, 50), y: Math.max(height - 38, 50) };
  const unit = Math.max(span(map.x) / room.x, span(map.y) / room.y);
  const range = (list, pixels) => ({
    min: middle(list) - (unit * pixels) / 2,
    max: middle(list) + (unit * pixels) / 2,
  });
  const label = { showMinLabel: false, showMaxLabel: false, formatter: (value) => number(value) };
  const base = plainAxes(font, { name: "km east" }, { name: "km north" });
  const axis = (one, list, pixels) => ({
    ...one,
    ...range(list, pixels),
    axisLabel: { ...one.axisLabel, ...label },
    splitLine: { show: true, lineStyle: { color: colour("grid") } },
  });
  const size = Math.min(Math.max(150 / Math.sqrt(map.x.length), 4), 13);
  const order = map.x.map((_, index) => index).sort((a, b) => (values[a] ?? -Infinity) - (values[b] ?? -Infinity));
  return {
    ...base,
    grid: { left: 46, right: 26, top: 12, bottom: 26, containLabel: false },
    xAxis: axis(base.xAxis, map.x, room.x),
    yAxis: axis(base.yAxis, map.y, room.y),
    tooltip: {
      trigger: "item",
      confine: true,
      ...tooltipColours(font),
      formatter: ({ dataIndex }) => {
        const index = order[dataIndex];
        const lines = [what(index), `client ${map.names[index]}`];
        if (!byDistrict && map.districts.length) lines.push(map.districts[map.district[index]]);
        return tipOf(...lines);
      },
    },
    series: [
      {
        type: "scatter",
        symbolSize: size,
        data: order.map((index) => ({ value: [map.x[index], map.y[index]], itemStyle: { color: ink(values[index]), opacity: 0.9 } })),
      },
    ],
  };
}

function mapLegend(map, by) {
  if (by === "district")
    return [...new Set(map.district)]
      .sort((a, b) => a - b)
      .map((one) => legendOf(seriesColour(one), map.districts[one] || `district ${one}`));
  const known = map.values[by].filter((value) => value !== null);
  const stops = document.documentElement.dataset.theme === "dark" ? SEQUENTIAL_ON_DARK : SEQUENTIAL;
  const scale = el("canvas", { class: "scale", width: 160, height: 1 }),
    pixels = new ImageData(160, 1);
  for (let x = 0; x < 160; x += 1) pixels.data.set([...ramp(stops, x / 159), 255], x * 4);
  scale.getContext("2d").putImageData(pixels, 0, 0);
  return [
    el("span", {}, number(Math.min(...known))),
    scale,
    el("span", {}, `${number(Math.max(...known))} ${map.labels[by]}`),
    ...(known.length < map.x.length ? [legendOf(colour("empty"), "not in the sample")] : []),
  ];
}
