// The error surface: colours and contours over a plane, the server's path, the clients' ends; a line; eigenvalues.

const NEAR_POINT = 9;

// Where a loss lies between the lowest and the highest colour, from 0 to 1.
function lossPart({ low, high, log }, value) {
  if (!(high > low)) return 0.5;
  return log ? Math.log(Math.max(value, low) / low) / Math.log(high / low) : (value - low) / (high - low);
}

// Crossings of one level with the cells between grid points (marching squares), as segments in units of cells.
function contourOf(rows, level) {
  const segments = [];
  const at = (a, b) => (level - a) / (b - a);
  for (let row = 0; row + 1 < rows.length; row += 1) {
    for (let column = 0; column + 1 < rows[row].length; column += 1) {
      const corners = [rows[row][column], rows[row][column + 1], rows[row + 1][column + 1], rows[row + 1][column]];
      if (corners.includes(null)) continue;
      const [a, b, c, d] = corners;
      const crossings = [];
      if (a < level !== b < level) crossings.push([column + at(a, b), row]);
      if (b < level !== c < level) crossings.push([column + 1, row + at(b, c)]);
      if (d < level !== c < level) crossings.push([column + at(d, c), row + 1]);
      if (a < level !== d < level) crossings.push([column, row + at(a, d)]);
      if (crossings.length === 2) segments.push(crossings);
      if (crossings.length === 4) {
        // A saddle: its middle decides which corners belong together.
        const [first, second, third, fourth] = crossings;
        const together = (a + b + c + d) / 4 < level === a < level;
        segments.push(...(together ? [[first, second], [third, fourth]] : [[first, fourth], [second, third]]));
      }
    }
  }
  return segments;
}

// Ticks of an axis whose first and last grid points are half a cell within its ends.
function surfaceTicks(values, most) {
  const [first, last] = [values[0], values.at(-1)],
    raw = (last - first) / most,
    power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((one) => one * power >= raw) * power;
  const ticks = [];
  for (let k = Math.ceil(first / step); k * step <= last; k += 1) ticks.push([partOf(values, k * step), number(k * step)]);
  return ticks;
}

const partOf = (values, value) =>
  ((value - values[0]) / (values.at(-1) - values[0])) * (1 - 1 / values.length) + 0.5 / values.length;

function surfaceImage(picture, stops) {
  const { loss, x, y } = picture;
  const image = new ImageData(x.length, y.length),
    bad = channels(colour("bad"));
  loss.forEach((row, at) => {
    row.forEach((value, column) => {
      const ink = value === null ? bad : ramp(stops, lossPart(picture, value));
      image.data.set([...ink, 255], ((y.length - 1 - at) * x.length + column) * 4);
    });
  });
  return image;
}

// The points of a picture with the words of their tooltips, in the order in which they are drawn.
function surfacePoints(picture) {
  const { server, ends, states, name } = picture;
  const off = (value) => (value > 1e-9 ? `${number(value)} off the plane` : "in the plane");
  const of = (points, kind, title) =>
    points
      ? points.x.map((x, k) => ({
          kind,
          at: [x, points.y[k]],
          words: [title(points.names[k]), `${name} ${number(points.loss[k], 4)}`, off(points.away[k])],
        }))
      : [];
  return [
    ...of(ends, "end", (one) => `client ${one}, end of round ${picture.round}`),
    ...of(server, "server", (one) => `server, ${one}`),
    ...of(states, "state", (one) => one),
  ];
}

