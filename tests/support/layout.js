// Texts of the page whose boxes overlap, are cut off, or have less contrast than LEAST; see layout.py.
(() => {
  const boxes = [], faults = new Set();
  const wide = document.documentElement.clientWidth;
  const rgba = (words) => {
    const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    probe.fillStyle = words; probe.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = probe.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], under) => [r, g, b].map((v, i) => v * a + under[i] * (1 - a));
  const behind = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) {
      const ink = rgba(getComputedStyle(at).backgroundColor);
      layers.push(ink);
      if (ink[3] >= 0.99) break;
    }
    return layers.reverse().reduce((under, ink) => over(ink, under), [255, 255, 255]);
  };
  const light = (rgb) => rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const contrast = (a, b) => {
    const [high, low] = [light(a), light(b)].sort((x, y) => y - x);
    return (high + 0.05) / (low + 0.05);
  };
  const inks = new Map();
  const check = (words, ink, node) => {
    const ground = behind(node), key = `${ink}|${ground}`;
    if (!inks.has(key)) inks.set(key, contrast(over(rgba(ink), ground), ground));
    if (inks.get(key) < LEAST) faults.add(`contrast ${inks.get(key).toFixed(2)} of "${words}" (${ink})`);
  };
  // The part of a box that its ancestors show, and whether one of them cuts it off without a way to scroll to it.
  const seen = (box, node, words) => {
    let { left, top, right, bottom } = box;
    for (let at = node; at && at !== document.documentElement; at = at.parentElement) {
      const style = getComputedStyle(at);
      if (style.overflowX === "visible" && style.overflowY === "visible") continue;
      const frame = at.getBoundingClientRect();
      const scrolls = (how, size, shown) => ["auto", "scroll"].includes(how) && size > shown;
      const across = scrolls(style.overflowX, at.scrollWidth, at.clientWidth);
      const down = scrolls(style.overflowY, at.scrollHeight, at.clientHeight);
      if ((across || down) && at.tabIndex < 0 && !at.querySelector("button, a, input, select"))
        faults.add(`a container that scrolls cannot be focused: "${words}"`);
      if (!across && (left < frame.left - 1 || right > frame.right + 1)) faults.add(`cut at the side: "${words}"`);
      const half = bottom > frame.bottom + 2 && top < frame.bottom - 2;
      if (half || (!down && (top < frame.top - 2 || bottom > frame.bottom + 2))) faults.add(`cut in height: "${words}"`);
      left = Math.max(left, frame.left); right = Math.min(right, frame.right);
      top = Math.max(top, frame.top); bottom = Math.min(bottom, frame.bottom);
    }
    return { left, top, right, bottom };
  };
  const add = (words, box, node, ink, group) => {
    if (box.right - box.left < 1 || box.bottom - box.top < 1) return;
    const shown = seen(box, node, words);
    if (shown.right - shown.left < 1 || shown.bottom - shown.top < 1) return;
    if (shown.left < -1 || shown.right > wide + 1) faults.add(`beyond the page: "${words}"`);
    boxes.push({ words, ...shown, group });
    check(words, ink, node);
  };

  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    const node = text.parentElement, words = text.data.trim();
    if (!words || ["SCRIPT", "STYLE", "NOSCRIPT", "OPTION"].includes(node.tagName)) continue;
    if (!node.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true })) continue;
    const range = document.createRange();
    range.selectNodeContents(text);
    for (const box of range.getClientRects()) add(words.slice(0, 60), box, node, getComputedStyle(node).color, text);
  }
  for (const control of document.querySelectorAll("select, input")) {
    if (!control.checkVisibility()) continue;
    const words = control.tagName === "SELECT" ? control.selectedOptions[0]?.text : control.value || control.placeholder;
    if (words) add(words, control.getBoundingClientRect(), control, getComputedStyle(control).color, control);
    if (control.scrollWidth > control.clientWidth + 1) faults.add(`cut in its control: "${words}"`);
  }
  for (const canvas of document.querySelectorAll("canvas")) {
    if (!canvas.checkVisibility()) continue;
    const at = canvas.getBoundingClientRect();
    for (const { words, x, y, width, height, ink } of canvas.texts || [])
      add(words, { left: at.left + x, right: at.left + x + width, top: at.top + y, bottom: at.top + y + height }, canvas, ink, {});
    for (const { words, x, y, width, height } of canvas.texts || [])
      if (x < -1 || x + width > at.width + 1 || y < -1 || y + height > at.height + 1) faults.add(`beyond its canvas: "${words}"`);
  }
  for (const holder of document.querySelectorAll("[_echarts_instance_]")) {
    if (!holder.checkVisibility()) continue;
    const at = holder.getBoundingClientRect(), chart = echarts.getInstanceByDom(holder);
    for (const one of chart.getZr().storage.getDisplayList(true)) {
      if (one.type !== "tspan" || one.ignore || one.invisible || !one.style.text) continue;
      const box = one.getBoundingRect().clone(), turn = one.getComputedTransform();
      if (turn) box.applyTransform(turn);
      const words = `${one.style.text} (${holder.closest(".card")?.id})`;
      if (box.x < -1 || box.x + box.width > at.width + 1 || box.y < -1 || box.y + box.height > at.height + 1)
        faults.add(`beyond its canvas: "${words}"`);
      add(words, { left: at.left + box.x, right: at.left + box.x + box.width, top: at.top + box.y + 1,
        bottom: at.top + box.y + box.height - 1 }, holder, one.style.fill, {});
    }
  }

  boxes.sort((a, b) => a.top - b.top);
  boxes.forEach((a, index) => {
    for (let at = index + 1; at < boxes.length && boxes[at].top < a.bottom - 2; at += 1) {
      const b = boxes[at];
      const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (across > 1 && down > 2 && !(a.group === b.group && a.group instanceof Text && a.left === b.left))
        faults.add(`overlap: "${a.words}" and "${b.words}"`);
    }
  });
  if (document.documentElement.scrollWidth > wide) faults.add(`the page scrolls sideways: ${document.documentElement.scrollWidth} > ${wide}`);
  return { faults: [...faults], texts: boxes.length };
})()
