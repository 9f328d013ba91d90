// Starts FUXA on this machine alone, and gives it the project beside this file. Its own files go into ./run.
//
//   node start.mjs        then open http://127.0.0.1:1881

import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";

const HERE = import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname);
const RUN = path.join(HERE, "run");
const FUXA = path.join(HERE, "node_modules/@frangoteam/fuxa");
const PAGE = "http://127.0.0.1:1881";
const TRIES = 60; // seconds

function writeSettings() {
  const folder = path.join(RUN, "_appdata");
  fs.mkdirSync(folder, { recursive: true });
  const settings = fs.readFileSync(path.join(FUXA, "settings.default.js"), "utf8");
  fs.writeFileSync(path.join(folder, "settings.js"), settings.replace(/(uiPort:[^\n]*\n)/, '$1    uiHost: "127.0.0.1",\n'));
}

async function giveProject() {
  const body = fs.readFileSync(path.join(HERE, "project.json"));
  for (let tries = 0; tries < TRIES; tries += 1) {
    await new Promise((resolve) => setTimeout(resolve, 1000));
    try {
      const answer = await fetch(`${PAGE}/api/project`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body,
        signal: AbortSignal.timeout(10_000),
      });
      if (!answer.ok) throw new Error(`FUXA did not take the project: ${answer.status} ${await answer.text()}`);
      return;
    } catch (error) {
      if (error.message.startsWith("FUXA")) throw error; // else it does not listen yet
    }
  }
  throw new Error(`FUXA did not answer at ${PAGE}`);
}

writeSettings();
const fuxa = spawn(process.execPath, [path.join(FUXA, "main.js"), "--userDir", RUN], { cwd: RUN, stdio: "inherit" });
fuxa.on("exit", (code) => process.exit(code ?? 0));
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => fuxa.kill(signal));
giveProject().then(
  () => console.log(`foretag's view: ${PAGE}`),
  (error) => {
    console.error(String(error.message));
    fuxa.kill();
  },
);
