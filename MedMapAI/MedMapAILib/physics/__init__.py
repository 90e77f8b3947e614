"""From images to measurements and back: CT and MR as linear operators with their exact adjoints, noise, corrections.

Images are (B, 1, H, W): row i, column j; x runs along the columns, y against the rows (up in the picture), mm, and the
origin, in the middle of the image, is the center of rotation. Everything is torch, batched and differentiable.
"""
