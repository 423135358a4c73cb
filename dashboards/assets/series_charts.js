// The raw series of a client: readings, gaps, and the parts of the time.

const PART_SHADES = [
  ["validation", 0.07],
  ["test", 0.14],
];

function seriesOption(one, origin, width, font) {
  const { x, low, high, missing, filled, ends, last, clocked, unit, quantity, stretch } = one;
  const points = x.flatMap((at, row) => (stretch > 1 ? [[at, low[row]], [at, high[row]]] : [[at, low[row]]]));
  const across = { first: x[0], last, origin, clocked, quantity, width, font };
  const option = overTime(across);
  const ink = colour("soft");
  const strip = (name, shares, tone) => ({
    type: "bar",
    name,
    data: x.map((at, row) => [at, shares[row] > 0 ? Math.max(0.5, shares[row]) : null]),
    yAxisIndex: 1,
    barWidth: Math.max(1.5, width / x.length),
    barGap: "-100%",
    itemStyle: { color: colour(tone) },
    silent: true,
    z: 4,
  });
  const areas = PART_SHADES.map(([name, opacity], part) => [
    { name, xAxis: ends[part], itemStyle: { color: seriesColour(0), opacity } },
    { xAxis: part ? last : ends[1] },
  ]).filter(([from, to]) => to.xAxis > from.xAxis);
  return {
    ...option,
    yAxis: [option.yAxis, { type: "value", min: 0, max: 14, show: false }],
    tooltip: {
      ...timeTooltip(font, origin, clocked, (value) => `${number(value, 4)} ${unit}`),
      formatter: ([shown]) => {
        const row = shown ? nearest(x, shown.value[0]) : 0;
        const share = (name, value) => (value > 0 ? ` · ${name} ${number(100 * value, 2)}%` : "");
        const reading =
          low[row] === null
            ? "missing"
            : low[row] === high[row]
              ? `${number(low[row], 4)} ${unit}`
              : `${number(low[row], 4)} to ${number(high[row], 4)} ${unit}`;
        const gaps = low[row] === null ? "" : share("missing", missing[row]);
        return el(
          "div",
          { class: "tips" },
          timeWords(x[row], origin, clocked),
          el("div", {}, el("b", {}, reading), gaps, share("filled", filled[row])),
        );
      },
    },
    series: [
      {
        type: "line",
        name: quantity,
        data: points,
        showSymbol: false,
        itemStyle: { color: seriesColour(0) },
        lineStyle: { color: seriesColour(0), width: 1 },
        markArea: { silent: true, label: { color: ink, fontFamily: font, fontSize: 11, position: "insideTop" }, data: areas },
        z: 3,
      },
      strip("missing", missing, "bad"),
      strip("filled", filled, "fair"),
    ],
  };
}

function seriesLegend(one) {
  return [
    el("span", {}, one.words),
    one.missing.some((share) => share > 0) ? legendOf(colour("bad"), "missing readings") : null,
    one.filled.some((share) => share > 0) ? legendOf(colour("fair"), "filled readings") : null,
  ].filter(Boolean);
}
