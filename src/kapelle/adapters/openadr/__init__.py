"""OpenADR 3.1: a VTN for gateways, and a VEN towards a utility (OpenADR 3.0 is another thing)."""
