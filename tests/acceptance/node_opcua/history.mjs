// What a node's past is, asked for in each of the ways that there are: KIND NODE …
//
//   raw NODE START END SIZE, events NODE START END SIZE     in pages of so many
//   at NODE TIME...                                         at these times
//   AGGREGATE NODE START END MILLISECONDS                   of intervals, such as Average

import opcua from "node-opcua-client";

const {
  AggregateFunction,
  HistoryReadRequest,
  ReadAtTimeDetails,
  ReadEventDetails,
  ReadRawModifiedDetails,
  TimestampsToReturn,
  constructEventFilter,
} = opcua;

const PAGES = 100;
const FIELDS = ["EventId", "Time", "Severity", "Message", "ConditionName"];

const shown = (kind, page) => (data) => ({
  kind,
  page,
  value: data.value?.value ?? null,
  status: data.statusCode.value,
  source_time: data.sourceTimestamp?.toISOString() ?? null,
});

const told = (page) => (event) => {
  const [id, time, severity, message, condition] = event.eventFields.map((field) => field.value);
  return { kind: "events", page, id: id.toString("hex"), time, severity, message: message?.text ?? null, condition };
};

async function inPages(session, nodeId, historyReadDetails, take) {
  let continuationPoint;
  for (let page = 1; page <= PAGES; page++) {
    const request = new HistoryReadRequest({
      historyReadDetails,
      nodesToRead: [{ nodeId, continuationPoint }],
      releaseContinuationPoints: false,
      timestampsToReturn: TimestampsToReturn.Both,
    });
    const [result] = (await session.historyRead(request)).results;
    if (!result.statusCode.isGood()) throw new Error(result.statusCode.toString());
    take(result.historyData, page);
    continuationPoint = result.continuationPoint;
    if (!continuationPoint?.length) return;
  }
  throw new Error(`there are more than ${PAGES} pages`);
}

const ways = {
  async raw(session, nodeId, [start, end, size], print) {
    const details = new ReadRawModifiedDetails({
      startTime: new Date(start),
      endTime: new Date(end),
      numValuesPerNode: Number(size),
      isReadModified: false,
      returnBounds: false,
    });
    await inPages(session, nodeId, details, (data, page) => data.dataValues.map(shown("raw", page)).forEach(print));
  },
  async at(session, nodeId, times, print) {
    const details = new ReadAtTimeDetails({ reqTimes: times.map((time) => new Date(time)), useSimpleBounds: true });
    await inPages(session, nodeId, details, (data, page) => data.dataValues.map(shown("at", page)).forEach(print));
  },
  async events(session, nodeId, [start, end, size], print) {
    const details = new ReadEventDetails({
      startTime: new Date(start),
      endTime: new Date(end),
      numValuesPerNode: Number(size),
      filter: constructEventFilter(FIELDS),
    });
    await inPages(session, nodeId, details, (data, page) => data.events.map(told(page)).forEach(print));
  },
};

async function aggregated(session, nodeId, [start, end, milliseconds], print, kind) {
  const found = await session.readAggregateValue(
    { nodeId }, new Date(start), new Date(end), AggregateFunction[kind], Number(milliseconds),
  );
  found.historyData.dataValues.map(shown(kind, 1)).forEach(print);
}

export const history = (session, kind, nodeId, asked, print) =>
  (ways[kind] ?? aggregated)(session, nodeId, asked, print, kind);
