// From a picture's bytes to its pixels, as `onnxlrp run` reads them (onnxlrp/run/images.py).
//
// PNG is decoded here rather than by the browser: a canvas has eight bits a channel and rounds what is transparent, and
// a medical picture is often a grey PNG of sixteen. Everything else is left to the browser's own decoder.
"use strict";
var onnxlrp = globalThis.onnxlrp ?? {};
globalThis.onnxlrp = onnxlrp;

onnxlrp.pictures = (() => {
  const MOST_PIXELS = 89478485; // where `onnxlrp run` stops too
  const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
  const GREY = 0, RGB = 2, PALETTE = 3, GREY_ALPHA = 4, RGBA = 6;
  const SAMPLES = { [GREY]: 1, [RGB]: 3, [PALETTE]: 1, [GREY_ALPHA]: 2, [RGBA]: 4 };
  const WHOLE = [[0, 0, 1, 1]];
  const ADAM7 = [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]];

  /** { width, height, channels: 1 (grey) or 3 (RGB), pixels: Float32Array 0..255 }; throws an Error to be shown. */
  async function read(blob, name) {
    const bytes = new Uint8Array(await blob.arrayBuffer());
    if (bytes.length === 0) throw new Error(`${name} is empty (0 bytes). Copy it again.`);
    if (SIGNATURE.every((b, i) => bytes[i] === b)) {
      const chunks = readChunks(bytes, name);
      if (!chunks.eXIf) return readPng(chunks, name);
    }
    return readByBrowser(blob, bytes, name);
  }

  async function readByBrowser(blob, bytes, name) {
    let bitmap;
    try {
      const asStored = { premultiplyAlpha: "none", colorSpaceConversion: "none" };
      bitmap = await createImageBitmap(blob, asStored);
    } catch {
      throw new Error(whyNot(bytes, name));
    }
    const { width, height } = bitmap;
    refuseHuge(width, height, name);
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    if (!context) throw new Error(`${name} is too large for this browser. Make it smaller first.`);
    context.drawImage(bitmap, 0, 0);
    bitmap.close();
    const rgba = context.getImageData(0, 0, width, height).data;
    const pixels = new Float32Array(width * height * 3);
    for (let i = 0, at = 0; i < rgba.length; i += 4) {
      for (let c = 0; c < 3; c++) pixels[at++] = overWhite(rgba[i + c], rgba[i + 3]);
    }
    return { width, height, channels: 3, pixels };
  }

  /** Why the browser cannot read a file as a picture, with the remedy for the formats that doctors have. */
  function whyNot(bytes, name) {
    const word = (from, to) => String.fromCharCode(...bytes.subarray(from, to));
    if (word(128, 132) === "DICM") return `${name} is a DICOM file. Export its pixels, windowed, as a 16-bit grey PNG.`;
    if (/\.(nii|nii\.gz|mha|nrrd)$/i.test(name)) return `${name} is a volume, not a picture. Export the slice as a PNG.`;
    const tiff = ["II*\0", "MM\0*"].includes(word(0, 4));
    if (tiff) return `${name} is a TIFF file, which browsers do not read. Save it as a PNG, of 16 bits if it has them.`;
    return `${name} is not a picture that this browser can read, or it is damaged. Choose a PNG, JPEG, WebP, GIF or BMP.`;
  }

  function refuseHuge(width, height, name) {
    if (width * height > MOST_PIXELS) throw new Error(`${name} has more than 89 million pixels. Make it smaller first.`);
  }

  /** A value 0..255 of opacity `alpha` over white, rounded as Pillow does it. */
  function overWhite(value, alpha) {
    if (alpha === 255) return value;
    const sum = value * alpha + 255 * (255 - alpha) + 128;
    return ((sum >> 1) + sum * 128) >> 15;
  }

  /** The chunks of a PNG by type, those of its pixels joined. */
  function readChunks(bytes, name) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const found = {}, data = [];
    for (let at = 8; at + 12 <= bytes.length; ) {
      const length = view.getUint32(at);
      const type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
      const body = bytes.subarray(at + 8, at + 8 + length);
      if (type === "IDAT") data.push(body);
      else found[type] ??= body;
      if (type === "IEND") break;
      at += 12 + length;
    }
    if (!found.IHDR || !data.length || !found.IEND) throw damaged(name);
    return { ...found, data };
  }

  function damaged(name) {
    return new Error(`${name} is damaged or cut off. Copy it again.`);
  }

  async function readPng(chunks, name) {
    const head = new DataView(chunks.IHDR.buffer, chunks.IHDR.byteOffset, 13);
    const [width, height, depth, type, interlaced] =
      [head.getUint32(0), head.getUint32(4), head.getUint8(8), head.getUint8(9), head.getUint8(12)];
    refuseHuge(width, height, name);
    if (!SAMPLES[type] || !width || !height) throw damaged(name);
    const stored = await inflated(chunks.data, name);
    const each = SAMPLES[type];
    const samples = new Uint16Array(width * height * each);
    let at = 0;
    for (const [left, top, across, down] of interlaced ? ADAM7 : WHOLE) {
      const [columns, rows] = [Math.ceil((width - left) / across), Math.ceil((height - top) / down)];
      if (columns <= 0 || rows <= 0) continue;
      const stride = Math.ceil((columns * each * depth) / 8);
      const part = stored.subarray(at, (at += rows * (stride + 1)));
      if (part.length < rows * (stride + 1)) throw damaged(name);
      unfilter(part, rows, stride, Math.max(1, (each * depth) / 8));
      for (let y = 0; y < rows; y++) {
        const line = part.subarray(y * (stride + 1) + 1, (y + 1) * (stride + 1));
        for (let i = 0; i < columns * each; i++) {
          const x = left + Math.floor(i / each) * across;
          samples[((top + y * down) * width + x) * each + (i % each)] = sample(line, i, depth);
        }
      }
    }
    return { width, height, ...coloured(samples, type, depth, chunks) };
  }

  async function inflated(data, name) {
    try {
      const stream = new Blob(data).stream().pipeThrough(new DecompressionStream("deflate"));
      return new Uint8Array(await new Response(stream).arrayBuffer());
    } catch {
      throw damaged(name);
    }
  }

  /** Undo the filter of each row, in place; `back` is the distance in bytes to the pixel on the left. */
  function unfilter(part, rows, stride, back) {
    for (let y = 0; y < rows; y++) {
      const start = y * (stride + 1) + 1, kind = part[start - 1], up = stride + 1;
      for (let i = 0; i < stride; i++) {
        const left = i >= back ? part[start + i - back] : 0;
        const above = y > 0 ? part[start + i - up] : 0;
        const corner = y > 0 && i >= back ? part[start + i - up - back] : 0;
        const guess = kind === 1 ? left : kind === 2 ? above : kind === 3 ? (left + above) >> 1
          : kind === 4 ? paeth(left, above, corner) : 0;
        part[start + i] += guess;
      }
    }
  }

  function paeth(left, above, corner) {
    const [a, b, c] = [Math.abs(above - corner), Math.abs(left - corner), Math.abs(left + above - 2 * corner)];
    return a <= b && a <= c ? left : b <= c ? above : corner;
  }

  function sample(line, i, depth) {
    if (depth === 8) return line[i];
    if (depth === 16) return line[2 * i] * 256 + line[2 * i + 1];
    const bit = i * depth;
    return (line[bit >> 3] >> (8 - depth - (bit & 7))) & ((1 << depth) - 1);
  }

  /** Grey of 16 bits keeps them; all else becomes 0..255, transparent pixels over white. */
  function coloured(samples, type, depth, chunks) {
    if (type === GREY && depth === 16) {
      const unit = Math.fround(255 / 65535);
      return { channels: 1, pixels: Float32Array.from(samples, (s) => s * unit) };
    }
    const full = depth === 16 ? (s) => s >> 8 : (s) => (type === PALETTE || depth === 8 ? s : (s * 255) / ((1 << depth) - 1));
    const each = SAMPLES[type], channels = type === GREY || type === GREY_ALPHA ? 1 : 3;
    const { PLTE: palette, tRNS: clear } = chunks;
    const count = samples.length / each, pixels = new Float32Array(count * channels);
    const key = clear && type !== PALETTE ? new DataView(clear.buffer, clear.byteOffset, clear.length) : null;
    for (let i = 0; i < count; i++) {
      const at = i * each;
      let alpha = 255;
      if (type === PALETTE) alpha = clear && samples[at] < clear.length ? clear[samples[at]] : 255;
      else if (type === GREY_ALPHA || type === RGBA) alpha = full(samples[at + each - 1]);
      else if (key) alpha = isKey(samples, at, channels, key) ? 0 : 255;
      for (let c = 0; c < channels; c++) {
        const value = type === PALETTE ? palette?.[samples[at] * 3 + c] ?? 0 : full(samples[at + c]);
        pixels[i * channels + c] = overWhite(value, alpha);
      }
    }
    return { channels, pixels };
  }

  function isKey(samples, at, channels, key) {
    for (let c = 0; c < channels; c++) if (samples[at + c] !== key.getUint16(2 * c)) return false;
    return true;
  }

  return { read };
})();
