// The page: what it shows, and what follows from the two thresholds.

const data = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("main");
const controls = document.getElementById("controls");
const state = { category: null, image: 0, pixel: 0, view: "overlay" }; // pixel: which of the levels
let parts = null; // of the category that is shown

const STEPS = 1000; // of the slider of image scores
const PIXEL_STEPS = 200; // of the other, where there are no curves whose points it could take
const VIEWS = { overlay: "Overlay", image: "Image", map: "Map" };

// Numbers

// What a category's numbers are, worked out once.
function prepared(category) {
  const { scores, labels } = category;
  const of = (label) => scores.filter((_, i) => labels[i] === label).sort((a, b) => a - b);
  const all = [...scores].sort((a, b) => a - b);
  const [method] = Object.keys(category.areas);
  return {
    ...category, method, nominal: of(0), defective: of(1),
    domain: all.length ? [all[0], all.at(-1)] : [0, 1],
    images: category.image_curves[method], levels: pixelLevels(category, method),
  };
}

// The pixel thresholds that can be chosen, the lowest first, with their exact counts if known.
function pixelLevels(category, method) {
  const curve = category.pixel_curves[method];
  if (curve) {
    return curve.thresholds.map((threshold, i) => ({
      threshold, tp: curve.true_positives[i], fp: curve.false_positives[i],
      pro: curve.region_recall[i], best: i === curve.best,
      positives: curve.num_positives, negatives: curve.num_negatives,
    })).reverse();
  }
  const [low, high] = category.scale;
  return Array.from({ length: PIXEL_STEPS + 1 },
    (_, i) => ({ threshold: low + ((high - low) * i) / PIXEL_STEPS, best: i === PIXEL_STEPS / 2 }));
}

function atLeast(ascending, threshold) {
  let [low, high] = [0, ascending.length];
  while (low < high) {
    const between = (low + high) >> 1;
    if (ascending[between] >= threshold) high = between;
    else low = between + 1;
  }
  return ascending.length - low;
}

function countsAt({ nominal, defective }, threshold) {
  const [tp, fp] = [atLeast(defective, threshold), atLeast(nominal, threshold)];
  return { tp, fp, fn: defective.length - tp, tn: nominal.length - fp };
}

function rates({ tp, fp, fn, tn }) {
  return {
    precision: tp / (tp + fp), recall: tp / (tp + fn), f1: (2 * tp) / (2 * tp + fp + fn),
    alarms: fp / (fp + tn),
  };
}

// Image thresholds that have a name.
function presets({ images, nominal, defective, domain }) {
  const found = {};
  if (images) found["Best F1"] = images.thresholds[images.best];
  if (defective.length) found["No misses"] = defective[0];
  if (nominal.length) {
    const beyond = defective.find((value) => value > nominal.at(-1));
    found["No false alarms"] = beyond ?? nominal.at(-1) + (domain[1] - domain[0] || 1) / STEPS;
  }
  return found;
}

// Curves

const ends = (points) => [[0, 0], ...points, [1, 1]];

function rocOf(c) {
  return ends(c.true_positives.map((tp, i) => [c.false_positives[i] / c.num_negatives, tp / c.num_positives]));
}

function prOf(c) {
  const points = c.true_positives.map((tp, i) => [tp / c.num_positives, tp / (tp + c.false_positives[i])]);
  return [[0, points[0][1]], ...points];
}

function proOf(c) {
  return ends(c.region_recall.map((recall, i) => [c.false_positives[i] / c.num_negatives, recall]));
}

// Each: its title, what to draw of a method's points, the area, the axes, and where its dot is.
const CURVES = [
  { of: "image", title: "Image ROC", draw: rocOf, area: "image_auroc", unit: "AUROC",
    x: "false alarm rate", y: "recall", dot: ({ image: r }) => [r.alarms, r.recall] },
  { of: "image", title: "Image precision and recall", draw: prOf, area: "image_ap", unit: "AP",
    x: "recall", y: "precision", dot: ({ image: r }) => [r.recall, r.precision] },
  { of: "pixel", title: "Pixel ROC", draw: rocOf, area: "pixel_auroc", unit: "AUROC",
    x: "false positive rate", y: "recall", dot: ({ pixel: r }) => [r.alarms, r.recall] },
  { of: "pixel", title: "Pixel precision and recall", draw: prOf, area: "pixel_ap", unit: "AP",
    x: "recall", y: "precision", dot: ({ pixel: r }) => [r.recall, r.precision] },
  { of: "pixel", title: "Region overlap (PRO)", draw: proOf, area: "aupro", unit: "AUPRO",
    x: "false positive rate", y: "region recall", upTo: 0.3, dot: ({ pixel: r }) => [r.alarms, r.pro] },
];

