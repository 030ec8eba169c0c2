"""The parts of `ksi-migrate parity`: a room on one side in scratch, its steps, what is seen and compared."""
