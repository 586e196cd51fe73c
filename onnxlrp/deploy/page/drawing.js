// From relevance to colours, as `onnxlrp run` draws them (onnxlrp/run/heatmap.py). How relevance looks (the colours, where
// the scale ends, how much of a picture is covered) is not known here: it comes from onnxlrp/look.py, as `look`.
"use strict";

onnxlrp.drawing = (() => {
  const { halfToEven } = onnxlrp.preparing;
  const HALF = 128; // the entry of zero in a table of 257 colours

  /** One sample's relevance [C, H, W] or [H, W, C] summed over its channels: Float64Array [H, W]. */
  function asMap(relevance, channels, plane, layout) {
    const map = new Float64Array(plane);
    for (let i = 0; i < plane; i++) {
      for (let c = 0; c < channels; c++) map[i] += Number(relevance[layout === "NCHW" ? c * plane + i : i * channels + c]);
    }
    return map;
  }

  /** { values: the map in -1..1, limit: the relevance that 1 stands for }; throws where it is not finite. */
  function normalise(map, percentile) {
    const broken = map.reduce((n, v) => n + !Number.isFinite(v), 0);
    if (broken) {
      throw new Error(`${broken} of ${map.length} relevance values are NaN or infinite. Convert with another composite.`);
    }
    const strength = map.filter((v) => v !== 0).map(Math.abs).sort();
    const limit = strength.length ? quantile(strength, percentile / 100) : 1;
    return { values: map.map((v) => Math.min(1, Math.max(-1, v / limit))), limit };
  }

  /** Of sorted numbers, linear between neighbours, with NumPy's own order of operations. */
  function quantile(sorted, share) {
    const place = share * (sorted.length - 1), below = Math.floor(place), t = place - below;
    const a = sorted[below], b = sorted[Math.min(below + 1, sorted.length - 1)];
    return t >= 0.5 ? b - (b - a) * (1 - t) : a + (b - a) * t;
  }

  /** Where in the table of colours a value in -1..1 is, times three. */
  function place(value) {
    return (halfToEven(Math.min(1, Math.max(-1, value)) * HALF) + HALF) * 3;
  }

  /** RGBA of a map in -1..1. */
  function heatmap(values, { table }) {
    const rgba = new Uint8ClampedArray(values.length * 4);
    values.forEach((value, i) => {
      const at = place(value);
      for (let c = 0; c < 3; c++) rgba[4 * i + c] = table[at + c];
      rgba[4 * i + 3] = 255;
    });
    return rgba;
  }

  /** RGBA of a map in -1..1 over the picture in grey; `strongest` 0..1 is how much of the colour is laid on. */
  function overlay(shown, values, { table, cover, hue }, strongest = 1) {
    const rgba = new Uint8ClampedArray(shown.length);
    values.forEach((value, i) => {
      const strength = Math.abs(value), at = place(Math.sign(value) * (hue[0] + hue[1] * strength));
      const alpha = cover[0] * strength ** cover[1] * strongest;
      const grey = (shown[4 * i] * 19595 + shown[4 * i + 1] * 38470 + shown[4 * i + 2] * 7471 + 0x8000) >> 16;
      for (let c = 0; c < 3; c++) rgba[4 * i + c] = halfToEven(grey * (1 - alpha) + table[at + c] * alpha);
      rgba[4 * i + 3] = 255;
    });
    return rgba;
  }

  /** The map under a Gaussian (outside it there is zero), scaled again: on a picture single pixels cannot be seen. */
  function softened(values, width, height, { gaussian, percentile }) {
    const reach = (gaussian.length - 1) / 2;
    const along = (data, stepX, limit, coordinate) => data.map((_, i) => {
      let total = 0;
      for (let k = -reach; k <= reach; k++) {
        const at = coordinate(i) + k;
        if (at >= 0 && at < limit) total += data[i + k * stepX] * gaussian[k + reach];
      }
      return total;
    });
    const columns = along(values, width, height, (i) => Math.floor(i / width));
    return normalise(along(columns, 1, width, (i) => i % width), percentile).values;
  }

  return { asMap, normalise, heatmap, overlay, softened };
})();
