"""What a fleet answers to one number: every setpoint is a clipped, monotone function of λ.

Tiers of merit order lie `TIER` apart along λ. Within its tier a device gives
`min(head, weight · x)`, with x the part of |λ| that lies in the tier; positive λ moves towards
export, negative towards consumption. So shares are proportional to weights until a limit binds, and
the sum over any set of devices is piecewise linear in λ: it can be summed, published and solved
without knowing the devices. Devices that are on or off change whole, each at its own λ, so
that their staircase follows the line the continuous ones would draw.
"""
