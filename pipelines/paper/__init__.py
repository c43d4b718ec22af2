"""The paper whose finding this makes repeatable: its published numbers, and ours beside them."""
