// The curves of a run's page and of a sweep's: what is drawn of which points.

const ends = (points) => [[0, 0], ...points, [1, 1]];

// Of each threshold what lies above it, then what is at it too: between them the curve is straight.
function rises(c, above, recall) {
  return ends(recall.flatMap((y, i) => [
    [c.false_positives_above[i] / c.num_negatives, above[i]], [c.false_positives[i] / c.num_negatives, y],
  ]));
}

function rocOf(c) {
  const shares = (counts) => counts.map((tp) => tp / c.num_positives);
  return rises(c, shares(c.true_positives_above), shares(c.true_positives));
}

function prOf(c) {
  const points = c.true_positives.map((tp, i) => [tp / c.num_positives, tp / (tp + c.false_positives[i])]);
  return [[0, points[0][1]], ...points];
}

function proOf(c) {
  return rises(c, c.region_recall_above, c.region_recall);
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
    const series = found.map(([method, points], tone) => ({
      name: `${method}: ${curve.unit} ${category.areas[method][curve.area]}`,
      points: curve.draw(points), tone, dashed: method !== category.method,
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
  // What differs by rounding alone has no range to show.
  const pad = high - low > 1e-9 * Math.max(1, Math.abs(high)) ? (high - low) * 0.06 : 0.5;
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
