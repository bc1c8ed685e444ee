// The category and the two thresholds.

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
  const choose = (value) => { state.image = value; update(); };
  // Its ends lie beyond all scores, so that everything and nothing can be above it.
  const slider = el("input", {
    type: "range", id: "image-slider", min: low - step, max: high + step, step,
    oninput: (event) => choose(Number(event.target.value)),
  });
  const typed = el("input", {
    type: "number", id: "image-threshold", step: "any", "aria-label": "Image threshold, as a number",
    onchange: ({ target }) => choose(target.value === "" ? state.image : Number(target.value)),
  });
  const named = Object.entries(presets(category)).map(([name, value]) =>
    el("button", { type: "button", onclick: () => choose(value) }, name));
  const pixel = makePixelSlider("pixel-slider", category);
  const best = el("button", {
    type: "button", onclick: () => { state.pixel = bestLevel(category); update(); },
  }, "Best F1");
  const counted = Boolean(category.pixel_curves[category.method]);
  const names = data.categories.map(({ name }) =>
    el("option", { value: name, selected: name === category.name }, name));
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
      typed.value = shortest(category, state.image);
      const said = `${plural(counts.fn, "miss", "misses")}, ${plural(counts.fp, "false alarm")}`;
      slider.setAttribute("aria-valuetext", `${score(state.image)}: ${said}`);
      summary.textContent = said;
      pixel.update(level);
    },
  };
}
