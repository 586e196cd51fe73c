// From relevance to the picture that `onnxlrp run --style heatmap` writes: the same pixels, to the bit.

const PERCENTILE = 0.998; // of |R|: relevance from here on has the last colour
const ANCHORS = ["0b2a78", "3f7be0", "a9cdfb", "ffffff", "ffb8a6", "e8413a", "7d0716"]; // from -1 over 0 to 1
const COLOURS = Array.from({ length: 257 }, (_, i) => {
  const place = (i * (ANCHORS.length - 1)) / 256;
  const left = Math.min(Math.floor(place), ANCHORS.length - 2);
  const [a, b] = [left, left + 1].map((j) => [0, 2, 4].map((k) => parseInt(ANCHORS[j].slice(k, k + 2), 16)));
  return a.map((v, c) => halfEven(v + (b[c] - v) * (place - left)));
});

// The first map of relevance, whose axes are the last three, as RGB bytes: summed over channels, both signs on one scale.
export function draw(relevance, dims, layout) {
  const last = dims.slice(-3);
  const [channels, height, width] = layout === "NHWC" ? [last[2], last[0], last[1]] : last;
  const map = Float64Array.from({ length: height * width }, (_, pixel) => {
    let sum = 0;
    for (let c = 0; c < channels; c++) sum += relevance[layout === "NHWC" ? pixel * channels + c : c * height * width + pixel];
    return sum;
  });
  const limit = percentile(map.filter((v) => v !== 0).map(Math.abs)) ?? 1;
  const data = Buffer.alloc(height * width * 3);
  map.forEach((v, pixel) => data.set(COLOURS[128 + halfEven(Math.max(-1, Math.min(1, v / limit)) * 128)], pixel * 3));
  return { width, height, data };
}

// With linear interpolation, taken from the nearer side: rounding as numpy's.
function percentile(values) {
  if (values.length === 0) return undefined;
  values.sort();
  const place = (values.length - 1) * PERCENTILE;
  const below = Math.floor(place);
  const [a, b, t] = [values[below], values[Math.min(below + 1, values.length - 1)], place - below];
  return t < 0.5 ? a + (b - a) * t : b - (b - a) * (1 - t);
}

function halfEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}
