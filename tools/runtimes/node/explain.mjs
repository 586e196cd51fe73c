// Explain a picture with an explainer, in Node: node explain.mjs EXPLAINER PICTURE.png [HEATMAP.png] [CLASS]
// Check this runtime against a conformance kit:  node explain.mjs check DIR [--json FILE] [--repeat TIMES]
// With RUNTIME=web it is ONNX Runtime's WebAssembly build that runs, the one of browsers.

import { readFileSync, writeFileSync } from "node:fs";
import { check } from "./kit.mjs";
import { metadata, prepare } from "./input.mjs";
import { decode, encode } from "./picture.mjs";
import { draw } from "./heatmap.mjs";

const web = process.env.RUNTIME === "web";
const { default: ort } = await import(web ? "onnxruntime-web" : "onnxruntime-node");
const threads = Number(process.env.OMP_NUM_THREADS ?? 0);
if (web) ort.env.wasm.numThreads = threads || 1;

// Node's build is given the path, which costs no copy; the web build takes bytes.
const open = (path) => ort.InferenceSession.create(web ? readFileSync(path) : path, { intraOpNumThreads: threads });

async function explain(path, picture, heatmap = "heatmap.png", target = "-1") {
  const explainer = await open(path);
  const stated = metadata(readFileSync(path));
  const way = JSON.parse(stated["onnxlrp.preprocess"]);
  const { values, shape } = prepare(decode(readFileSync(picture)), way);
  const feeds = { [stated["onnxlrp.input"]]: new ort.Tensor("float32", values, shape) };
  if (explainer.inputNames.includes("target")) feeds.target = new ort.Tensor("int64", [BigInt(target)], [1]);
  const { relevance, explained } = await explainer.run(feeds);
  writeFileSync(heatmap, encode(draw(relevance.data, relevance.dims, way.layout)));
  const label = JSON.parse(stated["onnxlrp.labels"] ?? "[]")[explained.data[0]];
  console.log(`class ${explained.data[0]}${label ? ` (${label})` : ""}: ${heatmap}`);
}

const [what, where, ...rest] = process.argv.slice(2);
if (what === undefined || where === undefined) {
  console.error("node explain.mjs EXPLAINER PICTURE.png [HEATMAP.png] [CLASS], or: node explain.mjs check DIR");
  process.exitCode = 2;
} else if (what === "check") {
  const name = `onnxruntime-${web ? "web (wasm)" : "node"} ${ort.env.versions[web ? "web" : "node"]}`;
  process.exitCode = await check(where, name, ort, open, rest);
} else {
  await explain(what, where, ...rest);
}
