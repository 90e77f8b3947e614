"""MedMapAI: train, evaluate, deploy and run models on medical images. Knows no Qt; importing it imports no torch."""

__version__ = "0.1.0"
