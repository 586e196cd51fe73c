// From a picture to the explainer's input, as the explainer's own metadata says.

import { Refusal, parsed, read } from "./files.mjs";

export const ARRAYS = { float32: Float32Array, float64: Float64Array, int64: BigInt64Array, uint8: Uint8Array };
const CONTRACT = "1"; // what this program knows of explainers

// What an explainer says of itself, { input, output, target, way, labels }; throws a Refusal for another file.
export function stated(path) {
  const known = metadata(read(path));
  const version = known["onnxlrp.contract"];
  if (version === undefined) {
    throw new Refusal(path, "is no explainer, or is cut off", "make one with onnxlrp convert MODEL --preprocess NAME");
  }
  if (version !== CONTRACT) {
    const remedy = "take the program that came with the onnxlrp that wrote it";
    throw new Refusal(path, `was written for contract ${version}, this program knows ${CONTRACT}`, remedy);
  }
  if (known["onnxlrp.preprocess"] === undefined) {
    const remedy = "make it with onnxlrp convert MODEL --preprocess NAME";
    throw new Refusal(path, "does not store how pixels become its input", remedy);
  }
  const json = (key) => parsed(known[key] ?? "[]", `${path}: its metadata ${key}`, "convert the classifier again");
  const [way, labels] = [json("onnxlrp.preprocess"), json("onnxlrp.labels")];
  const [input, output, target] = ["input", "output", "target"].map((key) => known[`onnxlrp.${key}`]);
  return { input, output, target, way, labels };
}

// The key-value pairs of an ONNX file. ONNX Runtime does not show them in JavaScript, so they are read from the file:
// metadata_props are field 14 of the model, each a message of two strings.
function metadata(bytes) {
  const pairs = {};
  for (const [number, value] of fields(bytes)) {
    if (number === 14) {
      const pair = Object.fromEntries(fields(value));
      pairs[text(pair[1] ?? NOTHING)] = text(pair[2] ?? NOTHING);
    }
  }
  return pairs;
}

const NOTHING = new Uint8Array();
const text = (bytes) => new TextDecoder().decode(bytes);

// The length-delimited fields of a protobuf message, as [number, bytes]; others are skipped.
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      if (!(byte >= 128)) return value; // at the end of a file that is cut off there is no byte
    }
  };
  while (at < bytes.length) {
    const key = varint();
    const kind = key % 8;
    const size = kind === 2 ? varint() : { 1: 8, 5: 4 }[kind] ?? 0;
    if (kind === 0) varint();
    if (kind === 2) yield [Math.floor(key / 8), bytes.subarray(at, at + size)];
    at += size;
  }
}

const LUMINANCE = [0.299, 0.587, 0.114].map(Math.fround);

// What an explainer takes, of the types and shapes of its `inputs`: the picture in each place of a fixed batch, the class
// wherever one is asked for, and ones as masks, which let everything pass. Throws a Refusal for what is none of these.
export function feedsFor(ort, path, inputs, { input, target, way }, picture, asked) {
  const image = inputs.find(({ name }) => name === input);
  if (image.shape.length !== 4) {
    throw new Refusal(path, `takes ${image.shape.length} axes, a picture has 4`, "feed it from a program of your own");
  }
  const batch = image.shape[0] > 0 ? image.shape[0] : 1; // a free size is a name
  const feeds = {};
  for (const { name, type, shape } of inputs) {
    if (!ARRAYS[type]) throw new Refusal(path, `takes ${name} as ${type}`, "explain it with onnxlrp run");
    const filled = (dims, fill) => {
      const data = new ARRAYS[type](dims.reduce((a, b) => a * b));
      fill(data);
      feeds[name] = new ort.Tensor(type, data, dims);
    };
    const dims = [batch, ...shape.slice(1)];
    if (name === input) {
      const one = prepare(picture, way, shape);
      const values = type === "uint8" ? new Uint8ClampedArray(one.values) : one.values; // which rounds
      filled([batch, ...one.shape], (data) => {
        for (let i = 0; i < batch; i++) data.set(values, i * values.length);
      });
    } else if (name === "target") filled(dims, (data) => data.fill(BigInt(asked)));
    else if (name.startsWith("condition/")) filled(dims, (data) => data.fill(1));
    else {
      const remedy = "convert the classifier without --start fed, or feed it from a program of your own";
      throw new Refusal(path, `takes ${name}, which a picture and a class do not say`, remedy);
    }
  }
  if (!feeds.target && asked !== "-1" && asked !== target) {
    const reason = `cannot be chosen: ${path} always explains ${target}`;
    throw new Refusal(`class ${asked}`, reason, "convert the classifier without --target");
  }
  return feeds;
}

// A decoded picture as float32 [C, H, W] or [H, W, C]: (pixel / scale - mean) / std, rounded to float32 at each step as
// numpy does, so that the model sees the same input to the bit. Colours become luminance for a grey model.
function prepare({ width, height, grey, levels }, way, shape) {
  const [high, wide, deep] = way.layout === "NHWC" ? shape.slice(1) : [shape[2], shape[3], shape[1]];
  const [rows, columns] = way.size ?? [high > 0 ? high : height, wide > 0 ? wide : width];
  if (rows !== height || columns !== width) {
    const reason = `has ${width} x ${height} pixels, the explainer takes ${columns} x ${rows}`;
    throw new Refusal("the picture", reason, "resize it");
  }
  const channels = deep === 1 ? 1 : 3;
  const values = new Float32Array(channels * width * height);
  for (let pixel = 0; pixel < width * height; pixel++) {
    const rgb = levels.subarray(pixel * 3, pixel * 3 + 3);
    const luminance = grey ? rgb[0] : Math.fround(LUMINANCE.reduce((sum, part, c) => sum + part * rgb[c], 0));
    for (let c = 0; c < channels; c++) {
      const level = channels === 1 ? luminance : rgb[way.color_order === "BGR" ? 2 - c : c];
      const [mean, std] = [way.mean, way.std].map((v) => Math.fround(v[c % v.length]));
      const at = way.layout === "NHWC" ? pixel * channels + c : c * width * height + pixel;
      values[at] = Math.fround(Math.fround(level / Math.fround(way.scale)) - mean) / std;
    }
  }
  return { values, shape: way.layout === "NHWC" ? [height, width, channels] : [channels, height, width] };
}
