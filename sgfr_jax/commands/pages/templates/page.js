// The page: its state, and what is drawn anew when that changes.

const data = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("main");
const controls = document.getElementById("controls");
const state = { category: null, image: 0, pixel: 0, view: "overlay" }; // pixel: which of the levels
let parts = null; // of the category that is shown

function show(category) {
  const ready = prepared(category);
  state.category = ready;
  state.image = Object.values(presets(ready))[0] ?? 0;
  state.pixel = bestLevel(ready);
  parts?.gallery?.gallery.close();
  parts = {
    pixelSaid: "", controls: makeControls(ready), decisions: makeDecisions(ready), charts: curveCharts(ready),
  };
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
