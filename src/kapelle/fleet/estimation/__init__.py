"""What the plant does while parts of it are silent: a mean, an interval, and learning both."""
