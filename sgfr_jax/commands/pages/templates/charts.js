// Charts as SVG. Text around a chart is HTML, so that it keeps its size on a small screen.

const TONES = 6; // colours of curves, --curve-0 and so on

function linear([low, high], [from, to]) {
  return (value) => from + ((value - low) / (high - low || 1)) * (to - from);
}

function ticksOf([low, high], about = 5) {
  const raw = (high - low) / about || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  const number = Math.min(Math.floor(high / step + 1e-9) - first + 1, 3 * about);
  return Array.from({ length: Math.max(number, 0) }, (_, i) => (first + i) * step);
}

function logTicksOf([low, high]) {
  const ticks = [];
  for (let p = Math.floor(Math.log10(low)); p <= Math.log10(high); p++) {
    for (const m of [1, 2, 5]) {
      const tick = m * 10 ** p;
      if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
    }
  }
  return ticks;
}

const FRAME = { width: 360, height: 270, left: 52, right: 12, top: 8, bottom: 40 };
let clips = 0;

const toneOf = ({ tone }) => `var(--curve-${tone % TONES})`;
const classOf = ({ dashed }) => (dashed ? "curve dashed" : "curve");

// Curves in one frame, {name, points: [[x, y, deviation?], ...], tone, dashed, marks}, and a dot to
// move.
function lineChart({ title, note, x, y, series }) {
  const { width, height, left, right, top, bottom } = FRAME;
  const way = x.log ? (v) => Math.log10(v) : (v) => v;
  const across = linear(x.domain.map(way), [left, width - right]);
  const toX = (v) => across(way(v));
  const toY = linear(y.domain, [height - bottom, top]);
  const middle = (top + height - bottom) / 2;
  const clip = `clip-${clips++}`;
  const axes = svg("g", { class: "axes" });
  for (const tick of x.log ? logTicksOf(x.domain) : ticksOf(x.domain)) {
    axes.append(
      svg("line", { class: "grid", x1: toX(tick), x2: toX(tick), y1: top, y2: height - bottom }),
      svg("text", { x: toX(tick), y: height - bottom + 15, "text-anchor": "middle" }, score(tick)));
  }
  for (const tick of ticksOf(y.domain)) {
    axes.append(
      svg("line", { class: "grid", x1: left, x2: width - right, y1: toY(tick), y2: toY(tick) }),
      svg("text", { x: left - 6, y: toY(tick) + 4, "text-anchor": "end" }, score(tick)));
  }
  axes.append(
    svg("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, x.label),
    svg("text", { transform: `translate(12 ${middle}) rotate(-90)`, "text-anchor": "middle" }, y.label));
  const curves = svg("g", { "clip-path": `url(#${clip})` });
  for (const one of series) {
    const { points, marks } = one;
    const tone = toneOf(one);
    const path = points.map(([a, b], k) => `${k ? "L" : "M"}${toX(a).toFixed(2)} ${toY(b).toFixed(2)}`);
    curves.append(svg("path", { class: classOf(one), d: path.join(""), stroke: tone }));
    for (const [a, b, deviation] of marks ? points : []) {
      curves.append(svg("circle", { cx: toX(a), cy: toY(b), r: 3, fill: tone }));
      if (deviation) {
        const ends = { x1: toX(a), x2: toX(a), y1: toY(b - deviation), y2: toY(b + deviation) };
        curves.append(svg("line", { ...ends, stroke: tone }));
      }
    }
  }
  const dot = svg("circle", { class: "dot", r: 5, visibility: "hidden" });
  const described = svg("desc");
  const said = series.map((s) => s.name).join(", ");
  described.textContent = `${y.label} by ${x.label} of ${said}.`;
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title },
    described,
    svg("clipPath", { id: clip },
      svg("rect", { x: left, y: top - 4, width: width - left - right, height: height - top - bottom + 4 })),
    axes, curves, dot);
  const legend = el("ul", { class: "legend" }, series.map((s) =>
    el("li", {},
      svg("svg", { class: "swatch", viewBox: "0 0 24 8", "aria-hidden": "true" },
        svg("path", { class: classOf(s), d: "M0 4H24", stroke: toneOf(s) })),
      s.name)));
  const reading = el("p", { class: "reading" });
  const element = el("figure", { class: "chart" },
    el("figcaption", {}, el("h3", {}, title), note ? el("p", {}, note) : null), drawing, legend, reading);
  return {
    element,
    moveDot(a, b, text) {
      const seen = Number.isFinite(a) && Number.isFinite(b) && a <= x.domain[1];
      dot.setAttribute("visibility", seen ? "visible" : "hidden");
      if (seen) {
        dot.setAttribute("cx", toX(a));
        dot.setAttribute("cy", toY(b));
      }
      reading.textContent = text;
      described.textContent = `${y.label} by ${x.label} of ${said}. ${text}`;
    },
  };
}

// Nominal scores above the axis, defective ones below it, each half by its own largest bin.
function histogram({ nominal, defective, domain, width }) {
  const [height, left, right, middle, half] = [232, 8, 8, 104, 98];
  const bins = Math.max(10, Math.floor(width / 14));
  const toX = linear(domain, [left, width - right]);
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  const described = svg("desc");
  drawing.append(described);
  drawing.setAttribute("aria-label", "Histograms of image scores");
  const legend = el("ul", { class: "legend" });
  const step = (domain[1] - domain[0]) / bins || 1;
  for (const [scores, tone, up] of [[nominal, "nominal", true], [defective, "defective", false]]) {
    const counts = new Array(bins).fill(0);
    for (const s of scores) counts[Math.min(bins - 1, Math.floor((s - domain[0]) / step))]++;
    const most = Math.max(...counts);
    counts.forEach((count, i) => {
      if (!count) return;
      const tall = Math.max(1.5, (count / most) * half);
      const x = toX(domain[0] + i * step);
      const bar = { x: x + 0.5, y: up ? middle - 1 - tall : middle + 1, height: tall, rx: 1 };
      const wide = toX(domain[0] + (i + 1) * step) - x - 1;
      drawing.append(svg("rect", { class: tone, width: Math.max(1, wide), ...bar },
        svg("title", {}, `${plural(count, `${tone} image`)} from ${score(domain[0] + i * step)}`)));
    });
    legend.append(el("li", {}, el("span", { class: `block ${tone}-block` }),
      `${tone}: ${plural(scores.length, "image")}, ${most} in the ${up ? "highest" : "deepest"} bar`));
  }
  drawing.append(svg("line", { class: "base", x1: left, x2: width - right, y1: middle, y2: middle }));
  const axes = svg("g", { class: "axes" });
  for (const tick of ticksOf(domain, Math.max(3, Math.floor(width / 110)))) {
    axes.append(svg("text", { x: toX(tick), y: height - 6, "text-anchor": "middle" }, score(tick)),
      svg("line", { class: "grid", x1: toX(tick), x2: toX(tick), y1: height - 24, y2: height - 19 }));
  }
  const line = svg("line", { class: "threshold", y1: 4, y2: height - 20 });
  drawing.append(axes, line);
  return {
    elements: [legend, drawing],
    move(threshold, text) {
      const x = toX(Math.min(domain[1], Math.max(domain[0], threshold)));
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
      described.textContent = text;
    },
  };
}
