"""What is computed: image encoders, the three stages, and the simulator that tests lean on."""
