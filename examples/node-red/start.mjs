// Starts Node-RED on this machine alone. Its own files go into ./run, its OPC UA certificate first: three clients share it.
//
//   node start.mjs        then open http://127.0.0.1:1880/dashboard/engines

import { spawn } from "node:child_process";
import path from "node:path";

import opcua from "node-opcua";

const HERE = import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname);
const RUN = path.join(HERE, "run");
const PKI = path.join(RUN, "node-red-opcua-nodejs/PKI"); // where node-red-contrib-opcua looks, below XDG_CONFIG_HOME
const OPERATOR = path.resolve(HERE, "../../demo/operator/own"); // made by `make demo`; the flows name both

const clientCertificateManager = new opcua.OPCUACertificateManager({ rootFolder: PKI });
await clientCertificateManager.initialize();
await opcua.OPCUAClient.create({ clientCertificateManager }).createDefaultCertificate();
await clientCertificateManager.dispose();
console.log(`To acknowledge alarms from Node-RED, let foretag trust it:
  .venv/bin/foretag trust add ${path.relative(path.resolve(HERE, "../.."), PKI)}/own/certs/client_certificate.pem --config demo/foretag.toml`);

const env = {
  OPERATOR_CERTIFICATE: path.join(OPERATOR, "own.der"),
  OPERATOR_KEY: path.join(OPERATOR, "own.key"),
  ...process.env,
  XDG_CONFIG_HOME: RUN,
};
const red = spawn(process.execPath, [path.join(HERE, "node_modules/node-red/red.js"), "--settings", path.join(HERE, "settings.js")], {
  cwd: HERE,
  env,
  stdio: "inherit",
});
red.on("exit", (code) => process.exit(code ?? 0));
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => red.kill(signal));
