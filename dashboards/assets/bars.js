// Axes of plain charts, and bars of clients: named ones where they are few.

function plainAxes(font, across, up) {
  const text = textStyle(font);
  return {
    animation: false,
    textStyle: { fontFamily: font },
    aria: { enabled: true },
    grid: { left: 4, right: 16, top: 12, bottom: 4, containLabel: true },
    xAxis: {
      type: "value",
      axisLabel: { ...text, hideOverlap: true },
      axisTick: { show: false },
      axisLine: { onZero: false, lineStyle: { color: colour("line") } },
      splitLine: { show: false },
      ...across,
    },
    yAxis: {
      type: "value",
      axisLine: { show: false, onZero: false },
      axisTick: { show: false },
      axisLabel: { ...text, formatter: (value) => number(value) },
      splitLine: { lineStyle: { color: colour("grid") } },
      ...up,
    },
  };
}

// As many clients as have a bar each with its name.
const MOST_NAMED = 40;

// One bar for each named client, from the top down. `tip` gives the tooltip's lines.
function namedBars({ names, values, font, unit, tip, width }) {
  const text = textStyle(font);
  return {
    animation: false,
    textStyle: { fontFamily: font },
    aria: { enabled: true },
    height: Math.max(120, names.length * 22 + 40),
    grid: { left: 4, right: 18, top: 4, bottom: 4, containLabel: true },
    tooltip: {
      trigger: "axis",
      confine: true,
      axisPointer: { type: "shadow" },
      ...tooltipColours(font),
      formatter: ([one]) => tipOf(names[one.dataIndex], tip(one.dataIndex)),
    },
    xAxis: {
      type: "value",
      name: unit,
      splitNumber: width < 420 ? 3 : 5,
      axisLabel: { ...text, hideOverlap: true, formatter: (value) => number(value) },
      splitLine: { lineStyle: { color: colour("grid") } },
    },
    yAxis: {
      type: "category",
      name: "client",
      inverse: true,
      data: names,
      axisTick: { show: false },
      axisLine: { onZero: false, lineStyle: { color: colour("line") } },
      axisLabel: { ...text, interval: 0, width: Math.min(180, width * 0.34), overflow: "truncate" },
    },
    series: [
      {
        type: "bar",
        data: values,
        barCategoryGap: "22%",
        barMaxWidth: 18,
        itemStyle: { color: colour("s0"), borderRadius: [0, 2, 2, 0] },
      },
    ],
  };
}

// Client sizes: a named bar each where they are few, a curve in order of size, or the percentiles where they are many.
function sizesOption(partition, font, width) {
  const text = textStyle(font);
  const all = partition.sizes && partition.sizes.length === partition.clients;
  const values = all ? [...partition.sizes].sort((a, b) => b - a) : partition.size_percentiles;
  if (all && values.length <= MOST_NAMED) {
    const order = partition.sizes.map((_, row) => row).sort((a, b) => partition.sizes[b] - partition.sizes[a]);
    return namedBars({
      names: order.map((row) => partition.names[row]),
      values,
      font,
      width,
      unit: "training examples",
      tip: (row) => `${values[row].toLocaleString("en")} training examples`,
    });
  }
  const name = (row) =>
    all ? `${values.length - row} of ${values.length} clients have at most` : `${row}% of clients have at most`;
  return {
    animation: false,
    textStyle: { fontFamily: font },
    aria: { enabled: true },
    grid: { left: 6, right: 14, top: 14, bottom: 6, containLabel: true },
    tooltip: {
      trigger: "axis",
      confine: true,
      ...tooltipColours(font),
      formatter: ([one]) => tipOf(`${name(one.dataIndex)} ${number(values[one.dataIndex], 5)} examples`),
    },
    xAxis: {
      type: "category",
      name: all ? "clients, largest first" : "share of clients, smallest first",
      data: values.map((_, row) => (all ? row + 1 : `${row}%`)),
      axisLabel: { ...text, interval: Math.max(0, Math.ceil(values.length / 6) - 1) },
      axisTick: { show: false },
      axisLine: { lineStyle: { color: colour("line") } },
    },
    yAxis: {
      type: "value",
      name: "training examples",
      axisLabel: { ...text, formatter: (value) => number(value) },
      splitLine: { lineStyle: { color: colour("grid") } },
    },
    series: [
      {
        type: "line",
        step: "middle",
        data: values,
        itemStyle: { color: colour("s0") },
        areaStyle: { opacity: 0.25 },
        showSymbol: false,
      },
    ],
  };
}
