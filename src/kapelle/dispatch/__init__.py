"""From a target to delivered power: shares, commands, verification, reallocation."""
