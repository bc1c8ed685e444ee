// Scores and decisions; the tables of kinds and of images.

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
  const element = section("decisions", "Scores and decisions",
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
