// A second OPC UA stack as a server that is measured: N Doubles, all of them written once a second.
//
//   node serve.mjs --tags N
//
// Prints {"port": …} when it listens. Each line that it reads is answered by one: CPU of this process so far [s], and
// how many values it wrote.

import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import readline from "node:readline";
import { parseArgs } from "node:util";
import certificates from "node-opcua-certificate-manager";
import opcua from "node-opcua-client";
import served from "node-opcua-server";

const { MessageSecurityMode, SecurityPolicy, StatusCodes } = opcua;
const { OPCUAServer } = served;
const { OPCUACertificateManager } = certificates;

const URI = "urn:foretag:scripted-plant";
const PERIOD = 1000; // ms
const AT_ONCE = 500; // written before the loop gets its turn
const DOUBLE = 11;
const FOLDER = 100; // nodes

const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const turn = () => new Promise((resolve) => setImmediate(resolve));
const sleep = (time) => new Promise((resolve) => setTimeout(resolve, time));

async function makeServer(folder) {
  const serverCertificateManager = new OPCUACertificateManager({ rootFolder: folder });
  await serverCertificateManager.initialize();
  return new OPCUAServer({
    port: 0,
    serverCertificateManager,
    securityModes: [MessageSecurityMode.None],
    securityPolicies: [SecurityPolicy.None],
    maxConnectionsPerEndpoint: 20,
    serverCapabilities: { maxSessions: 20, maxSubscriptions: 100, maxMonitoredItems: 1_000_000 },
  });
}

function addVariables(server, tags) {
  const space = server.engine.addressSpace.registerNamespace(URI);
  const folders = Array.from({ length: Math.ceil(tags / FOLDER) }, (_, number) =>
    space.addFolder("ObjectsFolder", { browseName: `folder ${number}` }),
  );
  return Array.from({ length: tags }, (_, place) =>
    space.addVariable({
      componentOf: folders[Math.floor(place / FOLDER)],
      nodeId: `s=uniform.${place}`,
      browseName: `uniform.${place}`,
      dataType: "Double",
    }),
  );
}

async function main() {
  const { values } = parseArgs({ options: { tags: { type: "string" } } });
  const tags = Number(values.tags);
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "node-opcua-"));
  const server = await makeServer(folder);
  await server.initialize();
  const variables = addVariables(server, tags);
  await server.start();
  let written = 0;
  print({ port: server.endpoints[0].port });
  readline.createInterface({ input: process.stdin }).on("line", () => {
    const { user, system } = process.cpuUsage();
    print({ cpu: (user + system) / 1e6, written });
  });
  let due = performance.now();
  for (let value = 1; ; value += 1) {
    const now = new Date();
    for (let start = 0; start < tags; start += AT_ONCE) {
      for (let place = start; place < Math.min(start + AT_ONCE, tags); place += 1) {
        variables[place].setValueFromSource({ dataType: DOUBLE, value: value + place }, StatusCodes.Good, now);
      }
      await turn();
    }
    written += tags;
    due = Math.max(due + PERIOD, performance.now() - PERIOD);
    await sleep(Math.max(0, due - performance.now()));
  }
}

main().catch((error) => {
  console.error(String(error?.stack || error));
  process.exit(1);
});
