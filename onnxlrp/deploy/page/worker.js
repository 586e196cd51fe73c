// ONNX Runtime in a thread of its own, so that the page stays awake while the explainer runs. Messages in: `open` (the
// runtime's files and the model), then `run`. Every message is answered under its `id`, with a result or an `error`.
"use strict";

let session = null;

async function open({ script, glue, wasm, model, backend }) {
  if (typeof WebAssembly !== "object") throw new Error("this browser has no WebAssembly");
  if (backend === "webgpu" && !(await self.navigator.gpu?.requestAdapter())) throw new Error("there is no WebGPU here");
  importScripts(script);
  ort.env.logLevel = "error";
  // Threads need memory that is shared, which browsers give only to pages served with the headers for it.
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, self.navigator.hardwareConcurrency || 1) : 1;
  ort.env.wasm.wasmPaths = { mjs: glue };
  ort.env.wasm.wasmBinary = wasm;
  session = await ort.InferenceSession.create(new Uint8Array(model), { executionProviders: [backend] });
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
