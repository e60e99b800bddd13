"""Devices that speak IEEE 2030.5 (CSIP-AUS): the plant is the server they look at."""
