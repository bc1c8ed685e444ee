// Pictures with their anomaly maps: what lies above the pixel threshold is painted over the image.

const EDGE = [255, 214, 0]; // of what was found; the mask's outline is cyan
const COVER = 0.55; // how much of the image the overlay hides

function decoded(source) {
  const image = new Image();
  image.src = source;
  return image.decode().then(() => image);
}

function pixelsOf(image, width, height) {
  const canvas = el("canvas", { width, height });
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(image, 0, 0, width, height);
  return pen.getImageData(0, 0, width, height).data;
}

class Picture {
  constructor(content, scale, colours) {
    Object.assign(this, content);
    [this.width, this.height] = content.size;
    // The colour of each of the map's 256 levels, by the values that they stand for.
    this.palette = Array.from({ length: 256 }, (_, level) => {
      const value = this.low + ((this.high - this.low) * level) / 255;
      const share = (value - scale[0]) / (scale[1] - scale[0] || 1);
      return colours[Math.round(255 * Math.min(1, Math.max(0, share)))];
    });
  }

  // Decodes once, when first asked.
  load() {
    this.loading ??= Promise.all([
      decoded(`data:image/jpeg;base64,${this.image}`), decoded(`data:image/png;base64,${this.map}`),
    ]).then(([image, map]) => {
      this.colour = pixelsOf(image, this.width, this.height);
      this.levels = pixelsOf(map, this.width, this.height).filter((_, i) => i % 4 === 0);
      this.counts = new Array(256).fill(0);
      for (const level of this.levels) this.counts[level]++;
    });
    return this.loading;
  }

  // Paints one of the views: overlay, image or map.
  paint(canvas, threshold, view) {
    const { width, height, colour, levels, palette } = this;
    const pen = canvas.getContext("2d");
    const painted = pen.createImageData(width, height);
    const out = painted.data;
    out.set(colour);
    const least = this.levelOf(threshold);
    const above = (i) => levels[i] >= least;
    if (view !== "image") {
      for (let i = 0; i < levels.length; i++) {
        const whole = view === "map";
        if (!whole && !above(i)) continue;
        const cover = whole ? 1 : COVER;
        const heat = palette[levels[i]];
        for (let c = 0; c < 3; c++) out[4 * i + c] = colour[4 * i + c] * (1 - cover) + heat[c] * cover;
        const x = i % width;
        const edge = above(i) && (
          (x > 0 && !above(i - 1)) || (x < width - 1 && !above(i + 1)) ||
          (i >= width && !above(i - width)) || (i < levels.length - width && !above(i + width)));
        if (edge) for (let c = 0; c < 3; c++) out[4 * i + c] = EDGE[c];
      }
    }
    pen.putImageData(painted, 0, 0);
  }

  // The share of the picture that lies at or above a threshold.
  shareAbove(threshold) {
    const least = this.levelOf(threshold);
    const above = this.counts.filter((_, level) => level >= least);
    return above.reduce((sum, count) => sum + count, 0) / this.levels.length;
  }

  // Where a threshold lies among the map's levels, 0 to 255; not rounded.
  levelOf(threshold) {
    return (255 * (threshold - this.low)) / (this.high - this.low || 1);
  }

  // A canvas under the outline of the mask.
  frame() {
    const { width, height } = this;
    const canvas = el("canvas", { width, height, role: "img" });
    const rings = (this.outline ?? []).map((ring) => {
      let path = "";
      for (let i = 0; i < ring.length; i += 2) path += `${i ? "L" : "M"}${ring[i]} ${ring[i + 1]}`;
      return `${path}Z`;
    });
    const outline = svg("svg", { class: "mask", viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" },
      svg("path", { class: "halo", d: rings.join("") }), svg("path", { d: rings.join("") }));
    return { canvas, element: el("span", { class: "frame" }, canvas, outline) };
  }
}

function verdictOf(label, value, threshold) {
  const called = value >= threshold;
  if (label) return called ? { text: "Found", tone: "right" } : { text: "Missed", tone: "wrong" };
  return called ? { text: "False alarm", tone: "wrong" } : { text: "Passed", tone: "right" };
}

// The pictures of a category in their groups, painted while they can be seen.
class Gallery {
  constructor(pictures, enlarge) {
    this.seen = new Set();
    this.watcher = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        const card = this.cards.find((c) => c.element === target);
        if (isIntersecting) this.seen.add(card);
        else this.seen.delete(card);
        if (isIntersecting) this.paint(card);
      }
    }, { rootMargin: "300px" });
    this.cards = pictures.map((picture, i) => {
      const { canvas, element: frame } = picture.frame();
      const verdict = el("strong");
      const element = el("li", { class: "card", "data-file": picture.file },
        el("button", { type: "button", class: "enlarge", title: "Enlarge", onclick: () => enlarge(i) },
          frame),
        el("div", { class: "about" },
          verdict, el("span", { class: "value" }, `score ${score(picture.score)}`),
          el("span", { class: "kind" }, picture.kind), el("span", { class: "file" }, picture.file)));
      return { picture, canvas, verdict, element };
    });
    const groups = [
      ["misses", "Worst misses", "Defective images with the lowest scores."],
      ["alarms", "Worst false alarms", "Nominal images with the highest scores."],
      ["drawn", "Others", "Of every kind some drawn at random."],
    ];
    this.elements = groups.map(([group, title, note]) => {
      const cards = this.cards.filter((card) => card.picture.group === group);
      if (!cards.length) return null;
      return el("section", {}, el("h3", {}, title), el("p", { class: "note" }, note),
        el("ul", { class: "cards" }, cards.map((card) => card.element)));
    }).filter((element) => element);
    for (const card of this.cards) this.watcher.observe(card.element);
  }

  // Shows other thresholds or another view.
  update(image, pixel, view) {
    Object.assign(this, { pixel, view });
    for (const card of this.cards) {
      const { text, tone } = verdictOf(card.picture.label, card.picture.score, image);
      card.verdict.textContent = text;
      card.verdict.className = card.element.dataset.verdict = tone;
      this.describe(card);
    }
    for (const card of this.seen) this.paint(card);
  }

  async paint(card) {
    const { picture, canvas } = card;
    if (!picture.levels) await picture.load();
    picture.paint(canvas, this.pixel, this.view);
    canvas.dataset.painted = `${this.view} ${this.pixel}`;
    this.describe(card);
  }

  // What a reader who does not see the picture is told of it.
  describe({ picture, canvas, verdict }) {
    const share = picture.levels ? percent(picture.shareAbove(this.pixel)) : null;
    const painted = share ? `; ${share} of it above the pixel threshold` : "";
    canvas.setAttribute("aria-label", `${verdict.textContent}: ${picture.kind}, ${picture.file}${painted}`);
  }

  // Paper shows what the window has not shown yet.
  paintAll() {
    return Promise.all(this.cards.map((card) => this.paint(card)));
  }

  close() {
    this.watcher.disconnect();
  }
}