function curveCharts(category) {
  return CURVES.flatMap((curve) => {
    const found = Object.entries(category[`${curve.of}_curves`]).filter(([, points]) => points);
    if (!found.length) return [];
    const series = found.map(([method, points]) => ({
      name: `${method}: ${curve.unit} ${category.areas[method][curve.area]}`,
      points: curve.draw(points), dashed: method !== category.method,
    }));
    const chart = lineChart({
      title: curve.title, series,
      x: { label: curve.x, domain: [0, curve.upTo ?? 1] }, y: { label: curve.y, domain: [0, 1] },
    });
    return [{ ...chart, curve }];
  });
}

// A little more than from the least to the largest value, so that marks are not cut off.
function padded(values, log = false) {
  const way = log ? Math.log10 : Number;
  const [low, high] = [way(Math.min(...values)), way(Math.max(...values))];
  const pad = (high - low) * 0.06 || 0.5;
  return [low - pad, high + pad].map((value) => (log ? 10 ** value : value));
}

function sweepChart({ title, panel, x, y, log, series }) {
  const points = series.flatMap((s) => s.points);
  const xs = points.map((p) => p[0]);
  const scaled = log && Math.min(...xs) > 0;
  return lineChart({
    title, note: panel,
    x: { label: x, domain: padded(xs, scaled), log: scaled },
    y: { label: y, domain: padded(points.flatMap((p) => [p[1] - p[2], p[1] + p[2]])) },
    series: series.map((s) => ({ ...s, marks: true })),
  }).element;
}

// Controls

function makePixelSlider(id, category) {
  const slider = el("input", {
    type: "range", id, min: 0, max: category.levels.length - 1, step: 1,
    oninput: (event) => { state.pixel = Number(event.target.value); update(); },
  });
  const value = el("output", { for: id });
  return {
    slider, value,
    update({ threshold }) {
      slider.value = state.pixel;
      value.textContent = score(threshold);
      slider.setAttribute("aria-valuetext", `${score(threshold)}: ${parts.pixelSaid}`);
    },
  };
}

function makeControls(category) {
  const [low, high] = category.domain;
  const step = (high - low || 1) / STEPS;
  // Its ends lie beyond all scores, so that everything and nothing can be above it.
  const choose = (value) => { state.image = value; update(); };
  const slider = el("input", {
    type: "range", id: "image-slider", min: low - step, max: high + step, step,
    oninput: (event) => choose(Number(event.target.value)),
  });
  const typed = el("input", {
    type: "number", id: "image-threshold", step: "any", "aria-label": "Image threshold, as a number",
    onchange: (event) => { if (event.target.value !== "") choose(Number(event.target.value)); else update(); },
  });
  const named = Object.entries(presets(category)).map(([name, value]) =>
    el("button", { type: "button", onclick: () => choose(value) }, name));
  const pixel = makePixelSlider("pixel-slider", category);
  const best = el("button", {
    type: "button", onclick: () => { state.pixel = bestLevel(category); update(); },
  }, "Best F1");
  const counted = Boolean(category.pixel_curves[category.method]);
  const names = data.categories.map(({ name }) => el("option", { value: name, selected: name === category.name }, name));
  const chooser = el("select", {
    id: "category", onchange: (event) => show(data.categories.find((c) => c.name === event.target.value)),
  }, names);
  const summary = el("p", { id: "summary-line" });
  const made = names.length > 1
    ? [el("div", { class: "control" }, el("label", { for: "category" }, "Category"), chooser)] : [];
  if (category.scores.length) made.push(
    el("div", { class: "control wide", role: "group", "aria-label": "Image threshold" },
      el("label", { for: "image-slider" }, "Image threshold"),
      slider, typed, el("span", { class: "presets" }, named), summary),
    el("div", { class: "control wide", role: "group", "aria-label": "Pixel threshold" },
      el("label", { for: "pixel-slider" }, "Pixel threshold"),
      pixel.slider, pixel.value, counted ? el("span", { class: "presets" }, best) : null));
  controls.replaceChildren(...made);
  controls.hidden = !made.length;
  return {
    update(counts, level) {
      slider.value = state.image;
      typed.value = Number(state.image.toPrecision(6));
      const said = `${plural(counts.fn, "miss", "misses")}, ${plural(counts.fp, "false alarm")}`;
      slider.setAttribute("aria-valuetext", `${score(state.image)}: ${said}`);
      summary.textContent = said;
      pixel.update(level);
    },
  };
}

