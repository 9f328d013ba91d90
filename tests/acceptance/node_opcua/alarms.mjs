// An operator's session with node-opcua's own alarm client: a list that follows the server, and what is done to it.

import opcua from "node-opcua-client";

const { DataType, Variant, installAlarmMonitoring, resolveNodeId, uninstallAlarmMonitoring } = opcua;

const WAIT = 30_000; // ms
const SHELVE = "ns=0;i=2949"; // ShelvedStateMachineType TimedShelve
const UNSHELVE = "ns=0;i=2947";

async function until(list, conditionId, wanted) {
  const end = Date.now() + WAIT;
  while (Date.now() < end) {
    const alarm = list.alarms().find((each) => each.conditionId.toString() === conditionId.toString());
    if (alarm && wanted(alarm.fields)) return alarm;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`the alarm ${conditionId} did not become what was waited for`);
}

const shown = (step, fields) => ({
  step,
  active: fields.activeState.id.value,
  acknowledged: fields.ackedState.id.value,
  confirmed: fields.confirmedState.id.value,
  retain: fields.retain.value,
  shelved: fields.shelvingState.currentState.value?.text ?? null,
  put_aside: fields.suppressedOrShelved.value,
  severity: fields.severity.value,
  message: fields.message.value?.text ?? null,
  comment: fields.comment.value?.text ?? null,
  user: fields.clientUserId.value,
  event: fields.eventId.value.toString("hex"),
});

export async function alarms(session, condition, judge, print) {
  const list = await installAlarmMonitoring(session); // refreshes: what stands already is shown
  const shelf = resolveNodeId(`${condition.toString()}.ShelvingState`);
  const call = async (methodId, ...inputArguments) =>
    (await session.call({ objectId: shelf, methodId: resolveNodeId(methodId), inputArguments })).statusCode.name;

  const alarm = await until(list, condition, (fields) => fields.activeState.id.value);
  print(shown("stands", alarm.fields));
  print({ step: "commented", status: (await session.addCommentCondition(condition, alarm.eventId, "seen")).name });
  await until(list, condition, (fields) => fields.comment.value?.text === "seen");
  print({ step: "acknowledged", status: (await alarm.acknowledge(session, "on my way")).name });
  print(shown("known", (await until(list, condition, (fields) => fields.ackedState.id.value)).fields));
  print({ step: "acknowledged twice", status: (await alarm.acknowledge(session, "again")).name });
  print({ step: "confirmed", status: (await alarm.confirm(session, "washed")).name });
  print(shown("done", (await until(list, condition, (fields) => fields.confirmedState.id.value)).fields));
  print({ step: "judged", status: await judge(alarm.eventId, "confirmed", "a fouled compressor") });
  await until(list, condition, (fields) => fields.comment.value?.text.startsWith("confirmed: "));
  print({ step: "shelved", status: await call(SHELVE, new Variant({ dataType: DataType.Double, value: 60_000 })) });
  print(shown("aside", (await until(list, condition, (fields) => fields.suppressedOrShelved.value)).fields));
  print({ step: "unshelved", status: await call(UNSHELVE) });
  print(shown("back", (await until(list, condition, (fields) => !fields.suppressedOrShelved.value)).fields));
  await uninstallAlarmMonitoring(session);
}
