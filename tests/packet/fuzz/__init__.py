"""A fuzzer that knows the structure of frames, against the model."""
