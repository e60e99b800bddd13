"""MQTT 3.1.1 and 5: our own endpoint, where an acknowledgement means durable."""
