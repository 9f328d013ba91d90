// What a node's past is: raw values in pages, and an aggregate of intervals.

import opcua from "node-opcua-client";

const { AggregateFunction, HistoryReadRequest, ReadRawModifiedDetails, TimestampsToReturn } = opcua;

const shown = (kind, page) => (data) => ({
  kind,
  page,
  value: data.value?.value ?? null,
  status: data.statusCode.value,
  source_time: data.sourceTimestamp?.toISOString() ?? null,
});

export async function history(session, nodeId, [start, end, size, aggregate, milliseconds], print) {
  const historyReadDetails = new ReadRawModifiedDetails({
    startTime: new Date(start),
    endTime: new Date(end),
    numValuesPerNode: Number(size),
    isReadModified: false,
    returnBounds: false,
  });
  let continuationPoint;
  for (let page = 1; page <= 100; page++) {
    const request = new HistoryReadRequest({
      historyReadDetails,
      nodesToRead: [{ nodeId, continuationPoint }],
      releaseContinuationPoints: false,
      timestampsToReturn: TimestampsToReturn.Both,
    });
    const [result] = (await session.historyRead(request)).results;
    if (!result.statusCode.isGood()) throw new Error(result.statusCode.toString());
    result.historyData.dataValues.map(shown("raw", page)).forEach(print);
    continuationPoint = result.continuationPoint;
    if (!continuationPoint?.length) break;
  }
  const found = await session.readAggregateValue(
    { nodeId }, new Date(start), new Date(end), AggregateFunction[aggregate], Number(milliseconds),
  );
  found.historyData.dataValues.map(shown(aggregate, 1)).forEach(print);
}
