// Check a runtime against a conformance kit: one line a case, the exit code 0 where all are within tolerance.

import { join } from "node:path";
import { parsed, read, write } from "./files.mjs";
import { draw } from "./heatmap.mjs";
import { ARRAYS } from "./input.mjs";

export async function check(folder, runtime, ort, open, options) {
  const option = (name) => (options.includes(name) ? options[options.indexOf(name) + 1] : undefined);
  const remedy = "name the folder of a conformance kit: graphs/conformance";
  const path = join(folder, "manifest.json");
  const manifest = parsed(read(path, remedy), path, remedy);
  const cases = {};
  for (const entry of manifest.cases) {
    try {
      cases[entry.name] = await checkCase(folder, entry, manifest.tolerances, ort, open, Number(option("--repeat") ?? 0));
    } catch (error) {
      cases[entry.name] = { failed: String(error.message).split("\n").at(-1).slice(0, 300) };
    }
    console.log(line(entry.name, cases[entry.name]));
  }
  const drawings = (manifest.drawings ?? []).map((drawing) => drawsTheSame(folder, drawing));
  const good = Object.values(cases).filter((c) => c.missed?.length === 0).length;
  const total = Object.keys(cases).length;
  console.log(`${runtime}: ${good} of ${total} cases within tolerance`);
  if (option("--json")) write(option("--json"), JSON.stringify({ runtime, cases }, null, 1));
  return total > 0 && good === total && drawings.every(Boolean) ? 0 : 1;
}

async function checkCase(folder, entry, tolerances, ort, open, repeat) {
  const session = await open(join(folder, entry.explainer));
  const feeds = {};
  for (const { name, dtype, shape, file } of entry.inputs) {
    feeds[name] = new ort.Tensor(dtype, tensor(folder, { dtype, file }), shape);
  }
  const names = entry.outputs.map((output) => output.name);
  const found = await session.run(feeds, names);
  const [errors, missed] = [{}, []];
  for (const output of entry.outputs) {
    const { measure, limit } = tolerances[output.tolerance];
    const { type, dims } = found[output.name];
    const same = type === output.dtype && String(dims) === String(output.shape);
    const error = same ? difference(measure, found[output.name].data, tensor(folder, output), output.shape[0]) : Infinity;
    errors[output.name] = error;
    if (!(error <= limit)) missed.push(output.name);
  }
  const times = [];
  for (let i = 0; i < repeat; i++) {
    const began = performance.now();
    await session.run(feeds, names);
    times.push((performance.now() - began) / 1000);
  }
  await session.release();
  return { errors, missed, seconds: times.sort((a, b) => a - b)[repeat >> 1] ?? null };
}

// The kit's tensors are raw little-endian values, as JavaScript's typed arrays are on every machine that Node runs on.
function tensor(folder, { dtype, file }) {
  const bytes = read(join(folder, file));
  return new ARRAYS[dtype](bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
}

// How far `found` is from `expected`, in double precision. What is not a number is infinitely far.
function difference(measure, found, expected, samples) {
  let [most, largest, differing, levels, worst] = [0, 1e-30, 0, 0, 0];
  const size = expected.length / samples;
  for (let s = 0; s < samples; s++) {
    let [apart, length] = [0, 0];
    for (let i = s * size; i < (s + 1) * size; i++) {
      const [a, b] = [Number(found[i]), Number(expected[i])];
      if (!Number.isFinite(a)) return Infinity;
      most = Math.max(most, Math.abs(a - b));
      largest = Math.max(largest, Math.abs(b));
      differing += found[i] !== expected[i];
      levels += Math.abs(a - b) > 1;
      apart += (a - b) ** 2;
      length += b ** 2;
    }
    worst = Math.max(worst, Math.sqrt(apart) / Math.max(Math.sqrt(length), 1e-30));
  }
  const measures = { max: most / largest, l2: worst, different: differing, levels: levels / expected.length };
  if (!(measure in measures)) throw new Error(`measure ${measure}: unknown; take the checker that came with the kit`);
  return measures[measure];
}

function line(name, { errors, missed, failed }) {
  if (failed !== undefined) return `FAIL  ${name}  ${failed}`;
  const said = Object.entries(errors).map(([k, v]) => `${k} ${v.toExponential(1)}${missed.includes(k) ? " (too far)" : ""}`);
  return `${missed.length ? "MISS" : "ok  "}  ${name}  ${said.join(", ")}`;
}

function drawsTheSame(folder, { name, layout, relevance, pixels }) {
  const drawn = draw(tensor(folder, relevance), relevance.shape, layout);
  const same = drawn.data.equals(tensor(folder, pixels));
  console.log(`${same ? "ok  " : "MISS"}  ${name}  drawing`);
  return same;
}
