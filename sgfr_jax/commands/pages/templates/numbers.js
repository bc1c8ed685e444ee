// What follows from the scores and the thresholds: counts, rates, thresholds with a name.

const STEPS = 1000; // of the slider of image scores
const PIXEL_STEPS = 200; // of the other, where there are no curves whose points it could take

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

// Image thresholds that have a name: half-way down to the next score, so that they hold with > as well.
function presets({ images, nominal, defective, domain }) {
  const step = (domain[1] - domain[0] || 1) / STEPS;
  const below = (value) => {
    const lower = Math.max(...[...nominal, ...defective].filter((one) => one < value));
    return Number.isFinite(lower) ? lower + (value - lower) / 2 : value - step;
  };
  const found = {};
  if (images) found["Best F1"] = below(images.thresholds[images.best]);
  if (defective.length) found["No misses"] = below(defective[0]);
  if (nominal.length) {
    const beyond = defective.find((value) => value > nominal.at(-1));
    found["No false alarms"] = beyond === undefined ? nominal.at(-1) + step : below(beyond);
  }
  return found;
}

// The shortest number at which as much is anomalous as at the threshold.
function shortest(category, threshold) {
  const wanted = countsAt(category, threshold);
  for (let digits = 6; digits < 17; digits++) {
    const value = Number(threshold.toPrecision(digits));
    const { tp, fp } = countsAt(category, value);
    if (tp === wanted.tp && fp === wanted.fp) return value;
  }
  return threshold;
}

function pixelRates({ tp, fp, pro, positives, negatives }) {
  return { ...rates({ tp, fp, fn: positives - tp, tn: negatives - fp }), pro };
}

function bestLevel(category) {
  return Math.max(0, category.levels.findIndex((level) => level.best));
}
