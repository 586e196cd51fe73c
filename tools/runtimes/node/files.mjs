// Files, and what to say where something cannot be done.

import { readFileSync, writeFileSync } from "node:fs";

// The thing, the reason and the remedy in one line.
export class Refusal extends Error {
  constructor(thing, reason, remedy) {
    super(`${thing}: ${reason}; ${remedy}`);
  }
}

export function read(path, remedy = "check the path") {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new Refusal(path, `cannot be read (${error.code})`, remedy);
  }
}

export function write(path, data) {
  try {
    writeFileSync(path, data);
  } catch (error) {
    throw new Refusal(path, `cannot be written (${error.code})`, "check the folder and its permissions");
  }
}

export function parsed(text, thing, remedy) {
  try {
    return JSON.parse(text);
  } catch {
    throw new Refusal(thing, "is no JSON", remedy);
  }
}
