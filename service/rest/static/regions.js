// The connected regions of what exceeds a threshold, as the service's JSON describes them.

/**
 * Return the 8-connected regions of {width, height, levels} (0 to 255) above a threshold (0 to 1), largest first:
 * {area_fraction, bounding_box: [x, y, width, height], centroid: [x, y], mean_probability, runs: [[y, left, right], ...]},
 * in pixels; right is the first pixel that is not inside.
 */
export function regionsOf({ width, height, levels }, threshold) {
  const runs = runsOf(width, height, levels, threshold * 255);
  const regions = new Map();
  runs.forEach((run, number) => {
    const root = rootOf(runs, number);
    if (!regions.has(root)) regions.set(root, []);
    regions.get(root).push(run);
  });
  return [...regions.values()]
    .map((own) => described(own, width, height, levels))
    .sort((one, other) => other.area_fraction - one.area_fraction);
}

/** Return the runs of pixels above the limit, row by row, each linked to a run that touches it. */
function runsOf(width, height, levels, limit) {
  const runs = []; // {y, left, right, parent}
  let above = 0; // first run of the row above
  for (let y = 0, row = 0; y < height; y += 1, row += width) {
    const own = runs.length;
    let candidate = above;
    for (let x = 0; x < width; x += 1) {
      if (!(levels[row + x] > limit)) continue;
      const left = x;
      while (x < width && levels[row + x] > limit) x += 1;
      const number = runs.push({ y, left, right: x, parent: runs.length }) - 1;
      while (candidate < own && runs[candidate].right < left) candidate += 1;
      for (let other = candidate; other < own && runs[other].left <= x; other += 1) {
        runs[rootOf(runs, other)].parent = rootOf(runs, number); // touching at a corner counts
      }
    }
    above = own;
  }
  return runs;
}

function rootOf(runs, number) {
  while (runs[number].parent !== number) number = runs[number].parent = runs[runs[number].parent].parent;
  return number;
}

function described(runs, width, height, levels) {
  let area = 0, sum = 0, sumX = 0, sumY = 0;
  let [left, right, top, bottom] = [width, 0, height, 0];
  for (const run of runs) {
    const length = run.right - run.left;
    area += length;
    sumX += (length * (run.left + run.right - 1)) / 2;
    sumY += length * run.y;
    for (let here = run.y * width + run.left; here < run.y * width + run.right; here += 1) sum += levels[here];
    [left, right] = [Math.min(left, run.left), Math.max(right, run.right)];
    [top, bottom] = [Math.min(top, run.y), Math.max(bottom, run.y + 1)];
  }
  return {
    area_fraction: area / (width * height),
    bounding_box: [left, top, right - left, bottom - top],
    centroid: [sumX / area, sumY / area],
    mean_probability: sum / area / 255,
    runs: runs.map((run) => [run.y, run.left, run.right]),
  };
}
