// Explain a picture with an explainer, in Node: node explain.mjs EXPLAINER PICTURE.png [HEATMAP.png] [CLASS]
// Check this runtime against a conformance kit:  node explain.mjs check DIR [--json FILE] [--repeat TIMES]
// With RUNTIME=web it is ONNX Runtime's WebAssembly build that runs, the one of browsers.

import { Refusal, read, write } from "./files.mjs";
import { draw } from "./heatmap.mjs";
import { feedsFor, stated } from "./input.mjs";
import { check } from "./kit.mjs";
import { decode, encode } from "./picture.mjs";

const web = process.env.RUNTIME === "web";
const { default: ort } = await import(web ? "onnxruntime-web" : "onnxruntime-node");
const runtime = `onnxruntime-${web ? "web (wasm)" : "node"} ${ort.env.versions[web ? "web" : "node"]}`;
const threads = Number(process.env.OMP_NUM_THREADS ?? 0);
if (web) ort.env.wasm.numThreads = threads || 1;

// Node's build is given the path, which costs no copy; the web build takes bytes.
const open = (path) => ort.InferenceSession.create(web ? read(path) : path, { intraOpNumThreads: threads });

async function explain(path, picture, heatmap = "heatmap.png", asked = "-1") {
  const known = stated(path);
  const { output, way, labels } = known;
  if (!/^(-1|\d{1,9})$/.test(asked)) {
    throw new Refusal(`class ${asked}`, "is no class", "give its number, or -1 for the predicted one");
  }
  const pixels = decode(picture);
  const explainer = await open(path);
  const found = await explainer.run(feedsFor(ort, path, explainer.inputMetadata, known, pixels, asked));
  const classes = found[output].dims.at(-1);
  if (Number(asked) >= classes) {
    const remedy = `choose 0 to ${classes - 1}, or -1 for the predicted one`;
    throw new Refusal(`class ${asked}`, `is out of range: the explainer has ${classes} classes`, remedy);
  }
  write(heatmap, encode(draw(found.relevance.data, found.relevance.dims, way.layout)));
  const number = found.explained.data[0];
  console.log(`class ${number}${labels[number] ? ` (${labels[number]})` : ""}: ${heatmap}`);
}

const [what, where, ...rest] = process.argv.slice(2);
try {
  if (what === undefined || where === undefined) {
    console.error("node explain.mjs EXPLAINER PICTURE.png [HEATMAP.png] [CLASS], or: node explain.mjs check DIR");
    process.exitCode = 2;
  } else if (what === "check") {
    process.exitCode = await check(where, runtime, ort, open, rest);
  } else {
    await explain(what, where, ...rest);
  }
} catch (error) {
  const reason = `${runtime} cannot run it (${String(error.message).replace(/\s+/g, " ").slice(0, 300)})`;
  const remedy = "convert the classifier again, or check the runtime: check graphs/conformance";
  const failed = new Refusal(what, reason, remedy);
  console.error(`error: ${error instanceof Refusal ? error.message : failed.message}`);
  process.exitCode = 2;
}