function bestLevel(category) {
  return Math.max(0, category.levels.findIndex((level) => level.best));
}

// Sections

const section = (id, title, ...children) =>
  el("section", { id, "aria-labelledby": `${id}-title` }, el("h2", { id: `${id}-title` }, title), ...children);

function measure(id, name) {
  const value = el("dd", { id });
  return { value, element: el("div", {}, el("dt", {}, name), value) };
}

function makeDecisions(category) {
  const ids = ["tp", "fn", "fp", "tn"];
  const cells = Object.fromEntries(ids.map((id) => [id, el("td", { id: `count-${id}` })]));
  const tones = { tp: "right", fn: "wrong", fp: "wrong", tn: "right" };
  for (const id of ids) cells[id].className = `number ${tones[id]}`;
  const head = (text, scope) => el("th", { scope }, text);
  const matrix = el("table", { class: "confusion" },
    el("caption", {}, "Images at this threshold"),
    el("thead", {}, el("tr", {}, el("td"), head("above", "col"), head("below", "col"))),
    el("tbody", {},
      el("tr", {}, head("defective", "row"), cells.tp, cells.fn),
      el("tr", {}, head("nominal", "row"), cells.fp, cells.tn)));
  const names = {
    precision: "precision", recall: "recall", f1: "F1", alarms: "false alarm rate",
  };
  const image = Object.entries(names).map(([id, name]) => [id, measure(`image-${id}`, name)]);
  const pixel = Object.entries({ ...names, alarms: "false positive rate", pro: "region recall" })
    .map(([id, name]) => [id, measure(`pixel-${id}`, name)]);
  const list = (made) => el("dl", { class: "measures" }, made.map(([, { element }]) => element));
  const place = el("div", { class: "plot" });
  const counted = Boolean(category.pixel_curves[category.method]);
  let drawn = null;
  const element = el("section", { id: "decisions", "aria-labelledby": "decisions-title" },
    el("h2", { id: "decisions-title" }, "Scores and decisions"),
    el("div", { class: "decisions" },
      el("figure", {}, el("figcaption", {}, "Image scores; the line is the image threshold"), place),
      el("div", {}, matrix, list(image)),
      counted ? el("div", {}, el("h3", {}, "Pixels at the pixel threshold"), list(pixel)) : null));
  return {
    element,
    // As wide as there is room, so that text and bars keep their size.
    draw() {
      drawn = histogram({ ...category, width: Math.max(280, place.clientWidth || 560) });
      place.replaceChildren(...drawn.elements);
    },
    update(counts, ofImages, ofPixels, said) {
      for (const id of ids) cells[id].textContent = counts[id];
      for (const [id, { value }] of image) value.textContent = percent(ofImages[id]);
      for (const [id, { value }] of pixel) value.textContent = percent(ofPixels[id]);
      drawn?.move(state.image, said);
    },
  };
}

