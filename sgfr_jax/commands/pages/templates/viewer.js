// The gallery with what it is looked at through: the view, the outline, one picture enlarged.

const VIEWS = { overlay: "Overlay", image: "Image", map: "Map" };

function makeGallery(category) {
  const pictures = category.pictures.map((p) => new Picture(p, category.scale, data.colours));
  const viewer = makeViewer(pictures, category);
  const gallery = new Gallery(pictures, viewer.open);
  const views = Object.entries(VIEWS).map(([name, title]) => el("label", {},
    el("input", { type: "radio", name: "view", value: name, checked: name === state.view,
      onchange: () => { state.view = name; update(); } }), title));
  const outline = el("label", {},
    el("input", { type: "checkbox", checked: true,
      onchange: ({ target }) => element.classList.toggle("plain", !target.checked) }),
    "Outline of the mask");
  const keys = el("p", { class: "key" },
    el("span", { class: "key-edge" }), "edge of what is above the pixel threshold",
    el("span", { class: "key-mask" }), "outline of the mask");
  const element = section("gallery", "Gallery",
    el("fieldset", { class: "views" }, el("legend", {}, "Show"), views, outline),
    keys, gallery.elements, viewer.element);
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
    const [picture, shown] = [pictures[current], frames];
    await picture.load();
    for (const [view, { canvas }] of shown) picture.paint(canvas, threshold, view);
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
    dialog.scrollTop = 0; // where the focus is may be far below the picture
  }
  return {
    element: dialog, open,
    update(level) {
      pixel.update(level);
      if (frames.length) paint(level.threshold);
    },
  };
}
