// A charging station on `ocpp-rpc`, which refuses whatever breaks the official schemas, on both
// sides. Lines of JSON in: {"id", "action", "params"} makes it call. Lines out: answers by id, and
// {"told": action, "params"} for each call it got.
const readline = require("node:readline");
const { RPCClient, createRPCError, createValidator } = require("ocpp-rpc");

const [endpoint, identity, password, protocol] = process.argv.slice(2);
const tell = (said) => process.stdout.write(JSON.stringify(said) + "\n");
// ocpp-rpc 2.2.1 looks schemas up as urn:X.req and urn:X.conf, and has those of 2.1 under the names
// they are published with.
const schemas21 = require("ocpp-rpc/lib/schemas/ocpp2_1.json").map((schema) => ({
  ...schema,
  $id: schema.$id.replace(/Request$/, ".req").replace(/Response$/, ".conf"),
}));
const station = new RPCClient({
  endpoint,
  identity,
  password,
  protocols: [protocol],
  strictMode: true,
  strictModeValidators: protocol === "ocpp2.1" ? [createValidator("ocpp2.1", schemas21)] : [],
  reconnect: false,
  callTimeoutMs: 20_000,
});
let schedule = null;

const answers = {
  GetConfiguration: ({ key }) => ({
    configurationKey: key
      .filter((name) => name === "ChargingScheduleAllowedChargingRateUnit")
      .map((name) => ({ key: name, readonly: true, value: "Power" })),
    unknownKey: key.filter((name) => name !== "ChargingScheduleAllowedChargingRateUnit"),
  }),
  ChangeConfiguration: () => ({ status: "Accepted" }),
  GetVariables: ({ getVariableData }) => ({
    getVariableResult: getVariableData.map((one) => ({
      ...one,
      attributeStatus: "Accepted",
      attributeValue: "W",
    })),
  }),
  SetVariables: ({ setVariableData }) => ({
    setVariableResult: setVariableData.map(({ component, variable }) => ({
      attributeStatus: "Accepted",
      component,
      variable,
    })),
  }),
  TriggerMessage: () => ({ status: "NotImplemented" }),
  SetChargingProfile: ({ csChargingProfiles, chargingProfile }) => {
    const told = (csChargingProfiles ?? chargingProfile).chargingSchedule;
    schedule = Array.isArray(told) ? told[0] : told;
    return { status: "Accepted" };
  },
  ClearChargingProfile: () => {
    const status = schedule === null ? "Unknown" : "Accepted";
    schedule = null;
    return { status };
  },
  GetCompositeSchedule: ({ connectorId, evseId, duration }) => {
    if (schedule === null) return { status: "Rejected" };
    const now = new Date().toISOString();
    const planned = {
      duration: Math.min(duration, schedule.duration),
      chargingRateUnit: schedule.chargingRateUnit,
      chargingSchedulePeriod: schedule.chargingSchedulePeriod,
    };
    if (evseId === undefined)
      return { status: "Accepted", connectorId, scheduleStart: now, chargingSchedule: planned };
    return { status: "Accepted", schedule: { ...planned, evseId, scheduleStart: now } };
  },
};

station.handle(({ method, params }) => {
  tell({ told: method, params });
  if (!(method in answers)) throw createRPCError("NotImplemented");
  return answers[method](params);
});
station.on("strictValidationFailure", ({ error }) => tell({ invalid: String(error) }));
station.on("close", ({ code, reason }) => tell({ closed: code, reason: String(reason) }));

(async () => {
  try {
    await station.connect();
  } catch (error) {
    tell({ refused: String(error) });
    process.exit(1);
  }
  tell({ connected: protocol });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { id, action, params } = JSON.parse(line);
    station.call(action, params).then(
      (result) => tell({ id, result }),
      (error) => tell({ id, error: error.rpcErrorCode ?? String(error) }),
    );
  }
  await station.close();
})();