function makeKinds(category) {
  const groups = new Map();
  category.kinds.forEach((kind, i) => {
    const label = category.labels[i];
    const key = `${label} ${kind}`;
    if (!groups.has(key)) groups.set(key, { kind, label, scores: [] });
    groups.get(key).scores.push(category.scores[i]);
  });
  const rows = [...groups.values()].map(({ kind, label, scores }) => {
    scores.sort((a, b) => a - b);
    const middle = (scores[(scores.length - 1) >> 1] + scores[scores.length >> 1]) / 2;
    const above = () => {
      const count = atLeast(scores, state.image);
      return [`${count} (${percent(count / scores.length)})`, count / scores.length];
    };
    return [kind, label ? "defective" : "nominal", [String(scores.length), scores.length], above,
      ...[scores[0], middle, scores.at(-1)].map((value) => [score(value), value])];
  });
  return new SortedTable({
    caption: "Kinds", rows,
    columns: [
      { name: "kind" }, { name: "class" }, { name: "images", number: true },
      { name: "above the threshold", number: true, live: true },
      ...["lowest", "median", "highest"].map((name) => ({ name, number: true })),
    ],
  });
}

function makeImages(category) {
  const rows = category.files.map((file, i) => {
    const [label, value] = [category.labels[i], category.scores[i]];
    const decision = () => {
      const verdict = verdictOf(label, value, state.image);
      return { ...verdict, value: verdict.text };
    };
    return [file, category.kinds[i], [score(value), value], decision];
  });
  return new SortedTable({
    caption: "All test images", rows,
    columns: [
      { name: "file" }, { name: "kind" }, { name: "score", number: true }, { name: "decision", live: true },
    ],
  });
}

function makeGallery(category) {
  const pictures = category.pictures.map((p) => new Picture(p, category.scale, data.colours));
  const viewer = makeViewer(pictures, category);
  const gallery = new Gallery(pictures, viewer.open);
  const views = Object.entries(VIEWS).map(([name, title]) => el("label", {},
    el("input", { type: "radio", name: "view", value: name, checked: name === state.view,
      onchange: () => { state.view = name; update(); } }), title));
  const outline = el("label", {},
    el("input", { type: "checkbox", checked: true,
      onchange: (event) => element.classList.toggle("plain", !event.target.checked) }), "Outline of the mask");
  const keys = el("p", { class: "key" },
    el("span", { class: "key-edge" }), "edge of what is above the pixel threshold",
    el("span", { class: "key-mask" }), "outline of the mask");
  const element = section("gallery", "Gallery",
    el("fieldset", { class: "views" }, el("legend", {}, "Show"), views, outline), keys, gallery.elements, viewer.element);
  return {
    element, gallery,
    update(level) {
      gallery.update(state.image, level.threshold, state.view);
      viewer.update(level);
    },
  };
}

// One picture in every view, as large as the window lets it; arrow keys go on to its neighbours.
function makeViewer(pictures, category) {
  const title = el("h2", { id: "viewer-title" });
  const place = el("div", { class: "large" });
  const pixel = makePixelSlider("viewer-slider", category);
  let current = 0;
  let frames = [];
  const paint = async (threshold) => {
    const shown = frames;
    await pictures[current].load();
    for (const [view, { canvas }] of shown) pictures[current].paint(canvas, threshold, view);
  };
  const turn = (by) => () => open((current + by + pictures.length) % pictures.length);
  const dialog = el("dialog", {
    "aria-labelledby": "viewer-title",
    onkeydown: (event) => {
      if (event.target.type === "range") return;
      if (event.key === "ArrowLeft") turn(-1)();
      if (event.key === "ArrowRight") turn(1)();
    },
  },
    title, place,
    el("div", { class: "control wide" },
      el("label", { for: "viewer-slider" }, "Pixel threshold"), pixel.slider, pixel.value),
    el("p", { class: "turn" },
      el("button", { type: "button", onclick: turn(-1) }, "Previous"),
      el("button", { type: "button", autofocus: true, onclick: turn(1) }, "Next"),
      el("button", { type: "button", onclick: () => dialog.close() }, "Close")));
  function open(i) {
    current = i;
    const picture = pictures[i];
    frames = Object.keys(VIEWS).map((view) => [view, picture.frame()]);
    place.replaceChildren(...frames.map(([view, { canvas, element }]) => {
      canvas.setAttribute("aria-label", `${VIEWS[view]} of ${picture.file}`);
      return el("figure", {}, element, el("figcaption", {}, VIEWS[view]));
    }));
    const known = picture.outline === null ? ", mask unknown" : "";
    title.textContent = `${picture.file} (${picture.kind}${known}), score ${score(picture.score)}`;
    update();
    if (!dialog.open) dialog.showModal();
  }
  return {
    element: dialog, open,
    update(level) {
      pixel.update(level);
      if (frames.length) paint(level.threshold);
    },
  };
}

