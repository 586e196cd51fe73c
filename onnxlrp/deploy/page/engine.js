// The explainer, in the contract's terms: a prepared picture and a class go in, scores and relevance come out. Knows the
// form of this page's explainer (`onnxlrp.explainer`, written by `onnxlrp page`), and runs it in the worker.
"use strict";

onnxlrp.engine = (() => {
  const { loading } = onnxlrp;
  const PREDICTED = -1;
  const NAMES = { webgpu: "WebGPU", wasm: "WebAssembly" };
  const ARRAYS = { float32: Float32Array, float64: Float64Array, float16: globalThis.Float16Array, uint8: Uint8Array };
  let worker = null, asked = new Map(), count = 0;

  /** The backends that this page brings and this browser has, the preferred one first. */
  async function backends() {
    const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
    const soft = adapter?.info?.isFallbackAdapter ?? adapter?.isFallbackAdapter; // computes on the CPU, far slower
    const found = adapter ? ["webgpu", "wasm"] : ["wasm"];
    return (soft ? found.reverse() : found).filter((backend) => onnxlrp.parts[`${backend}.wasm`]);
  }

  /** Load the explainer; resolves to the name of the backend. With `choice` "auto", the first that starts. */
  async function open(choice, tell) {
    if (typeof WebAssembly !== "object") {
      throw new Error("This browser has no WebAssembly, which the model needs. Open the page in a current browser.");
    }
    if (!ARRAYS[onnxlrp.explainer.input.type]) {
      throw new Error(`This browser has no ${onnxlrp.explainer.input.type} numbers, which the model needs. Update it.`);
    }
    const tried = choice === "auto" ? await backends() : [choice];
    const failures = [];
    for (const backend of tried) {
      try {
        await start(backend, tell);
        return NAMES[backend];
      } catch (error) {
        failures.push(`${NAMES[backend]}: ${error.message}`);
      }
    }
    throw new Error(`The model does not start. ${failures.join("; ")}`);
  }

  async function start(backend, tell) {
    worker?.terminate();
    asked.clear();
    const total = [`${backend}.wasm`, "model"].reduce((sum, name) => sum + onnxlrp.parts[name].bytes, 0);
    let before = 0;
    const load = async (name) => {
      const { bytes } = onnxlrp.parts[name];
      const loaded = await loading.part(name, (share) => tell((before + share * bytes) / total));
      before += bytes;
      return loaded;
    };
    const [wasm, model] = [await load(`${backend}.wasm`), await load("model")];
    const small = [`${backend}.script`, `${backend}.glue`, "worker"].map((name) => loading.part(name));
    const [script, glue, ours] = await Promise.all(small);
    const address = URL.createObjectURL(new Blob([script, "\n", ours], { type: "text/javascript" }));
    worker = new Worker(address);
    worker.onmessage = ({ data: { id, ...answer } }) => settle(id, answer);
    worker.onerror = (event) => {
      event.preventDefault();
      for (const id of [...asked.keys()]) settle(id, { error: event.message || "the worker does not start" });
    };
    const moved = [wasm.buffer, model.buffer];
    await ask({ kind: "open", glue, wasm: moved[0], model: moved[1], backend }, moved);
    URL.revokeObjectURL(address);
  }

  function ask(message, moved = []) {
    return new Promise((resolve, reject) => {
      asked.set(++count, { resolve, reject });
      worker.postMessage({ id: count, ...message }, moved);
    });
  }

  function settle(id, answer) {
    const waiting = asked.get(id);
    asked.delete(id);
    if (answer.error) waiting?.reject(new Error(answer.error));
    else waiting?.resolve(answer);
  }

  /** { scores, probabilities, target, relevance (of one sample), milliseconds } for a class, by default the predicted. */
  async function explain(values, target = PREDICTED) {
    const { input, output } = onnxlrp.explainer;
    const wanted = [output, "relevance", "explained"];
    const { outputs, milliseconds } = await ask({ kind: "run", feeds: feeds(values, target), wanted });
    const classes = outputs[output].data.length / input.batch;
    const scores = Float64Array.from(outputs[output].data.subarray(0, classes), Number);
    return {
      scores,
      probabilities: probabilities(scores),
      target: Number(outputs.explained.data[0]),
      relevance: outputs.relevance.data.subarray(0, values.length),
      milliseconds,
    };
  }

  /** A picture fills the whole batch where its size is fixed; several targets an input are the same one. */
  function feeds(values, target) {
    const { input, targets, target_input: takesTarget, conditions } = onnxlrp.explainer;
    const data = new ARRAYS[input.type](values.length * input.batch);
    if (input.type === "uint8") values = new Uint8ClampedArray(values); // which rounds half to even
    for (let i = 0; i < input.batch; i++) data.set(values, i * values.length);
    const fed = { [input.name]: { type: input.type, data, dims: [input.batch, ...input.dims] } };
    if (takesTarget) {
      const dims = targets === null ? [input.batch] : [input.batch, targets];
      fed.target = { type: "int64", data: new BigInt64Array(input.batch * (targets ?? 1)).fill(BigInt(target)), dims };
    }
    for (const { name, type, channels } of conditions) { // everything passes
      fed[name] = { type, data: new ARRAYS[type](input.batch * channels).fill(1), dims: [input.batch, channels] };
    }
    return fed;
  }

  function probabilities(scores) {
    if (onnxlrp.explainer.scores === "probabilities") return scores;
    if (onnxlrp.explainer.scores === "log-probabilities") return scores.map(Math.exp);
    if (scores.length === 1) return scores.map((s) => 1 / (1 + Math.exp(-s)));
    const most = Math.max(...scores), powers = scores.map((s) => Math.exp(s - most));
    const sum = powers.reduce((a, b) => a + b);
    return powers.map((p) => p / sum);
  }

  return { backends, open, explain, NAMES };
})();
