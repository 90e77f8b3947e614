"""Images from measurements, step by step: each method takes a linear operator and data, and says how it went.

An operator is anything with ``operator(image)`` and ``operator.adjoint(data)``: ``physics.CtProjector`` or
``physics.MrOperator``. All work on batches, on every device, and give an ``iteration.Solution``.
"""
