// A second OPC UA stack as a client: prints what it finds as JSON, one object per line.
//
//   node client.mjs ENDPOINT [--certificate FILE --key FILE] [--pki FOLDER] [--user NAME --password TEXT]
//                   COMMAND [then COMMAND ...]
//
//   alarms CONDITION                 waits for the alarm, comments, acknowledges, confirms, judges, shelves, unshelves it
//   browse [NODE [SIZE]]             all nodes below a node (default: the Objects folder, without the Server object);
//                                    SIZE: so many references in one answer
//   read NODE...                     value, status, times, data type, EURange and EngineeringUnits
//   subscribe NODE SECONDS [COUNT] [absolute|percent SIZE]
//                                    data changes, for so many seconds or until so many came, beyond a deadband
//   call OBJECT METHOD [TEXT...]     calls a method by its name; the texts become what its InputArguments say
//   history KIND NODE ...            see history.mjs
//
// Nodes are written by namespace URI: "nsu=urn:plant;s=Engine01.T24". With a certificate the channel is
// Basic256Sha256, signed and encrypted; without one it is None. Exit code 1 and {"error": …} where anything fails.

import os from "node:os";
import path from "node:path";
import certificates from "node-opcua-certificate-manager";
import opcua from "node-opcua-client";

import { alarms } from "./alarms.mjs";
import { history } from "./history.mjs";
import { call } from "./methods.mjs";

const {
  AttributeIds,
  BrowseDirection,
  ClientMonitoredItem,
  DataChangeFilter,
  DataChangeTrigger,
  DeadbandType,
  MessageSecurityMode,
  NodeClass,
  OPCUAClient,
  SecurityPolicy,
  TimestampsToReturn,
  UserTokenType,
  resolveNodeId,
} = opcua;
const { OPCUACertificateManager } = certificates;

const REQUEST_TIMEOUT = 10_000; // ms

const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");

function parseArguments(words) {
  const [endpoint, ...rest] = words;
  const options = {};
  while (rest[0]?.startsWith("--")) {
    options[rest.shift().slice(2)] = rest.shift();
  }
  return { endpoint, options, commands: [...pieces(rest)] };
}

async function makeClient({ certificate, key, pki }) {
  const clientCertificateManager = new OPCUACertificateManager({
    rootFolder: pki ?? path.join(os.tmpdir(), `node-opcua-${process.pid}`),
    automaticallyAcceptUnknownCertificate: true, // this program tests servers; a product must not
  });
  await clientCertificateManager.initialize();
  return OPCUAClient.create({
    applicationName: "second stack",
    clientCertificateManager,
    certificateFile: certificate,
    privateKeyFile: key,
    securityMode: certificate ? MessageSecurityMode.SignAndEncrypt : MessageSecurityMode.None,
    securityPolicy: certificate ? SecurityPolicy.Basic256Sha256 : SecurityPolicy.None,
    endpointMustExist: false, // a server must refuse us even where we ignore its list of endpoints
    connectionStrategy: { maxRetry: 0, initialDelay: 100, maxDelay: 100 },
    defaultTransactionTimeout: REQUEST_TIMEOUT,
    requestedSessionTimeout: 60_000,
  });
}

async function nodeIdOf(session, text) {
  const match = /^nsu=([^;]+);(.+)$/.exec(text);
  if (!match) return resolveNodeId(text);
  const index = (await session.readNamespaceArray()).indexOf(match[1]);
  if (index < 0) throw new Error(`the server has no namespace ${match[1]}`);
  return resolveNodeId(`ns=${index};${match[2]}`);
}

async function children(session, nodeId) {
  const common = { browseDirection: BrowseDirection.Forward, includeSubtypes: true, resultMask: 63, nodeClassMask: 0 };
  let result = await session.browse({ nodeId, referenceTypeId: "HierarchicalReferences", ...common });
  const found = [...(result.references ?? [])];
  while (result.continuationPoint?.length) {
    result = await session.browseNext(result.continuationPoint, false);
    found.push(...(result.references ?? []));
    if (result.references?.length > session.requestedMaxReferencesPerNode) throw new Error("too many references");
  }
  return found;
}

