"""What the integration tests, the benchmarks and the soak share: agents, guests, monitors, images."""
