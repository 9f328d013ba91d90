// Calls of methods as a tool makes them that knows no server: what an object can do, and what that takes, it browses.

import opcua from "node-opcua-client";

const { DataType, NodeClass, Variant } = opcua;

const UTC_TIME = 294; // its base type is what travels (OPC 10000-5, 12.2.11)

const READ = {
  [DataType.ByteString]: (text) => Buffer.from(text, "hex"),
  [DataType.DateTime]: (text) => (text ? new Date(text) : null),
  [DataType.LocalizedText]: (text) => ({ text }),
  [DataType.String]: (text) => text,
};

function written(argument, text) {
  const dataType = argument.dataType.value === UTC_TIME ? DataType.DateTime : argument.dataType.value;
  return new Variant({ dataType, value: (READ[dataType] ?? Number)(text) });
}

export async function call(session, objectId, children, [name, ...texts]) {
  const method = children.find((each) => each.nodeClass === NodeClass.Method && each.browseName.name === name);
  if (!method) throw new Error(`${objectId} has no method ${name}`);
  const { inputArguments } = await session.getArgumentDefinition(method.nodeId);
  const given = texts.map((text, place) => written(inputArguments[place], text));
  const result = await session.call({ objectId, methodId: method.nodeId, inputArguments: given });
  const { statusCode, outputArguments } = result;
  return { method: name, status: statusCode.name, answers: (outputArguments ?? []).map(({ value }) => value) };
}
