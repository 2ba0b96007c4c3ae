"""One page of a comparison and its calibrations, which needs nothing but a browser."""
