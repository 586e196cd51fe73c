// From pixels to the explainer's input, number for number as `onnxlrp run` makes it (onnxlrp/run/preparing.py).
//
// A browser's own scaling is not that of Pillow, and a classifier sees the difference; so Pillow's is done here: a
// triangle over each new pixel, as wide as it covers, in double precision, rows first and then columns.
"use strict";

onnxlrp.preparing = (() => {
  const f = Math.fround; // onnxlrp computes in float32; every step is rounded as there

  /** { values: Float32Array of one input, shown: RGBA of what it looks like, width, height } */
  function prepare(picture, way) {
    const [height, width] = way.size;
    const channels = picture.channels;
    const pixels = resized(picture, width, height);
    const [values, plane] = [new Float32Array(width * height * way.channels), width * height];
    const shown = new Uint8ClampedArray(plane * 4);
    const per = (list, c) => f(list.length === 1 ? list[0] : list[c]);
    const scale = f(way.scale);
    for (let i = 0; i < plane; i++) {
      const rgb = channels === 3 ? [pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2]] : Array(3).fill(pixels[i]);
      const colours = way.channels === 3 ? [...rgb] : [channels === 3 ? luminance(rgb, way.luminance) : pixels[i]];
      if (way.color_order === "BGR") colours.reverse(); // a copy: rgb is shown as it is
      for (let c = 0; c < way.channels; c++) {
        const value = f(f(f(colours[c] / scale) - per(way.mean, c)) / per(way.std, c));
        values[way.layout === "NCHW" ? c * plane + i : i * way.channels + c] = value;
      }
      for (let c = 0; c < 3; c++) shown[4 * i + c] = halfToEven(rgb[c]);
      shown[4 * i + 3] = 255;
    }
    return { values, shown, width, height };
  }

  function luminance([r, g, b], parts) {
    return f(r * f(parts[0]) + g * f(parts[1]) + b * f(parts[2]));
  }

  /** Round half to even, as NumPy does. */
  function halfToEven(value) {
    const floor = Math.floor(value);
    const rest = value - floor;
    return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
  }

  /** The pixels at another size, [height, width, channels]. */
  function resized({ pixels, width, height, channels }, newWidth, newHeight) {
    let data = pixels;
    if (newWidth !== width) data = resample(data, height, width, newWidth, channels, width * channels, channels);
    if (newHeight !== height) {
      const row = newWidth * channels;
      data = resample(data, 1, height, newHeight, row, 0, row);
    }
    return data;
  }

  /** `lines` lines of `from` steps made `to` steps long; a step holds `each` values that do not mix. */
  function resample(data, lines, from, to, each, line, step) {
    const out = new Float32Array(lines * to * each);
    const windows = triangles(from, to);
    for (let y = 0; y < lines; y++) {
      for (let x = 0; x < to; x++) {
        const { first, weights } = windows[x];
        for (let c = 0; c < each; c++) {
          let sum = 0;
          for (let k = 0; k < weights.length; k++) sum += data[y * line + (first + k) * step + c] * weights[k];
          out[(y * to + x) * each + c] = sum;
        }
      }
    }
    return out;
  }

  /** For each of `to` new steps, which of the `from` old ones it covers and how much each weighs. */
  function triangles(from, to) {
    const scale = from / to, reach = Math.max(scale, 1);
    return Array.from({ length: to }, (_, x) => {
      const centre = (x + 0.5) * scale;
      const first = Math.max(0, Math.trunc(centre - reach + 0.5));
      const end = Math.min(from, Math.trunc(centre + reach + 0.5));
      const weights = [];
      let sum = 0;
      for (let k = first; k < end; k++) {
        const weight = Math.max(0, 1 - Math.abs((k - centre + 0.5) * (1 / reach)));
        weights.push(weight);
        sum += weight;
      }
      return { first, weights: weights.map((w) => w * (1 / sum)) };
    });
  }

  return { prepare, resized, halfToEven };
})();
