"""Making a model: configuration, loop, schedule, checkpoint, history."""
