"""Networks that find: each gives boxes with a class and a score, and some a mask in each box."""
