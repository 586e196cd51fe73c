// The page itself: what the person does, and what is shown for it. Pictures, numbers and the model are elsewhere.
"use strict";

(() => {
  const { explainer, pictures, preparing, drawing, engine, loading } = onnxlrp;
  const BEST = 5, LEAST_SIDE = 512; // classes listed; pixels of a downloaded picture's longer side at least
  const part = (id) => document.getElementById(id);
  const state = { opening: null, picture: null, prepared: null, answers: new Map(), target: null, job: 0 };

  // ── Words ──────────────────────────────────────────────────────────────────────────────────────────────────────
  const className = (index) => explainer.labels?.[index] ?? `class ${index}`;

  function percent(share) { // never rounds to certainty
    if (share > 0.999 && share < 1) return ">\u00a099.9\u00a0%";
    if (share > 0 && share < 0.001) return "<\u00a00.1\u00a0%";
    return `${(100 * share).toFixed(1)}\u00a0%`;
  }

  function number(value) {
    return value >= 0.001 && value < 10000 ? String(Number(value.toPrecision(2))) : value.toExponential(1);
  }

  function say(text) {
    part("status").textContent = text;
  }

  function complain(error) {
    part("alert").textContent = error?.message ?? "";
    part("alert").hidden = !error;
    if (error) say("");
  }

  // ── The model ──────────────────────────────────────────────────────────────────────────────────────────────────
  function openEngine(choice) {
    part("progress").hidden = false;
    part("backend").disabled = true; // one after the other
    part("ran").textContent = "";
    say("Loading the model …");
    state.opening = engine.open(choice, (share) => { part("progress").value = share; }).then((name) => {
      part("ran").textContent = `Model ready on ${name}.`;
      if (!state.picture) say("");
      return name;
    }).finally(() => {
      part("progress").hidden = true;
      part("backend").disabled = false;
    });
    state.opening.catch(complain);
    return state.opening;
  }

  async function listBackends() {
    const select = part("backend"), found = await engine.backends();
    const first = found[0] ? ` (${engine.NAMES[found[0]]})` : "";
    for (const [value, text] of [["auto", `automatic${first}`], ...found.map((b) => [b, engine.NAMES[b]])]) {
      select.add(new Option(text, value));
    }
    select.onchange = async () => {
      complain(null);
      state.answers.clear();
      try {
        await openEngine(select.value);
        if (state.prepared) await explain(state.target);
      } catch (error) {
        complain(error);
      }
    };
  }

  // ── From a picture to an answer ────────────────────────────────────────────────────────────────────────────────
  async function take(blob, name) {
    const job = ++state.job;
    complain(null);
    say(`Reading ${name} …`);
    try {
      const picture = await pictures.read(blob, name);
      if (job !== state.job) return;
      state.prepared = preparing.prepare(picture, explainer.preparing);
      state.picture = { name, width: picture.width, height: picture.height };
      state.answers.clear();
      await explain(explainer.fixed_target ?? -1, job);
    } catch (error) {
      if (job === state.job) complain(error);
    }
  }

  /** Explain the picture at hand for a class, -1 the predicted one, and show it. */
  async function explain(target, job = ++state.job) {
    let answer = state.answers.get(target);
    if (!answer) {
      part("stage").ariaBusy = "true";
      try {
        const backend = await state.opening;
        if (job === state.job) say(target < 0 ? `Looking at ${state.picture.name} …` : `Explaining ${className(target)} …`);
        answer = await engine.explain(state.prepared.values, target);
        if (job !== state.job) return;
        state.answers.set(answer.target, answer);
        part("ran").textContent = `Ran on ${backend} in ${Math.round(answer.milliseconds)} ms.`;
      } finally {
        if (job === state.job) part("stage").ariaBusy = "false";
      }
    }
    const fresh = state.target === null || target < 0 || part("panel").hidden;
    state.target = answer.target;
    if (fresh) listClasses(answer);
    mark();
    draw();
    const { name, width, height } = state.picture;
    const sizes = `${width} × ${height}`, seen = `${state.prepared.width} × ${state.prepared.height}`;
    const scaled = sizes === seen ? "" : ` (${sizes}, seen by the model as ${seen})`;
    say(`${name}${scaled}: relevance for ${className(answer.target)}, ${percent(answer.probabilities[answer.target])}.`);
  }

  // ── The classes ────────────────────────────────────────────────────────────────────────────────────────────────
  function listClasses({ scores, probabilities, target }) {
    const order = [...scores.keys()].sort((a, b) => scores[b] - scores[a] || a - b);
    const listed = order.slice(0, BEST);
    if (!listed.includes(target)) listed.push(target);
    const fixed = explainer.fixed_target !== null;
    part("best").replaceChildren(...listed.map((index) => {
      const label = document.createElement("label");
      const input = Object.assign(document.createElement("input"), { type: "radio", name: "class", value: index });
      input.disabled = fixed && index !== target;
      input.onchange = () => choose(index);
      label.style.setProperty("--share", probabilities[index]);
      label.append(input, span("name", className(index)), span("chance", percent(probabilities[index])));
      return label;
    }));
    const rest = fixed ? [] : order.slice(BEST).sort((a, b) => a - b);
    part("others").hidden = rest.length === 0;
    part("other").replaceChildren(new Option("Choose …", ""),
      ...rest.map((i) => new Option(`${className(i)} (${percent(probabilities[i])})`, i)));
    part("fixed").hidden = !fixed;
    const always = explainer.fixed_target < 0 ? "the predicted class" : className(explainer.fixed_target ?? 0);
    part("fixed").textContent = `This explainer always explains ${always}.`;
    part("panel").hidden = false;
  }

  function span(kind, text) {
    return Object.assign(document.createElement("span"), { className: kind, textContent: text });
  }

  function mark() {
    let listed = false;
    for (const input of part("best").querySelectorAll("input")) {
      input.checked = Number(input.value) === state.target;
      listed ||= input.checked;
    }
    part("other").value = listed ? "" : String(state.target);
  }

  function choose(index) {
    complain(null);
    explain(index).catch(complain);
  }

  // ── What is shown ──────────────────────────────────────────────────────────────────────────────────────────────
  function tilesOf(style) {
    const { shown, width, height } = state.prepared;
    const { relevance } = state.answers.get(state.target);
    const { layout, channels } = explainer.preparing;
    const look = explainer.drawing;
    const map = drawing.asMap(relevance, channels, width * height, layout);
    const { values, limit } = drawing.normalise(map, look.percentile);
    const opacity = part("opacity").value / 100;
    const overlay = () => drawing.overlay(shown, drawing.softened(values, width, height, look), look, opacity);
    const all = {
      picture: { caption: "Picture", make: () => shown },
      heatmap: { caption: "Relevance", make: () => drawing.heatmap(values, look), squares: true },
      overlay: { caption: "Overlay", make: overlay },
    };
    const chosen = style === "sides" ? ["picture", "heatmap", "overlay"] : [style];
    return { limit, tiles: chosen.map((name) => ({ name, ...all[name] })) };
  }

  function draw() {
    const style = document.querySelector("[name=style]:checked").value;
    part("opacity-row").hidden = style === "heatmap";
    part("percent").textContent = `${part("opacity").value} %`;
    if (!state.answers.has(state.target)) return;
    const { limit, tiles } = tilesOf(style);
    part("tiles").replaceChildren(...tiles.map(({ name, caption, make, squares }) => {
      const figure = document.createElement("figure"), canvas = document.createElement("canvas");
      paint(canvas, make());
      canvas.id = `tile-${name}`;
      canvas.classList.toggle("squares", Boolean(squares));
      canvas.role = "img";
      canvas.ariaLabel = `${caption} of ${state.picture.name}` + (name === "picture" ? "" : `, for ${className(state.target)}`);
      figure.append(canvas);
      if (tiles.length > 1) figure.append(Object.assign(document.createElement("figcaption"), { textContent: caption }));
      return figure;
    }));
    part("low").textContent = `−${number(limit)}, against ${className(state.target)}`;
    part("high").textContent = `for ${className(state.target)}, +${number(limit)}`;
    for (const id of ["tiles", "scale"]) part(id).hidden = false;
    part("drop").hidden = true;
  }

  function paint(canvas, rgba) {
    const { width, height } = state.prepared;
    [canvas.width, canvas.height] = [width, height];
    canvas.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(rgba), width, height), 0, 0);
  }

  function paintBar() {
    const entries = Float64Array.from({ length: 257 }, (_, i) => (i - 128) / 128);
    const image = new ImageData(drawing.heatmap(entries, explainer.drawing), 257, 1);
    part("bar").getContext("2d").putImageData(image, 0, 0);
  }

  /** What is shown, in one row, enlarged by a whole factor so that one value stays one square. */
  function download() {
    const canvases = [...part("tiles").querySelectorAll("canvas")];
    const { width, height } = state.prepared;
    const factor = Math.max(1, Math.ceil(LEAST_SIDE / Math.max(width, height))), gap = canvases.length > 1 ? 16 : 0;
    const sheet = document.createElement("canvas");
    sheet.width = canvases.length * (width * factor + gap) - gap;
    sheet.height = height * factor;
    const context = sheet.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, sheet.width, sheet.height);
    canvases.forEach((canvas, i) => {
      context.imageSmoothingEnabled = !canvas.classList.contains("squares");
      context.imageSmoothingQuality = "high";
      context.drawImage(canvas, i * (width * factor + gap), 0, width * factor, height * factor);
    });
    sheet.toBlob((blob) => {
      const link = document.createElement("a");
      const word = className(state.target).split(",")[0].toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-");
      const style = document.querySelector("[name=style]:checked").value;
      link.download = `${state.picture.name.replace(/\.[^.]*$/, "")}.${word}.${style}.png`;
      link.href = URL.createObjectURL(blob);
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
  }

  // ── What the person does ───────────────────────────────────────────────────────────────────────────────────────
  function takeFirst(files) {
    const file = [...files].find((f) => f.type.startsWith("image/")) ?? files[0];
    if (file) take(file, file.name || "the pasted picture");
  }

  function listen() {
    part("file").onchange = () => { takeFirst(part("file").files); part("file").value = ""; };
    part("another").onclick = () => part("file").click();
    part("download").onclick = download;
    part("other").onchange = () => part("other").value && choose(Number(part("other").value));
    part("opacity").oninput = draw;
    for (const radio of document.querySelectorAll("[name=style]")) radio.onchange = draw;
    document.addEventListener("paste", (event) => takeFirst(event.clipboardData.files));
    document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dragging"); });
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) document.body.classList.remove("dragging");
    });
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      document.body.classList.remove("dragging");
      if (event.dataTransfer.files.length) takeFirst(event.dataTransfer.files);
      else complain(new Error("That was no file. Save the picture first, then drop its file here."));
    });
  }

  async function showSamples() {
    for (const { name, part: file, type } of explainer.samples) {
      const blob = new Blob([await loading.part(file)], { type });
      const button = Object.assign(document.createElement("button"), { type: "button", title: name });
      const image = Object.assign(document.createElement("img"), { src: URL.createObjectURL(blob), alt: "" });
      button.append(image, span("", name.replace(/\.[^.]*$/, "")));
      button.onclick = () => take(blob, name);
      part("samples").append(button);
      part("samples").hidden = false;
    }
  }

  listBackends();
  paintBar();
  listen();
  showSamples().catch(complain);
  openEngine("auto").catch(() => {}); // it has complained itself
})();