async function browse(session, [start, size]) {
  session.requestedMaxReferencesPerNode = Number(size ?? session.requestedMaxReferencesPerNode);
  const open = [[start ? await nodeIdOf(session, start) : resolveNodeId("i=85"), ""]];
  const seen = new Set(["ns=0;i=2253"]);
  while (open.length) {
    const [nodeId, parent] = open.shift();
    for (const child of await children(session, nodeId)) {
      const id = child.nodeId.toString();
      if (seen.has(id)) continue;
      seen.add(id);
      const where = `${parent}/${child.browseName.name}`;
      print({ node: id, path: where, class: NodeClass[child.nodeClass], type: child.typeDefinition?.toString() ?? null });
      open.push([child.nodeId, where]);
    }
  }
}

async function property(session, nodeId, name) {
  const found = (await children(session, nodeId)).find((child) => child.browseName.toString() === name);
  if (!found) return null;
  return (await session.read({ nodeId: found.nodeId, attributeId: AttributeIds.Value })).value?.value ?? null;
}

const shown = (data) => ({
  value: data.value?.value ?? null,
  type: data.value?.dataType ?? null,
  status: data.statusCode.value,
  source_time: data.sourceTimestamp?.toISOString() ?? null,
  server_time: data.serverTimestamp?.toISOString() ?? null,
});

async function read(session, texts) {
  for (const node of texts) {
    const nodeId = await nodeIdOf(session, node);
    const data = await session.read({ nodeId, attributeId: AttributeIds.Value });
    const range = await property(session, nodeId, "EURange");
    const units = await property(session, nodeId, "EngineeringUnits");
    print({
      node,
      ...shown(data),
      range: range && { low: range.low, high: range.high },
      units: units && { id: units.unitId, text: units.displayName.text, namespace: units.namespaceUri },
    });
  }
}

function deadband(kind, size) {
  const deadbandType = { absolute: DeadbandType.Absolute, percent: DeadbandType.Percent }[kind];
  return new DataChangeFilter({ trigger: DataChangeTrigger.StatusValue, deadbandType, deadbandValue: Number(size) });
}

async function subscribe(session, [text, seconds, count = "Infinity", kind, size]) {
  const nodeId = await nodeIdOf(session, text);
  const subscription = await session.createSubscription2({
    requestedPublishingInterval: 100,
    requestedLifetimeCount: 1000,
    requestedMaxKeepAliveCount: 10,
    publishingEnabled: true,
  });
  const item = ClientMonitoredItem.create(
    subscription,
    { nodeId, attributeId: AttributeIds.Value },
    { samplingInterval: 0, queueSize: 100, discardOldest: true, filter: kind && deadband(kind, size) },
    TimestampsToReturn.Both,
  );
  await new Promise((resolve, reject) => {
    let left = Number(count);
    const timer = setTimeout(resolve, 1000 * Number(seconds));
    item.on("err", (message) => reject(new Error(message)));
    item.on("changed", (data) => {
      print(shown(data));
      left -= 1;
      if (left <= 0) {
        clearTimeout(timer);
        resolve();
      }
    });
  });
  await subscription.terminate();
}

async function act(session, [object, ...asked]) {
  const objectId = await nodeIdOf(session, object);
  return call(session, objectId, await children(session, objectId), asked);
}

async function operate(session, [node]) {
  const condition = await nodeIdOf(session, node);
  const judge = async (event, ...said) =>
    (await act(session, [node, "Verdict", event.toString("hex"), ...said])).status;
  await alarms(session, condition, judge, print);
}

async function past(session, [kind, node, ...asked]) {
  await history(session, kind, await nodeIdOf(session, node), asked, print);
}

function* pieces(words) {
  for (let rest = words; rest.length; ) {
    const end = rest.includes("then") ? rest.indexOf("then") : rest.length;
    yield rest.slice(0, end);
    rest = rest.slice(end + 1);
  }
}

async function main() {
  const { endpoint, options, commands } = parseArguments(process.argv.slice(2));
  const known = { alarms: operate, browse, call: async (session, asked) => print(await act(session, asked)), history: past, read, subscribe };
  const odd = commands.find(([name]) => !(name in known));
  if (odd) throw new Error(`no command ${odd[0]}; known are ${Object.keys(known)}`);
  const client = await makeClient(options);
  try {
    await client.connect(endpoint);
    const user = { type: UserTokenType.UserName, userName: options.user, password: options.password };
    const session = await client.createSession(options.user ? user : undefined);
    for (const [name, ...operands] of commands) await known[name](session, operands);
    await session.close();
  } finally {
    await client.disconnect();
  }
}

main().then(
  () => process.exit(0),
  (error) => {
    print({ error: String(error?.message || error) });
    process.exit(1);
  },
);
