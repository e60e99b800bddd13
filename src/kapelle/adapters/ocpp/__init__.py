"""Charging stations that speak OCPP 1.6J, 2.0.1 or 2.1; the plant is their CSMS."""
