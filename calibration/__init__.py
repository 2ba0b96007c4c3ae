"""Label-free calibration of the attention temperature T and scale S."""