// The whole

function show(category) {
  const ready = prepared(category);
  state.category = ready;
  state.image = Object.values(presets(ready))[0] ?? 0;
  state.pixel = bestLevel(ready);
  parts?.gallery?.gallery.close();
  parts = { pixelSaid: "", controls: makeControls(ready), decisions: makeDecisions(ready), charts: curveCharts(ready) };
  const made = [];
  if (ready.scores.length) made.push(parts.decisions.element);
  if (ready.pictures.length) {
    parts.gallery = makeGallery(ready);
    made.push(parts.gallery.element);
  }
  if (parts.charts.length) {
    made.push(section("curves", "Curves",
      el("div", { class: "charts" }, parts.charts.map((chart) => chart.element))));
  }
  if (ready.scores.length) {
    parts.tables = [makeKinds(ready), makeImages(ready)];
    made.push(section("images", "Images", parts.tables.map((table) => table.element)));
  }
  document.getElementById("category-results").replaceChildren(...made);
  linkSections();
  parts.decisions.draw();
  update();
}

function pixelRates({ tp, fp, pro, positives, negatives }) {
  return { ...rates({ tp, fp, fn: positives - tp, tn: negatives - fp }), pro };
}

// Everything that depends on the thresholds.
function update() {
  const category = state.category;
  const level = category.levels[state.pixel];
  const counts = countsAt(category, state.image);
  const found = { image: rates(counts), pixel: pixelRates(level) };
  const said = `At ${score(state.image)}: ${counts.tp} of ${counts.tp + counts.fn} defective images and ` +
    `${counts.fp} of ${counts.fp + counts.tn} nominal ones are above the threshold.`;
  parts.pixelSaid = level.tp === undefined ? "" :
    `recall ${percent(found.pixel.recall)}, false positive rate ${percent(found.pixel.alarms)}`;
  Object.assign(controls.dataset, { image: state.image, pixel: level.threshold, view: state.view });
  parts.controls.update(counts, level);
  parts.decisions.update(counts, found.image, found.pixel, said);
  for (const { curve, moveDot } of parts.charts) {
    const [x, y] = curve.dot(found);
    const threshold = curve.of === "image" ? state.image : level.threshold;
    moveDot(x, y, `At ${score(threshold)}: ${curve.x} ${percent(x)}, ${curve.y} ${percent(y)}.`);
  }
  parts.gallery?.update(level);
  parts.tables?.forEach((table) => table.refresh());
}

function linkSections() {
  const links = [...main.querySelectorAll("section[id]")].map(({ id }) =>
    el("li", {}, el("a", { href: `#${id}` }, document.getElementById(`${id}-title`).textContent)));
  document.getElementById("sections").replaceChildren(...links);
}

function start() {
  document.getElementById("title").textContent = data.title;
  document.getElementById("subtitle").textContent = data.subtitle;
  const notes = data.notes.map((note) => el("li", {}, note));
  const drawn = (tables) => tables.map((table) => new SortedTable(table).element);
  const [first, ...others] = data.tables;
  main.append(section("summary", "Results", drawn([first]),
    notes.length ? el("ul", { class: "notes" }, notes) : null));
  if (data.charts.length) {
    main.append(section("charts", "Plots", el("div", { class: "charts" }, data.charts.map(sweepChart))));
  }
  if (others.length) main.append(section("details", "Details", drawn(others)));
  main.append(el("div", { id: "category-results" }));
  if (data.settings.length) {
    main.append(section("settings", "Settings", el("div", { class: "settings" }, drawn(data.settings))));
  }
  linkSections();
  if (!data.categories.length) return;
  show(data.categories[0]);
  // What a link leads to should not lie below the thresholds.
  new ResizeObserver(() => {
    document.documentElement.style.scrollPaddingTop = `${controls.offsetHeight + 8}px`;
  }).observe(controls);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    parts.decisions.draw();
    update();
  });
  addEventListener("beforeprint", () => parts.gallery?.gallery.paintAll());
}

controls.addEventListener("submit", (event) => event.preventDefault());
start();
