"""What both panels share of Slicer's Qt side; MedMapAILib knows no Qt, and this package knows no torch."""
