// A PNG's colours, as `onnxlrp run` reads them.

import { PNG } from "pngjs";
import { Refusal, read } from "./files.mjs";

// { width, height, grey, levels }: red, green and blue of each pixel, 0..255, which are the same where it is `grey`. Of
// sixteen bits grey keeps its fractions and colours keep the upper eight; what is transparent is laid over white.
// Throws a Refusal for what is no PNG.
export function decode(path) {
  const { width, height, depth, colorType, data, transColor } = parse(path);
  const levels = new Float32Array(width * height * 3);
  if (depth === 16 && colorType === 0) {
    const unit = Math.fround(255 / 65535);
    levels.forEach((_, i) => {
      const at = Math.floor(i / 3) * 4;
      levels[i] = (data[at + 3] === 0 ? transColor[0] : data[at]) * unit; // one grey may be marked as transparent
    });
    return { width, height, grey: true, levels };
  }
  const scaled = colorType === 3 || depth === 8 ? (v) => v : depth === 16 ? (v) => v >> 8 : (v) => (v * 255) / (2 ** depth - 1);
  levels.forEach((_, i) => {
    const at = Math.floor(i / 3) * 4;
    levels[i] = overWhite(scaled(data[at + (i % 3)]), scaled(data[at + 3]));
  });
  return { width, height, grey: colorType === 0 || colorType === 4, levels };
}

function parse(path) {
  const bytes = read(path);
  try {
    return PNG.sync.read(bytes, { skipRescale: true });
  } catch (error) {
    throw new Refusal(path, `cannot be read as a PNG (${error.message})`, "save it as a PNG");
  }
}

// A value of some opacity over white, rounded as Pillow does it.
function overWhite(value, alpha) {
  const sum = value * alpha + 255 * (255 - alpha) + 128;
  return alpha === 255 ? value : ((sum >> 1) + sum * 128) >> 15;
}

export const encode = ({ width, height, data }) =>
  PNG.sync.write({ width, height, data }, { colorType: 2, inputColorType: 2, inputHasAlpha: false });
