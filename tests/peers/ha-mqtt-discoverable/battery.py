"""A battery that announces itself by `ha-mqtt-discoverable`, and does as its number is told.

It counts charging upwards. Lines of JSON out: {"told": watts} for each command. It measures twice a
second until its input ends; the line `offline` makes it say that it is not available.
"""

import json
import sys
import threading

from ha_mqtt_discoverable import DeviceInfo, Settings
from ha_mqtt_discoverable.sensors import Number, NumberInfo, Sensor, SensorInfo, Switch, SwitchInfo

broker = Settings.MQTT(host="127.0.0.1", port=int(sys.argv[1]))
device = DeviceInfo(name="Battery", identifiers="bat-1")
power_w = 0.0
ended = threading.Event()


def sensor(name: str, unit: str, kind: str, *, manual: bool = False) -> Sensor:
    info = SensorInfo(
        name=name, unique_id=f"bat_1_{name}", unit_of_measurement=unit, device_class=kind,
        device=device,
    )  # fmt: skip
    return Sensor(Settings(mqtt=broker, entity=info, manual_availability=manual))


def told(client: object, user_data: object, message: object) -> None:
    global power_w
    power_w = float(message.payload.decode())
    print(json.dumps({"told": power_w}), flush=True)
    setpoint.set_value(power_w)
    power.set_state(power_w)


def switched(client: object, user_data: object, message: object) -> None:
    print(json.dumps({"told": message.payload.decode()}), flush=True)
    (heater.on if message.payload == b"ON" else heater.off)()


def measure() -> None:
    while not ended.wait(0.5):
        power.set_state(power_w)
        soc.set_state(55)


power = sensor("power", "W", "power", manual=True)
soc = sensor("soc", "%", "battery")
number = NumberInfo(
    name="setpoint", unique_id="bat_1_setpoint", unit_of_measurement="W", min=-5000, max=5000,
    step=1, device=device,
)  # fmt: skip
setpoint = Number(Settings(mqtt=broker, entity=number), told)
setpoint.set_value(0)
heater_info = SwitchInfo(
    name="heater", unique_id="heater_1", device=DeviceInfo(name="Heater", identifiers="heater-1")
)
heater = Switch(Settings(mqtt=broker, entity=heater_info), switched)
heater.off()
power.set_availability(True)
threading.Thread(target=measure).start()
for line in sys.stdin:
    power.set_availability(line.strip() != "offline")
ended.set()
