"""SunSpec devices over Modbus TCP, as the edge agent reads and commands them."""
