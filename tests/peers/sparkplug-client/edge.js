// An edge node on `sparkplug-client` with one battery behind it, which does what DCMDs say and
// echoes it. Lines of JSON in: {"metrics": [...]} is sent as DDATA, {"skip": n} loses n sequence
// numbers, {"death": true} is a DDEATH, {"die": true} breaks the connection. Lines out: {"born": n}
// with the count of births, {"told": value} for each command.
const readline = require("node:readline");
const { newClient } = require("sparkplug-client");

const [serverUrl, groupId, edgeNode, device] = process.argv.slice(2);
const tell = (said) => process.stdout.write(JSON.stringify(said) + "\n");
const config = { serverUrl, groupId, edgeNode, username: "", password: "" };
const client = newClient({ ...config, clientId: `${groupId}-${edgeNode}`, version: "spBv1.0" });
const setpoint = (value) => ({ name: "Battery/Setpoint", type: "Double", alias: 2, value });
let births = 0;

const born = () => {
  const at = Date.now();
  const control = { name: "Node Control/Rebirth", type: "Boolean", value: false };
  // The client adds bdSeq by itself: like this it is there twice.
  const bdSeq = { name: "bdSeq", type: "UInt64", value: client.bdSeq };
  client.publishNodeBirth({ timestamp: at, metrics: [bdSeq, control] });
  const metrics = [
    { name: "Battery/Power", type: "Int32", alias: 1, value: 0 },
    setpoint(0),
    { name: "Battery/SoC", type: "Float", alias: 3, value: 55 },
    { name: "Battery/Maker", type: "String", alias: 4, value: "somebody" },
  ];
  client.publishDeviceBirth(device, { timestamp: at, metrics });
  births += 1;
  tell({ born: births });
};
client.on("birth", born);
client.on("ncmd", ({ metrics }) => {
  if (metrics.some(({ name, value }) => name === "Node Control/Rebirth" && value)) born();
});
client.on("dcmd", (name, { metrics }) => {
  for (const metric of metrics) {
    tell({ told: metric.value, device: name });
    const echo = { timestamp: Date.now(), metrics: [{ ...setpoint(metric.value) }] };
    if (metric.value === null || metric.isNull) echo.metrics[0].isNull = true;
    client.publishDeviceData(name, echo);
  }
});
readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const { metrics, skip, death, die } = JSON.parse(line);
  if (metrics) client.publishDeviceData(device, { timestamp: Date.now(), metrics });
  if (skip) client.seq = (client.seq + skip) % 256;
  if (death) client.publishDeviceDeath(device, { timestamp: Date.now() });
  if (die) client.client.stream.destroy();
});
