// The page's large parts (the model, the runtime), out of script files into memory.
//
// A page opened from a folder may load nothing but classic scripts, so that is what the parts are: pieces, each gzip in
// base64. The same files serve over http. What a part is when unpacked is byte for byte what went in.
"use strict";

onnxlrp.loading = (() => {
  let taken = null;

  /** Called by every file of pieces. */
  onnxlrp.piece = (text) => { taken = text; };

  /** The bytes of a part of the page; `tell` is called with the share of it that is there, 0..1. */
  async function part(name, tell = () => {}) {
    const { files, bytes } = onnxlrp.parts[name];
    const whole = new Uint8Array(bytes);
    let at = 0;
    for (const file of files) {
      const piece = await unpacked(await script(file));
      whole.set(piece, at);
      at += piece.length;
      tell(at / bytes);
    }
    if (at !== bytes) throw new Error(`The page is not complete: ${name} has ${at} of ${bytes} bytes. Export it again.`);
    return whole;
  }

  function script(file) {
    return new Promise((resolve, reject) => {
      const element = document.createElement("script");
      element.src = file;
      element.onload = () => { element.remove(); resolve(taken); taken = null; };
      element.onerror = () => reject(new Error(`The page's file ${file} is missing. Copy the whole folder again.`));
      document.head.append(element);
    });
  }

  async function unpacked(text) {
    const packed = Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  return { part };
})();
