// A second OPC UA stack as a client that is measured: subscribes, takes values for some seconds, prints what it cost.
//
//   node drain.mjs PORT --kind KIND --tags N --seconds S
//
// {"values": …, "cpu": …, "wall": …}: CPU of this process [s], all threads and system time included, counted from the
// moment on when the just-in-time compiler has seen twenty values of every tag.

import os from "node:os";
import path from "node:path";
import fs from "node:fs";
import { parseArgs } from "node:util";
import certificates from "node-opcua-certificate-manager";
import opcua from "node-opcua-client";

const { AttributeIds, ClientMonitoredItemGroup, ClientSubscription, OPCUAClient, TimestampsToReturn } = opcua;
const { OPCUACertificateManager } = certificates;

const PER_SUBSCRIPTION = 5000;
const WARM = 20;

function makeCount(tags, seconds, finish) {
  let values = 0;
  let begin = null;
  return () => {
    values += 1;
    if (begin === null) {
      if (values >= WARM * tags) begin = { values, cpu: process.cpuUsage(), time: performance.now() };
    } else if (values % 1000 === 0) {
      const wall = (performance.now() - begin.time) / 1000;
      if (wall < seconds) return;
      const { user, system } = process.cpuUsage(begin.cpu);
      finish({ values: values - begin.values, cpu: (user + system) / 1e6, wall });
    }
  };
}

async function subscribe(session, names, changed) {
  const subscription = ClientSubscription.create(session, {
    requestedPublishingInterval: 500,
    requestedLifetimeCount: 1000,
    requestedMaxKeepAliveCount: 10,
    maxNotificationsPerPublish: PER_SUBSCRIPTION,
    publishingEnabled: true,
  });
  await new Promise((resolve) => subscription.once("started", resolve));
  const items = names.map((name) => ({ nodeId: `ns=1;s=${name}`, attributeId: AttributeIds.Value }));
  const asked = { samplingInterval: 500, queueSize: 100, discardOldest: true };
  ClientMonitoredItemGroup.create(subscription, items, asked, TimestampsToReturn.Both).on("changed", changed);
}

async function main() {
  const options = { kind: { type: "string" }, tags: { type: "string" }, seconds: { type: "string" } };
  const { positionals, values } = parseArgs({ options, allowPositionals: true });
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "node-opcua-"));
  const clientCertificateManager = new OPCUACertificateManager({ rootFolder: folder });
  await clientCertificateManager.initialize();
  const client = OPCUAClient.create({ clientCertificateManager, endpointMustExist: false });
  await client.connect(`opc.tcp://127.0.0.1:${positionals[0]}/plant`);
  const session = await client.createSession();
  const result = await new Promise((resolve, reject) => {
    const count = makeCount(Number(values.tags), Number(values.seconds), resolve);
    const names = Array.from({ length: Number(values.tags) }, (_, place) => `${values.kind}.${place}`);
    const parts = [];
    for (let at = 0; at < names.length; at += PER_SUBSCRIPTION) parts.push(names.slice(at, at + PER_SUBSCRIPTION));
    Promise.all(parts.map((part) => subscribe(session, part, count))).catch(reject);
  });
  fs.rmSync(folder, { recursive: true, force: true });
  console.log(JSON.stringify(result));
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(String(error?.stack || error));
    process.exit(1);
  },
);
