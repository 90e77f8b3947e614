"""Running a trained model: windows, devices, the predictor."""
