// ONNX Runtime in a thread of its own, so that the page stays awake while the explainer runs. Messages in: `open` (the
// rest of the runtime and the model), then `run`. Every message is answered under its `id`, with a result or an `error`.
//
// The runtime's script stands before this one, in one blob: of a page on the disk, a worker may load no other's blobs.
"use strict";

let session = null;

async function open({ glue, wasm, model, backend }) {
  ort.env.logLevel = "error";
  // Threads need memory that is shared, which browsers give only to pages served with the headers for it.
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, self.navigator.hardwareConcurrency || 1) : 1;
  ort.env.wasm.wasmPaths = { mjs: URL.createObjectURL(new Blob([glue], { type: "text/javascript" })) };
  ort.env.wasm.wasmBinary = wasm;
  const options = { executionProviders: [backend], logSeverityLevel: 3 }; // errors
  session = await ort.InferenceSession.create(new Uint8Array(model), options);
  return { inputs: session.inputNames };
}

async function run({ feeds, wanted }) {
  const tensors = Object.entries(feeds).map(([name, { type, data, dims }]) => [name, new ort.Tensor(type, data, dims)]);
  const began = performance.now();
  const results = await session.run(Object.fromEntries(tensors), wanted);
  const milliseconds = performance.now() - began;
  const outputs = {};
  for (const name of wanted) outputs[name] = { data: await results[name].getData(), dims: [...results[name].dims] };
  return { outputs, milliseconds };
}

self.onmessage = async ({ data: { id, kind, ...what } }) => {
  try {
    self.postMessage({ id, ...(await { open, run }[kind](what)) });
  } catch (error) {
    self.postMessage({ id, error: String(error?.message ?? error) });
  }
};