function paintPoints(context, picture, points, placeOf) {
  const [ink, halo, accent] = [colour("ink"), colour("card"), colour("s1")];
  const circle = ([x, y], radius, fill, edge) => {
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fillStyle = fill;
    context.strokeStyle = edge;
    context.lineWidth = 1.5;
    context.fill();
    context.stroke();
  };
  const stroke = (places, tone, width) => {
    context.beginPath();
    places.forEach(([x, y], k) => (k ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.strokeStyle = tone;
    context.lineWidth = width;
    context.lineJoin = "round";
    context.stroke();
  };
  const ends = points.filter((one) => one.kind === "end");
  if (picture.start.length === 2) {
    context.globalAlpha = 0.7;
    for (const one of ends) stroke([placeOf(picture.start), placeOf(one.at)], accent, 1);
    context.globalAlpha = 1;
  }
  const path = points.filter((one) => one.kind === "server").map((one) => placeOf(one.at));
  stroke(path, halo, 4);
  stroke(path, ink, 1.8);
  if (path.length <= 60) for (const place of path.slice(1, -1)) circle(place, 2, ink, ink);
  if (path.length) {
    circle(path[0], 5, halo, ink);
    circle(path.at(-1), 5, ink, halo);
  }
  for (const one of ends) circle(placeOf(one.at), 3, accent, halo);
  for (const one of points.filter((point) => point.kind === "state")) {
    const [x, y] = placeOf(one.at);
    context.fillStyle = halo;
    context.strokeStyle = ink;
    context.fillRect(x - 4.5, y - 4.5, 9, 9);
    context.strokeRect(x - 4.5, y - 4.5, 9, 9);
  }
}

function paintSurface(holder, picture) {
  const dark = document.documentElement.dataset.theme === "dark";
  const stops = dark ? SEQUENTIAL_ON_DARK : SEQUENTIAL;
  const { x, y, loss, levels } = picture,
    points = surfacePoints(picture);
  const height = Math.round(Math.min(460, Math.max(220, holder.clientWidth * 0.6)));
  const image = surfaceImage(picture, stops);
  let placeOf = null,
    shown = null;
  paintGrid(holder, {
    height,
    rows: surfaceTicks(y, 6).map(([part, words]) => [1 - part, words]),
    ticks: surfaceTicks(x, Math.max(2, holder.clientWidth / 110)),
    up: `↑ ${picture.axes[1]}, ${picture.unit}`,
    across: `${picture.axes[0]}, ${picture.unit} →`,
    label: `${picture.name} from ${number(picture.low)} to ${number(picture.high)} over a plane of parameters, with ${points.length} points`,
    paint(context, area) {
      placeOf = ([px, py]) => [area.x + partOf(x, px) * area.width, area.y + (1 - partOf(y, py)) * area.height];
      paintImage(context, area, image, true);
      context.save();
      context.beginPath();
      context.rect(area.x, area.y, area.width, area.height);
      context.clip();
      context.strokeStyle = dark ? "rgb(0 0 0 / 45%)" : "rgb(255 255 255 / 55%)";
      context.lineWidth = 1;
      const [wide, tall] = [area.width / x.length, area.height / y.length];
      context.beginPath();
      for (const level of levels)
        for (const [[ax, ay], [bx, by]] of contourOf(loss, level)) {
          context.moveTo(area.x + (ax + 0.5) * wide, area.y + area.height - (ay + 0.5) * tall);
          context.lineTo(area.x + (bx + 0.5) * wide, area.y + area.height - (by + 0.5) * tall);
        }
      context.stroke();
      paintPoints(context, picture, points, placeOf);
      context.restore();
      shown = area;
    },
    cellText(across, down) {
      const here = [shown.x + across * shown.width, shown.y + down * shown.height];
      const far = (one) => Math.hypot(placeOf(one.at)[0] - here[0], placeOf(one.at)[1] - here[1]);
      const close = points.filter((one) => far(one) <= NEAR_POINT).sort((a, b) => far(a) - far(b))[0];
      if (close) return close.words;
      const [column, row] = [Math.floor(across * x.length), Math.floor((1 - down) * y.length)];
      const value = loss[Math.min(row, y.length - 1)][column];
      return [
        value === null ? "not a finite number" : `${picture.name} ${number(value, 4)}`,
        `at ${number(x[column])} and ${number(y[Math.min(row, y.length - 1)])}`,
      ];
    },
  });
  return surfaceLegend(picture, stops);
}

function surfaceLegend(picture, stops) {
  const scale = el("canvas", { class: "scale", width: 160, height: 1 }),
    pixels = new ImageData(160, 1);
  for (let at = 0; at < 160; at += 1) pixels.data.set([...ramp(stops, at / 159), 255], at * 4);
  scale.getContext("2d").putImageData(pixels, 0, 0);
  return [
    el("span", {}, number(picture.low)),
    scale,
    el("span", {}, `${number(picture.high)} ${picture.name}${picture.log ? ", logarithmic scale" : ""}`),
    picture.server && el("span", {}, swatchOf(colour("ink")), "server's path, from ○ to ●"),
    picture.ends && legendOf(colour("s1"), `ends of clients in round ${picture.round}`),
    picture.states && el("span", {}, `□ ${picture.states.names.join(", ")}`),
    picture.loss.some((row) => row.includes(null)) && legendOf(colour("bad"), "not a finite number"),
  ];
}

// A chart of lines over numbers.
function numbersOption({ across, up, xs, lines, font, format }) {
  return {
    animation: false,
    textStyle: { fontFamily: font },
    aria: { enabled: true },
    grid: { left: 2, right: 16, top: 14, bottom: 4, containLabel: true },
    legend: legendOption(true, lines.map(([name]) => ({ name }))),
    tooltip: {
      trigger: "axis",
      confine: true,
      transitionDuration: 0,
      axisPointer: { lineStyle: { color: colour("faint") } },
      ...tooltipColours(font),
      formatter: (shown) =>
        linesTip(format(shown[0].value[0]), shown.filter((one) => one.value[1] !== null), (one) => number(one.value[1], 4)),
    },
    xAxis: {
      type: "value",
      name: across,
      min: xs[0],
      max: xs.at(-1) > xs[0] ? xs.at(-1) : xs[0] + 1,
      axisLabel: { ...textStyle(font), hideOverlap: true },
      axisLine: { onZero: false, lineStyle: { color: colour("line") } },
      axisTick: { show: false },
      splitLine: { show: false },
    },
    yAxis: {
      type: "value",
      scale: true,
      name: up,
      axisLine: { show: false },
      axisTick: { show: false },
      axisLabel: { ...textStyle(font), formatter: (value) => number(value) },
      splitLine: { lineStyle: { color: colour("grid") } },
    },
    series: lines.map(([name, values, ink, type, symbols]) => ({
      type: "line",
      name,
      data: xs.map((x, k) => [x, values[k]]),
      itemStyle: { color: ink },
      lineStyle: { color: ink, type, width: 1.8 },
      showSymbol: symbols,
      symbol: "circle",
      symbolSize: 5,
    })),
  };
}

function lossLineOption({ name, ends, t, loss }, font) {
  const straight = t.map((part) =>
    loss[0] === null || loss.at(-1) === null ? null : (1 - part) * loss[0] + part * loss.at(-1),
  );
  return numbersOption({
    across: `from ${ends[0]} (0) to ${ends[1]} (1)`,
    up: name,
    xs: t,
    lines: [
      [name, loss, seriesColour(0), "solid", false],
      ["straight line between the ends", straight, colour("faint"), "dotted", false],
    ],
    font,
    format: (part) => `${number(part)} of the way`,
  });
}

function curvatureOption({ rounds, values }, font) {
  const ranks = ["largest", "second", "third", "fourth", "fifth"];
  return numbersOption({
    across: "round",
    up: "eigenvalue of the Hessian",
    xs: rounds,
    lines: values.map((row, k) => [ranks[k] || `number ${k + 1}`, row, seriesColour(k), "solid", true]),
    font,
    format: (round) => `round ${round.toLocaleString("en")}`,
  });
}

function surfaceCards(state) {
  const part = (name) => (view) => Boolean(view.surface && view.surface[name]);
  return [
    gridCard(
      "surface",
      "Error surface",
      "Loss over a plane of parameters",
      (view) => view.surface.picture.words,
      state,
      part("picture"),
      (holder, view) => paintSurface(holder, view.surface.picture),
      () => [],
    ),
    gridCard(
      "surface-line",
      "Error surface",
      "Loss between two models",
      (view) => view.surface.line.words,
      state,
      part("line"),
      (holder, view) => paintChart(holder, (font) => lossLineOption(view.surface.line, font)),
      () => [],
    ),
    gridCard(
      "surface-curvature",
      "Error surface",
      "Largest eigenvalues of the Hessian",
      "Gradient descent on the loss is stable for rates below 2 over the largest eigenvalue.",
      state,
      part("curvature"),
      (holder, view) => paintChart(holder, (font) => curvatureOption(view.surface.curvature, font)),
      () => [],
    ),
  ];
}
