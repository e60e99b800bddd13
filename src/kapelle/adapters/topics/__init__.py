"""Other people's MQTT topics, by a mapping in TOML or by Home Assistant discovery."""
